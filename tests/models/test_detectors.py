"""Detectors by name: the published parameters and MACs, what is held, names and fields that are wrong."""

import jax
import jax.numpy as jnp
import pytest

from swin_jax.models.detector_complexity import detector_macs
from swin_jax.models.detectors import create_detector, detector_names, published

EXACT = {
    "mask_rcnn_resnet50": (44_396_336, 259.3e9),
    "mask_rcnn_swin_tiny": (47_794_602, 266.6e9),
    "mask_rcnn_swin_small": (69_112_506, 358.6e9),
    "cascade_mask_rcnn_resnet50": (82_231_538, 737.6e9),
    "cascade_mask_rcnn_resnext101_32x4d": (100_852_210, 816.8e9),
    "cascade_mask_rcnn_resnext101_64x4d": (140_129_778, 969.6e9),
    "cascade_mask_rcnn_swin_tiny": (85_629_804, 744.8e9),
    "cascade_mask_rcnn_swin_small": (106_947_708, 836.8e9),
    "cascade_mask_rcnn_swin_base": (144_977_002, 981.3e9),
    "htcpp_swin_base": (160_506_913, 1043.2e9),
    "htcpp_swin_large": (284_741_117, 1470.3e9),
}


@pytest.mark.parametrize("name", EXACT)
def test_parameters_are_exact_and_macs_those_of_the_paper(name: str):
    """The counts of HTC++ are within 0.1 M of the published 160.5 and 284.7 M."""
    model = create_detector(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == EXACT[name][0]
    assert detector_macs(model, 800, 1280) == pytest.approx(EXACT[name][1], rel=5e-4)
    assert published(name).macs == pytest.approx(EXACT[name][1], rel=5e-3)


def test_deconvolutions_of_a_deit_count_here_and_not_in_the_paper():
    """80M and 889G are a pyramid without them; six products of 4 C^2 on the map of 50 x 80."""
    model = create_detector("cascade_mask_rcnn_deit_small")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    pyramid = sum(leaf.size for leaf in jax.tree.leaves(shapes["backbone"]["pyramid"]))
    assert count == 81_570_738
    assert count - pyramid == pytest.approx(80e6, abs=0.5e6)
    macs = detector_macs(model, 800, 1280)
    assert macs == pytest.approx(902.4e9, rel=5e-4)
    assert macs - 6 * 50 * 80 * 4 * 384**2 == pytest.approx(889e9, rel=5e-3)


def test_a_detector_without_masks_has_no_mask_head():
    shapes = jax.eval_shape(
        create_detector("mask_rcnn_swin_tiny", with_masks=False).init,
        jax.random.key(0),
        jnp.zeros((1, 64, 64, 3)),
    )
    assert set(shapes["params"]) == {"backbone", "neck", "rpn", "box_head"}


def test_a_resnet_holds_its_stem_and_first_stage():
    model = create_detector("mask_rcnn_resnet50")
    assert model.frozen("backbone/stem/conv/kernel")
    assert model.frozen("backbone/stage0/block0/conv1/conv/kernel")
    assert not model.frozen("backbone/stage1/block0/conv1/conv/kernel")
    assert not model.frozen("neck/lateral0/kernel")
    assert model.layer_of("box_head/fc0/kernel") == model.num_layers - 1


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("htc_resnet50", {"semantic_classes": 0}, "semantic_classes must be an integer of at least 1, got 0"),
        ("htc_resnet50", {"semantic_classes": 256}, "semantic_classes must be at most 255, got 256"),
        ("htc_resnet50", {"mask_channels": 8}, r"mask_channels must be the pyramid's 256 channels, .* got 8"),
        ("cascade_mask_rcnn_swin_tiny", {"box_convs": -1}, "box_convs must be an integer of at least 0"),
        ("cascade_mask_rcnn_swin_tiny", {"semantic_classes": 3}, "has no field 'semantic_classes'"),
        ("mask_rcnn_swin_tine", {}, "no detector is called 'mask_rcnn_swin_tine'; did you mean"),
        ("mask_rcnn_swin_tiny", {"chanels": 8}, "has no field 'chanels'; did you mean 'channels'"),
        ("mask_rcnn_swin_tiny", {"mask_convs": -1}, "mask_convs must be an integer of at least 0, got -1"),
    ],
)
def test_a_wrong_name_or_field_is_one_sentence(name: str, fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        create_detector(name, **fields)


def test_every_name_makes_a_detector():
    for name in detector_names():
        assert create_detector(name, 3).num_classes == 3
