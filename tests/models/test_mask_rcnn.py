"""Mask R-CNN against OpenMMLab's, and what a detector promises."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.detector_complexity import detector_macs
from swin_jax.models.detectors import create_detector, detector_names
from swin_jax.models.mask_rcnn import MaskRCNN
from swin_jax.tasks.two_stage_settings import Selecting, TwoStage
from swin_jax.weights import flatten
from tests.models.detector_golden import EVERYTHING, IMAGES, ORIGINAL, PROPOSALS, Golden, close

GOLDEN = Golden("mask_rcnn", MaskRCNN)


def detections(selecting: Selecting) -> dict[str, np.ndarray]:
    return GOLDEN.find(TwoStage(train_proposals=PROPOSALS, test_proposals=PROPOSALS, selecting=selecting))


@pytest.fixture(name="found", scope="module")
def fixture_found() -> dict[str, np.ndarray]:
    return detections(Selecting(most=40))


def test_pyramid_and_proposal_network_agree():
    @jax.jit
    def run(variables: Any) -> Any:
        pyramid = GOLDEN.model.apply(variables, IMAGES, False, method="features")
        return pyramid, *GOLDEN.model.apply(variables, pyramid, method="propose")

    pyramid, objectness, deltas = run(GOLDEN.variables)
    for level in (3, 4):
        close(pyramid[level].transpose(0, 3, 1, 2), GOLDEN[f"test/neck/{level}"], 1e-4)
    for level in (2, 3, 4):
        close(objectness[level].transpose(0, 3, 1, 2), GOLDEN[f"test/rpn_head/0/{level}"], 1e-4)
        close(deltas[level].transpose(0, 3, 1, 2), GOLDEN[f"test/rpn_head/1/{level}"], 1e-4)


@pytest.mark.parametrize("picture", [0, 1])
def test_detections_agree_one_to_one(found: dict[str, np.ndarray], picture: int):
    GOLDEN.check_detections(found, "det", picture)
    assert found["complete"].all()
    assert (found["boxes"] <= np.tile(ORIGINAL[picture][::-1], 2) + 1e-3)[picture].all()


@pytest.mark.parametrize("picture", [0, 1])
def test_mask_areas_agree(found: dict[str, np.ndarray], picture: int):
    GOLDEN.check_mask_areas(found, "mask_areas", picture)


@pytest.mark.parametrize(
    ("key", "selecting"),
    [
        ("det_score_thr_0.7", Selecting(least_score=0.7)),
        ("det_soft_nms", Selecting(most=60, soft="linear", least_soft_score=0.05)),
    ],
)
def test_other_selections_agree(key: str, selecting: Selecting):
    found = detections(selecting)
    for picture in (0, 1):
        GOLDEN.check_detections(found, key, picture)


@pytest.mark.long
def test_training_losses_and_gradient_norms_agree():
    """With mask targets of whole bitmaps, as there. Of crops of 112 x 112 the mask loss is 0.14% less."""
    terms, gradients, _ = GOLDEN.losses(GOLDEN.truth(), TwoStage(**EVERYTHING))
    theirs = {
        "rpn_cls": GOLDEN["train/loss/loss_rpn_cls"].sum(),
        "rpn_box": GOLDEN["train/loss/loss_rpn_bbox"].sum(),
        "cls": GOLDEN["train/loss/loss_cls"],
        "box": GOLDEN["train/loss/loss_bbox"],
        "mask": GOLDEN["train/loss/loss_mask"][0],
    }
    assert terms.keys() == theirs.keys()
    for name, value in theirs.items():
        assert terms[name] == pytest.approx(float(value), rel=2e-5), name
    GOLDEN.check_gradient_norms(flatten(gradients), 2e-4)


EXACT = {
    "mask_rcnn_resnet50": (44_396_336, 259.3e9),
    "mask_rcnn_swin_tiny": (47_794_602, 266.6e9),
    "mask_rcnn_swin_small": (69_112_506, 358.6e9),
}


@pytest.mark.parametrize("name", EXACT)
def test_parameters_are_exact_and_macs_those_of_the_paper(name: str):
    model = create_detector(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == EXACT[name][0]
    assert detector_macs(model, 800, 1280) == pytest.approx(EXACT[name][1], rel=5e-4)


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
