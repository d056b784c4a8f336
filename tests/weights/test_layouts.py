"""Names and arrangements of other code bases: there and back, bit for bit, every name accounted for."""

from pathlib import Path

import jax
import numpy as np
import pytest

from swin_jax.models.registry import create_model
from swin_jax.weights import FORMATS, OURS, fit, sort_state, state_of, unflatten
from swin_jax.weights.names import Template
from tests.weights import micro

GOLDENS = Path(__file__).parents[1] / "goldens"


@pytest.mark.parametrize("layout", micro.CLASSIFIER_LAYOUTS)
def test_a_classifier_comes_back_bit_for_bit(layout: str) -> None:
    found = micro.weights(layout)
    assert found.layout == layout
    assert micro.same(dict(found.params), micro.params())
    assert fit(found, micro.shapes()).fresh == ()


@pytest.mark.parametrize("layout", micro.DENSE_LAYOUTS)
@pytest.mark.parametrize("position", [False, True])
def test_a_dense_backbone_comes_back_bit_for_bit(layout: str, position: bool) -> None:
    fields = {"features_only": True, "num_classes": 0}
    if position:
        fields |= {"absolute_position_embedding": True, "absolute_position_size": (56, 56)}
    found = micro.weights(layout, **fields)
    assert found.layout == layout
    assert micro.same(dict(found.params), micro.params(**fields))


def test_every_format_has_a_test() -> None:
    assert {OURS, *micro.CLASSIFIER_LAYOUTS, *micro.DENSE_LAYOUTS} == set(FORMATS)


@pytest.mark.parametrize(
    ("layout", "name", "shape"),
    [
        ("official", "layers.0.downsample.reduction.weight", (32, 64)),
        ("official", "layers.0.blocks.0.attn.relative_position_index", (49, 49)),
        ("official", "layers.0.blocks.1.attn_mask", (16, 49, 49)),
        ("timm", "layers.1.downsample.reduction.weight", (32, 64)),
        ("timm", "head.fc.weight", (5, 32)),
        ("torchvision", "features.1.1.mlp.3.weight", (16, 64)),
        ("torchvision", "features.2.norm.weight", (64,)),
        ("torchvision", "features.3.0.attn.relative_position_index", (2401,)),
        ("transformers", "swin.encoder.layers.1.blocks.0.attention.self.value.weight", (32, 32)),
        ("transformers-5", "swin.encoder.layers.1.blocks.0.attention.v_proj.weight", (32, 32)),
        ("openmmlab", "backbone.stages.1.blocks.0.ffn.layers.0.0.weight", (128, 32)),
        ("openmmlab", "backbone.norm1.weight", (32,)),
        ("openmmlab", "head.fc.weight", (5, 32)),
    ],
)
def test_names_are_those_of_the_code_bases(layout: str, name: str, shape: tuple[int, ...]) -> None:
    assert micro.state(layout)[name].shape == shape


@pytest.mark.parametrize(
    ("layout", "prefix"),
    [
        ("official", "module."),
        ("official", "encoder."),
        ("official-dense", ""),
        ("timm", "model."),
        ("openmmlab", "module."),
    ],
)
def test_what_a_model_was_embedded_in_is_taken_off(layout: str, prefix: str) -> None:
    fields = {"features_only": True, "num_classes": 0} if layout == "official-dense" else {}
    state = {name.removeprefix("backbone."): value for name, value in micro.state(layout, **fields).items()}
    found = sort_state({prefix + name: value for name, value in state.items()}, "file.pth")
    assert micro.same(dict(found.params), micro.params(**fields))


def test_a_detector_gives_its_backbone_and_says_what_it_leaves() -> None:
    fields = {"features_only": True, "num_classes": 0}
    state = micro.state("official-dense", **fields) | {
        "neck.lateral_convs.0.conv.weight": np.zeros((2, 2, 1, 1), np.float32),
        "roi_head.bbox_head.fc_cls.weight": np.zeros((2, 2), np.float32),
    }
    fitted = fit(sort_state(state, "detector.pth"), micro.shapes(**fields))
    assert micro.same(fitted.params, micro.params(**fields))
    assert any("feature pyramid left out (1 tensors, neck.lateral" in note for note in fitted.notes)
    assert any("a detection head left out" in note for note in fitted.notes)


def test_quarters_of_patch_merging_change_places() -> None:
    """Weights of OpenMMLab (channel-major, quarters by row) give its maps; taken as they stand they do not."""
    with np.load(GOLDENS / "openmmlab_dense.npz") as file:
        golden = dict(file)
    with np.load(GOLDENS / "openmmlab_merging.npz") as file:
        merging = dict(file)
    fields = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "window_size": 7}
    model = create_model("swin", features_only=True, window_policy="dense", **fields)
    official = {
        name[6:]: value.astype(np.float32) for name, value in golden.items() if name.startswith("state/")
    }
    expected = sort_state(official, "official")
    theirs = state_of(dict(expected.params), "openmmlab")
    for name, value in merging.items():  # what OpenMMLab itself holds
        assert f"backbone.{name}" in theirs
        theirs[f"backbone.{name}"] = value.astype(np.float32)
    found = sort_state(theirs, "openmmlab")
    assert found.layout == "openmmlab"
    assert micro.same(dict(found.params), dict(expected.params))
    apply = jax.jit(model.apply)
    images = golden["input_224x224"].astype(np.float32).transpose(0, 2, 3, 1)
    right = golden["out_224x224/c5"].transpose(0, 2, 3, 1)
    scale = np.abs(right).max()
    maps = apply({"params": unflatten(found.params)}, images)
    assert np.abs(np.asarray(maps[3]) - right).max() <= 1e-5 * scale
    swapped = dict(found.params)
    for stage in range(3):
        path = f"stage{stage}/downsample/reduction/kernel"
        swapped[path] = theirs[f"backbone.stages.{stage}.downsample.reduction.weight"].T
    maps = apply({"params": unflatten(swapped)}, images)
    assert np.abs(np.asarray(maps[3]) - right).max() > 0.1 * scale


@pytest.mark.parametrize(
    ("layout", "fields", "sentence"),
    [
        ("torchvision", {"absolute_position_embedding": True}, "has no place for absolute_pos_embed"),
        ("timm", {"features_only": True, "num_classes": 0}, "no place for norm0/"),
        ("official-dense", {}, "no place for head/"),
    ],
)
def test_what_a_layout_has_no_place_for(layout: str, fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        micro.state(layout, **fields)


def test_an_unknown_format() -> None:
    with pytest.raises(ValueError, match="there is no format 'keras'; formats: swin_jax, transformers"):
        state_of({}, "keras")


def test_templates() -> None:
    name = Template("features.{2i+1}.{j}.norm")
    assert name.match("features.5.11.norm") == {"i": 2, "j": 11}
    assert name.fill({"i": 2, "j": 11}) == "features.5.11.norm"
    for other in ("features.4.11.norm", "features.5.11xnorm", "features.05.1.norm", "features.5.11.norm.x"):
        assert name.match(other) is None
    assert Template("layers.{i+1}.norm").match("layers.0.norm") is None
    with pytest.raises(ValueError, match="not of the form"):
        Template("layers.{i-1}")
