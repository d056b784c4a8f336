"""Captured attention: it is what the model computed, and every token is put where it belongs."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swin_jax
from swin_jax.models.attention import (
    COLLECTION,
    BlockAttention,
    attention,
    attention_shapes,
    last_blocks,
)
from swin_jax.models.registry import create_model
from swin_jax.models.swin import SwinTransformer
from swin_jax.ops import windows
from swin_jax.ops.window_attention import attention_weights, window_attention

MICRO = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "num_classes": 5}
BLOCKS = ("stage0/block0", "stage0/block1", "stage1/block0", "stage1/block1")


def micro(**overrides: Any) -> SwinTransformer:
    return create_model("swin", **{**MICRO, **overrides})


def variables_of(model: SwinTransformer) -> dict[str, Any]:
    """Nothing at its initial value: attention near uniform would hide mistakes."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    draw = np.random.RandomState(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * draw.standard_normal(leaf.shape), leaf.dtype), shapes)


def pictures(height: int, width: int) -> jax.Array:
    return jnp.asarray(np.random.RandomState(1).standard_normal((2, height, width, 3)), jnp.float32)


@pytest.mark.parametrize(("shift", "height", "width"), [(0, 8, 8), (2, 8, 12), (2, 7, 5)])
def test_weights_times_values_are_the_output(shift: int, height: int, width: int) -> None:
    """Rows sum to 1, pairs of different regions have none, and the values weighed are what the op returns."""
    heads, window, channels = 2, 4, 6
    draw = np.random.RandomState(2)
    qkv = jnp.asarray(draw.standard_normal((2, height, width, 3 * channels)), jnp.float32)
    bias = jnp.asarray(draw.standard_normal((heads, window**2, window**2)), jnp.float32)
    inputs = {"window": window, "shift": shift, "pad_qkv": jnp.ones(3 * channels), "scale": 0.5}
    weights = attention_weights(qkv, bias, **inputs)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-6)

    padded = [windows.padded_size(side, window) for side in (height, width)]
    ids = windows.window_region_ids(*padded, window, shift)
    apart = np.asarray(ids[:, :, None] != ids[:, None, :]) & (shift > 0)
    assert apart.any() == (shift > 0)
    given = np.asarray(weights).transpose(1, 3, 4, 0, 2)
    assert (given[apart] == 0).all()
    assert (given[~apart] > 0).all()

    values = np.split(np.asarray(windows.cut(qkv, window, shift, inputs["pad_qkv"])), 3, axis=-1)[2]
    parts = values.reshape(*values.shape[:3], heads, channels // heads)
    out = np.einsum("bwhij,bwjhd->bwihd", weights, parts).reshape(values.shape)
    out = windows.stitch(jnp.asarray(out), window, shift, height, width)
    np.testing.assert_allclose(out, window_attention(qkv, bias, **inputs), atol=1e-5)


def test_the_model_computed_what_is_captured() -> None:
    """The captured probabilities of the model's own values, projected, are what its attention module returned."""
    model, images = micro(), pictures(32, 48)
    variables = variables_of(model)
    seen = ("qkv", "attn")

    def apply(variables: Any, images: jax.Array) -> Any:
        return model.apply(
            variables,
            images,
            mutable=[COLLECTION, "intermediates"],
            capture_intermediates=lambda module, _: module.name in seen,
        )[1]

    state = jax.jit(apply)(variables, images)["intermediates"]
    found = attention(model, variables, images)
    assert tuple(found) == BLOCKS
    assert [of.shift for of in found.values()] == [0, 2, 0, 0]  # the last map is 4 high: one window's side
    for block, of in found.items():
        stage, name = block.split("/")
        attn, params = state[stage][name]["attn"], variables["params"][stage][name]["attn"]
        values = jnp.split(attn["qkv"]["__call__"][0], 3, axis=-1)[2]
        padding = jnp.split(params["qkv"]["bias"], 3)[2]
        cut = windows.cut(values, of.window, of.shift, padding)
        heads = windows.split_heads(cut, of.probabilities.shape[2])
        out = windows.merge_heads(jnp.einsum("bwhij,bwhjd->bwhid", of.probabilities, heads))
        out = windows.stitch(out, of.window, of.shift, of.height, of.width)
        out = out @ params["proj"]["kernel"] + params["proj"]["bias"][None, None, None]
        np.testing.assert_allclose(out, attn["__call__"][0], atol=1e-5)


def test_asking_changes_no_number_and_not_asking_computes_nothing() -> None:
    model, images = micro(), pictures(32, 32)
    variables = variables_of(model)
    assert set(jax.eval_shape(model.init, jax.random.key(0), images)) == {"params"}
    plain = jax.jit(model.apply)(variables, images)
    asked, _ = jax.jit(lambda v, x: model.apply(v, x, mutable=[COLLECTION]))(variables, images)
    np.testing.assert_array_equal(plain, asked)
    text = str(jax.make_jaxpr(model.apply)(variables, images))
    assert text.count(" exp ") == 4  # one softmax a block


@pytest.mark.parametrize("fields", [{"scan": True}, {"remat": "full"}, {"window_policy": "dense"}])
def test_however_blocks_are_executed(fields: dict[str, Any]) -> None:
    """Loops are run block by block; under "dense" other sizes are padded, not shrunk to one window."""
    depths = {"depths": (4, 1)}
    plain, model, images = micro(**depths), micro(**depths, **fields), pictures(32, 32)
    variables = variables_of(plain)
    expected, found = (attention(which, variables, images) for which in (plain, model))
    assert tuple(found) == tuple(expected)
    for block, of in found.items():
        np.testing.assert_allclose(of.probabilities, expected[block].probabilities, atol=1e-6)


def test_some_blocks_in_the_order_of_the_model_and_their_names() -> None:
    model, images = micro(depths=(11, 2)), jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    found = attention_shapes(model, shapes, images)
    known = tuple(found)
    assert found["stage0/block0"].probabilities.shape == (1, 1, 2, 16, 16)
    assert known[9:] == ("stage0/block9", "stage0/block10", "stage1/block0", "stage1/block1")
    assert last_blocks(known) == ("stage0/block10", "stage1/block1")
    model, images = micro(), pictures(16, 16)
    some = swin_jax.attention(model, variables_of(model), images, blocks=["stage1/block0", "stage0/block1"])
    assert list(some) == ["stage1/block0", "stage0/block1"]
    with pytest.raises(
        ValueError, match=f"no window attention in 'stage2/block0'; known: {', '.join(BLOCKS)}"
    ):
        swin_jax.attention(model, variables_of(model), images, blocks=["stage2/block0"])


def test_a_model_without_window_attention() -> None:
    model = nn.Dense(2)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match="Dense has no window attention"):
        attention(model, variables, jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_every_token_is_put_where_it_belongs(shift: int) -> None:
    """Attention made by hand: each token of the map attends to itself alone, but one, which attends to its left."""
    window, height, width = 3, 7, 8
    canvas = np.full((9, 9), -1)
    canvas[:height, :width] = np.arange(height * width).reshape(height, width)
    cut = windows.partition(jnp.asarray(np.roll(canvas, (-shift, -shift), (0, 1)))[None, :, :, None], window)
    tokens = np.asarray(cut)[0, :, :, 0]  # the number of each window's tokens in the map
    probabilities = np.tile(np.eye(window**2, dtype=np.float32), (1, len(tokens), 2, 1, 1))
    row, column = 4, 5 if shift != 2 else 6
    (w,), (own,) = np.nonzero(tokens == row * width + column)
    (left,) = np.flatnonzero(tokens[w] == row * width + column - 1)
    probabilities[0, w, :, own] = np.eye(window**2)[left]
    of = BlockAttention(jnp.asarray(probabilities), height, width, window, shift)

    expected = np.ones((height, width))
    expected[row, column], expected[row, column - 1] = 0, 2
    np.testing.assert_array_equal(of.received()[0], expected)
    expected = np.zeros((height, width))
    expected[row, column - 1] = 1
    np.testing.assert_array_equal(of.of_query(row, column)[0], expected)
    own_window = np.isin(np.arange(height * width), tokens[w]).reshape(height, width)
    np.testing.assert_array_equal(of.window_of(row, column)[0], own_window)


def test_what_is_received_adds_up() -> None:
    """On a map of whole windows every token gives 1; elsewhere some goes to what fills the map up."""
    model = micro(window_policy="dense")
    variables = variables_of(model)
    whole = attention(model, variables, pictures(32, 32))["stage0/block1"]
    np.testing.assert_allclose(whole.received().sum(axis=(1, 2)), 64.0, rtol=1e-5)
    filled = attention(model, variables, pictures(28, 36))["stage0/block1"]
    total = filled.received().sum(axis=(1, 2))
    assert (total < 63.0).all()
    assert (total > 30.0).all()
