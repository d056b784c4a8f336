"""Cascades' names in OpenMMLab: everything has a place, and comes back bit for bit."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swin_jax
from swin_jax import convert, pretrained
from swin_jax.models.detectors import create_detector
from swin_jax.weights import Fitted, flatten, unflatten
from swin_jax.weights.cascade import CASCADE_MASK_RCNN, CLASSIFIERS, HTC
from swin_jax.weights.composed import composed_of_state, known_family, state_of_composed, write_composed
from tests.weights import micro

SHAPE = {
    "embed_dim": 8,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 1, 1, 1),
    "window_size": 2,
    "channels": 6,
    "fc_channels": 5,
    "mask_channels": 6,
    "mask_convs": 2,
}
FIELDS = {
    "cascade_mask_rcnn_swin_tiny": {"box_convs": 2},
    "htc_swin_tiny": {"semantic_classes": 4},
    "htcpp_swin_tiny": {"semantic_classes": 4, "box_convs": 2},
}
RELEASED = ("cascade_mask_rcnn_swin_tiny", "htc_swin_tiny")


@cache
def shapes(name: str, classes: int = 3, **fields: Any) -> dict[str, Any]:
    """Parameters and statistics of a micro detector, not computed."""
    model = create_detector(name, classes, **{**SHAPE, **FIELDS[name], **fields})
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


@cache
def drawn(name: str) -> dict[str, np.ndarray]:
    generator = np.random.RandomState(0)
    tree = shapes(name)
    leaves = {**flatten(tree["params"]), **flatten(tree.get("batch_stats", {}))}
    return {path: generator.standard_normal(leaf.shape).astype(np.float32) for path, leaf in leaves.items()}


def begun(source: str, tree: dict[str, Any], **options: Any) -> Fitted:
    return pretrained.beginning(
        source, tree["params"], {"batch_stats": tree.get("batch_stats", {})}, **options
    )


@pytest.mark.parametrize("layout", CASCADE_MASK_RCNN.beside)
@pytest.mark.parametrize("name", RELEASED)
def test_every_parameter_and_statistic_goes_out_and_comes_back(name: str, layout: str):
    back = composed_of_state(state_of_composed(drawn(name), layout), "file")
    assert micro.same({**back.params, **back.statistics}, drawn(name))


def test_the_names_and_arrangements_are_openmmlabs():
    state = state_of_composed(drawn("cascade_mask_rcnn_swin_tiny"), "openmmlab")
    assert state["roi_head.bbox_head.2.shared_convs.1.bn.running_var"].shape == (6,)
    assert state["roi_head.bbox_head.0.shared_convs.0.conv.weight"].shape == (6, 6, 3, 3)
    assert state["roi_head.bbox_head.1.shared_fcs.0.weight"].shape == (5, 6 * 49)
    assert state["roi_head.bbox_head.1.fc_reg.weight"].shape == (12, 5)
    assert "roi_head.bbox_head.0.shared_fcs.1.weight" not in state
    assert state["roi_head.mask_head.2.conv_logits.bias"].shape == (3,)
    hybrid = state_of_composed(drawn("htc_swin_tiny"), "openmmlab")
    assert "roi_head.mask_head.0.conv_res.conv.weight" not in hybrid
    assert hybrid["roi_head.mask_head.1.conv_res.conv.weight"].shape == (6, 6, 1, 1)
    assert hybrid["roi_head.semantic_head.lateral_convs.4.conv.bias"].shape == (6,)
    assert hybrid["roi_head.semantic_head.conv_logits.weight"].shape == (4, 6, 1, 1)
    assert hybrid["roi_head.bbox_head.2.fc_reg.bias"].shape == (4,)


def test_each_is_known_for_what_it_is():
    families = {name: known_family(drawn(name)) for name in FIELDS}
    assert families == {
        "cascade_mask_rcnn_swin_tiny": CASCADE_MASK_RCNN,
        "htc_swin_tiny": HTC,
        "htcpp_swin_tiny": HTC,
    }


def test_the_block_of_htcpp_has_no_name_elsewhere(tmp_path: Path):
    with pytest.raises(ValueError, match=r"has no place for global_block/block/attn/"):
        state_of_composed(drawn("htcpp_swin_tiny"), "openmmlab")
    file = str(tmp_path / "htcpp.safetensors")
    write_composed(file, drawn("htcpp_swin_tiny"), "swin_jax", description={"model": "htcpp_swin_tiny"})
    assert begun(file, shapes("htcpp_swin_tiny")).fresh == ()


def test_a_run_begins_with_all_of_a_cascade_and_with_fresh_classifiers(tmp_path: Path):
    name = "cascade_mask_rcnn_swin_tiny"
    file = str(tmp_path / "cascade.safetensors")
    write_composed(file, drawn(name), "openmmlab")
    found = begun(file, shapes(name))
    assert found.fresh == ()
    assert micro.same({**found.params, **found.statistics}, drawn(name))
    other = begun(file, shapes(name, classes=7))
    assert set(other.fresh) == {f"{layer}/{leaf}" for layer in CLASSIFIERS for leaf in ("kernel", "bias")}
    with pytest.raises(
        ValueError, match=r"has a box for each class \(box_head0/deltas/bias 12\), the model has one"
    ):
        begun(file, shapes(name, class_agnostic=True))


def test_an_htc_meets_other_label_maps_and_other_classes(tmp_path: Path):
    """What does not depend on the classes stays: boxes that all classes share, the semantic branch."""
    file = str(tmp_path / "htc.safetensors")
    write_composed(file, drawn("htc_swin_tiny"), "openmmlab")
    maps = begun(file, shapes("htc_swin_tiny", semantic_classes=7))
    assert {path.rpartition("/")[0] for path in maps.fresh} == {"semantic_head/logits"}
    classes = begun(file, shapes("htc_swin_tiny", classes=7))
    layers = {path.rpartition("/")[0] for path in classes.fresh}
    assert layers == {layer for layer in CLASSIFIERS if not layer.endswith("deltas")}


def test_another_kind_of_detector_gives_its_backbone(tmp_path: Path):
    file = str(tmp_path / "cascade.safetensors")
    write_composed(file, drawn("cascade_mask_rcnn_swin_tiny"), "openmmlab")
    found = begun(file, shapes("htc_swin_tiny"))
    assert {path.split("/")[0] for path in found.params} == {"backbone"}
    assert "the backbone" in found.notes[0]


def test_one_box_for_all_classes_does_not_become_one_for_each(tmp_path: Path):
    file = str(tmp_path / "htc.safetensors")
    write_composed(file, drawn("htc_swin_tiny"), "openmmlab")
    with pytest.raises(ValueError, match=r"one box for all classes .*: make it with class_agnostic=True"):
        begun(file, shapes("htc_swin_tiny", class_agnostic=False))


def test_masks_are_not_expected_of_a_file_without_mask_heads(tmp_path: Path):
    name = "cascade_mask_rcnn_swin_tiny"
    boxes = {path: value for path, value in drawn(name).items() if not path.startswith("mask_head")}
    file = str(tmp_path / "boxes.safetensors")
    write_composed(file, boxes, "openmmlab")
    with pytest.raises(ValueError, match="has no mask head: make the model with with_masks=False"):
        begun(file, shapes(name))
    assert begun(file, shapes(name, with_masks=False)).fresh == ()
    whole = str(tmp_path / "whole.safetensors")
    write_composed(whole, drawn(name), "openmmlab")
    with pytest.raises(ValueError, match="has mask heads, the model was made with with_masks=False"):
        begun(whole, shapes(name, with_masks=False))


@pytest.mark.long
@pytest.mark.parametrize("name", RELEASED)
def test_a_file_becomes_a_detector_that_detects(name: str, tmp_path: Path):
    file = str(tmp_path / "detector.safetensors")
    tree = shapes(name)
    params = {path: drawn(name)[path] for path in flatten(tree["params"])}
    statistics = {path: abs(drawn(name)[path]) for path in flatten(tree.get("batch_stats", {}))}
    swin_jax.save_composed(
        file, unflatten(params), {"batch_stats": unflatten(statistics)} if statistics else {}
    )
    fields = {**SHAPE, **FIELDS[name]}
    model, variables = swin_jax.load_detector(name, file, num_classes=3, **fields)
    jax.tree.map(np.testing.assert_array_equal, variables["params"], unflatten(params))
    found = swin_jax.detect(
        model, variables, np.zeros((1, 64, 64, 3), np.float32), np.array([[64, 64]]), most=4, test_proposals=8
    )
    assert found["boxes"].shape == (1, 4, 4)
    assert found["masks"].shape == (1, 4, 28, 28)
    with pytest.raises(
        ValueError, match=r"detection.roi_ious is .*; expected one value for each .* 3 stages"
    ):
        swin_jax.detect(
            model,
            variables,
            np.zeros((1, 64, 64, 3), np.float32),
            np.array([[64, 64]]),
            roi_ious=(0.5, 0.6),
        )


def test_a_file_is_converted_whole(tmp_path: Path):
    file = str(tmp_path / "cascade.safetensors")
    write_composed(file, drawn("cascade_mask_rcnn_swin_tiny"), "openmmlab")
    report = convert.convert_composed(
        pretrained.read(file, whole=True), tmp_path / "ours.safetensors", "swin_jax"
    )
    assert report["model"] == "Cascade Mask R-CNN, 3 classes"
    back = pretrained.read(str(tmp_path / "ours.safetensors"), whole=True)
    assert micro.same({**back.params, **back.statistics}, drawn("cascade_mask_rcnn_swin_tiny"))
