"""Files of ResNets and ViTs: what a segmenter on them begins with, statistics included."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax import pretrained
from swin_jax.models.segmenters import create_segmenter
from swin_jax.weights import flatten
from swin_jax.weights.backbones import RESNET, VIT
from swin_jax.weights.files import write_safetensors
from swin_jax.weights.layouts import write_state

HEADS = {"channels": 4, "auxiliary_channels": 4}
FIELDS = {
    "upernet_resnet50": {"depths": (1, 2, 1, 1)},
    "upernet_deit_small": {"embed_dim": 12, "num_heads": 2, "depth": 2},
}


@functools.cache
def trees_of(name: str, depths: tuple[int, ...] | None = None) -> Any:
    """The shapes of a segmenter's variables."""
    fields = FIELDS[name] if depths is None else FIELDS[name] | {"depths": depths}
    model = create_segmenter(name, 5, **HEADS, **fields)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def drawn_file(name: str, path: Path) -> dict[str, np.ndarray]:
    """A classifier's file with the backbone of a segmenter, drawn; returns what it holds by our paths."""
    generator = np.random.default_rng(0)
    held = {
        place.removeprefix("backbone/"): generator.standard_normal(leaf.shape).astype(np.float32)
        for tree in trees_of(name).values()
        for place, leaf in flatten(tree).items()
        if place.startswith("backbone/") and "/pyramid/" not in place
    }
    layout = RESNET if "resnet" in name else VIT
    width = 2048 if layout is RESNET else 12
    head = {"head/kernel": np.zeros((width, 7), np.float32), "head/bias": np.zeros(7, np.float32)}
    state = write_state({**held, **head}, layout)
    if layout is VIT:
        position = state.pop("class_pos_embed")[None, None]
        state["pos_embed"] = np.concatenate([position, state.pop("absolute_pos_embed")], axis=1)
        state["cls_token"] = state["cls_token"][None, None]
    else:
        state["bn1.num_batches_tracked"] = np.zeros((), np.int64)
    write_safetensors(path, state, {"format": "pt"})
    return held


@pytest.mark.parametrize("name", FIELDS)
def test_a_segmenter_begins_with_a_classifiers_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "classifier.safetensors"
    held = drawn_file(name, file)
    trees = trees_of(name)
    params, statistics = flatten(trees["params"]), flatten(trees["batch_stats"])
    begin = pretrained.beginning(str(file), trees["params"], {"batch_stats": trees["batch_stats"]})
    found = begin.params | begin.statistics
    assert {path.removeprefix("backbone/") for path in found} == set(held)
    assert set(begin.params) <= set(params)
    assert set(begin.statistics) <= set(statistics)
    assert bool(begin.statistics) == ("resnet" in name)
    for path, value in held.items():
        np.testing.assert_array_equal(found[f"backbone/{path}"], value)
    fresh = set(begin.fresh)
    assert fresh == set(params) - set(begin.params)
    assert all(path.startswith(("decode_head/", "auxiliary_head/", "backbone/pyramid/")) for path in fresh)
    assert any("head/kernel" in note for note in begin.notes)


def test_another_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "classifier.safetensors"
    drawn_file("upernet_resnet50", file)
    deeper = trees_of("upernet_resnet50", depths=(1, 3, 1, 1))
    with pytest.raises(
        ValueError, match=r"does not fit the model: missing stage1/block2/conv1/bn/bias \(128,\), "
    ):
        pretrained.beginning(str(file), deeper["params"], {"batch_stats": deeper["batch_stats"]})
    vit = trees_of("upernet_deit_small")
    with pytest.raises(ValueError, match=r"does not fit the model: surplus stem/bn/bias"):
        pretrained.beginning(str(file), vit["params"], {"batch_stats": vit["batch_stats"]})
    write_safetensors(file, {"roi_head.weight": np.zeros(1, np.float32)}, {"format": "pt"})
    with pytest.raises(ValueError, match=r"has the names of no ResNet and no ViT \(roi_head\.weight\)"):
        pretrained.beginning(str(file), vit["params"], {"batch_stats": vit["batch_stats"]})
