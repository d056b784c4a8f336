"""Mask R-CNN's names in OpenMMLab: everything has a place, and comes back bit for bit."""

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
from swin_jax.origin import open_origin
from swin_jax.weights import Fitted, flatten, unflatten, write_weights
from swin_jax.weights.backbones import RESNET
from swin_jax.weights.composed import composed_of_state, state_of_composed, write_composed
from swin_jax.weights.layouts import write_state
from swin_jax.weights.mask_rcnn import MASK_RCNN
from tests.weights import micro

MICRO = {
    "embed_dim": 8,
    "depths": (1, 2, 1, 1),
    "num_heads": (1, 1, 1, 1),
    "window_size": 2,
    "channels": 6,
    "fc_channels": 5,
    "mask_channels": 4,
    "mask_convs": 2,
}


@cache
def shapes(name: str = "mask_rcnn_swin_tiny", classes: int = 3, **fields: Any) -> dict[str, Any]:
    """Parameters and statistics of a micro detector, not computed."""
    model = create_detector(name, classes, **fields)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


def drawn(tree: Any) -> dict[str, np.ndarray]:
    generator = np.random.RandomState(0)
    return {
        path: generator.standard_normal(leaf.shape).astype(np.float32) for path, leaf in flatten(tree).items()
    }


@pytest.fixture(name="ours", scope="module")
def fixture_ours() -> dict[str, np.ndarray]:
    return drawn(shapes(**MICRO)["params"])


@pytest.fixture(name="file", scope="module")
def fixture_file(ours: dict, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("files") / "mask_rcnn.safetensors"
    write_composed(path, ours, "openmmlab")
    return str(path)


def begun(source: str, tree: dict[str, Any], **options: Any) -> Fitted:
    return pretrained.beginning(
        source, tree["params"], {"batch_stats": tree.get("batch_stats", {})}, **options
    )


@pytest.mark.parametrize("layout", MASK_RCNN.beside)
def test_every_parameter_goes_out_and_comes_back(layout: str, ours: dict):
    back = composed_of_state(state_of_composed(ours, layout), "file")
    assert micro.same(dict(back.params), ours)


def test_the_names_and_arrangements_are_openmmlabs(ours: dict):
    state = state_of_composed(ours, "openmmlab")
    first = state["roi_head.bbox_head.shared_fcs.0.weight"]
    assert first.shape == (5, 6 * 49)
    # There a RoI is flattened by channels, here by cells: cell (2, 3) of channel 4.
    np.testing.assert_array_equal(
        first[:, 4 * 49 + 2 * 7 + 3], ours["box_head/fc0/kernel"][(2 * 7 + 3) * 6 + 4]
    )
    assert state["roi_head.bbox_head.fc_reg.weight"].shape == (12, 5)
    assert state["roi_head.mask_head.upsample.weight"].shape == (4, 4, 2, 2)
    np.testing.assert_array_equal(
        state["roi_head.mask_head.upsample.weight"][1, 2], ours["mask_head/upsample/kernel"][:, :, 1, 2]
    )
    assert state["rpn_head.rpn_reg.weight"].shape == (12, 6, 1, 1)
    assert state["neck.fpn_convs.3.conv.bias"].shape == (6,)
    assert "backbone.stages.1.blocks.1.attn.w_msa.qkv.weight" in state


def test_a_run_begins_with_a_whole_detector_or_with_a_backbone(ours: dict, file: str, tmp_path: Path):
    found = begun(file, shapes(**MICRO))
    assert found.fresh == ()
    assert micro.same(found.params, ours)
    assert "a whole detector" in found.notes[0]
    other = begun(file, shapes(classes=7, **MICRO))
    fresh = {f"{layer}/{leaf}" for layer in MASK_RCNN.classifiers for leaf in ("kernel", "bias")}
    assert set(other.fresh) == fresh
    assert "fresh: 7 classes, the file has 3" in " ".join(other.notes)
    backbone = {
        path.removeprefix("backbone/"): value for path, value in ours.items() if path.startswith("backbone/")
    }
    write_weights(tmp_path / "swin.safetensors", backbone, "openmmlab")
    begin = begun(str(tmp_path / "swin.safetensors"), shapes(**MICRO))
    assert {path.split("/")[0] for path in begin.fresh} == {"neck", "rpn", "box_head", "mask_head"}
    assert "the backbone" in begin.notes[0]


def test_a_detector_on_a_resnet_comes_whole():
    fields = {name: MICRO[name] for name in ("channels", "fc_channels", "mask_channels", "mask_convs")}
    tree = shapes("mask_rcnn_resnet50", depths=(1, 1, 1, 1), **fields)
    values = drawn(tree["params"]) | drawn(tree["batch_stats"])
    inside = {name[9:]: value for name, value in values.items() if name.startswith("backbone/")}
    heads = {name: value for name, value in values.items() if not name.startswith("backbone/")}
    state = write_state(heads, MASK_RCNN.heads["openmmlab"])
    state |= {f"backbone.{name}": value for name, value in write_state(inside, RESNET).items()}
    theirs = composed_of_state(state, "file")
    assert micro.same({**theirs.params, **theirs.statistics}, values)


def test_a_file_becomes_a_detector_that_detects(ours: dict, tmp_path: Path):
    file = str(tmp_path / "mask_rcnn.safetensors")
    swin_jax.save_composed(file, unflatten(ours), {})
    model, variables = swin_jax.load_detector("mask_rcnn_swin_tiny", file, num_classes=3, **MICRO)
    jax.tree.map(np.testing.assert_array_equal, variables["params"], unflatten(ours))
    with pytest.raises(ValueError, match=r"there is no setting 'nmss'; settings are anchor_"):
        swin_jax.detect(model, variables, np.zeros((1, 64, 64, 3), np.float32), np.array([[64, 64]]), nmss=1)
    with pytest.raises(ValueError, match=r"does not fit the model: .*box_head/classes"):
        swin_jax.load_detector("mask_rcnn_swin_tiny", file, num_classes=4, **MICRO)


def test_a_file_is_converted_whole(file: str, ours: dict, tmp_path: Path):
    report = convert.convert_composed(
        pretrained.read(file, whole=True), tmp_path / "ours.safetensors", "swin_jax"
    )
    assert report["model"] == "Mask R-CNN, 3 classes"
    assert report["mapped"]["rpn/objectness/bias"] == ["rpn_head.rpn_cls.bias"]
    back = pretrained.read(str(tmp_path / "ours.safetensors"), whole=True)
    assert micro.same(dict(back.params), ours)
    with pytest.raises(
        ValueError, match=r"is a Mask R-CNN, this is for classifiers and backbones; .*load_detector"
    ):
        open_origin(file)
    with pytest.raises(ValueError, match="Mask R-CNN is not written as 'transformers'"):
        convert.convert_composed(back, tmp_path / "x.safetensors", "transformers")
