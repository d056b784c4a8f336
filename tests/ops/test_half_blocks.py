"""Halves of a block as kernels, run by jax operations, against the modules that they stand for."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.layers import Dense, LayerNorm, Mlp, scale_examples
from swin_jax.ops.half_blocks import attention, mlp
from swin_jax.ops.window_attention import window_attention

FACTORS = jnp.array([0.0, 1.25])


def draw(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(0.3 * np.random.RandomState(seed).standard_normal(shape), jnp.float32)


def normed(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return LayerNorm(dtype=x.dtype).apply({"params": {"scale": scale, "bias": bias}}, x)


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    layer = Dense(kernel.shape[1], dtype=x.dtype)
    return layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)


def mlp_by_modules(x: jax.Array, w: mlp.Weights, factor: jax.Array) -> jax.Array:
    layers = {"fc1": (w.fc1_kernel, w.fc1_bias), "fc2": (w.fc2_kernel, w.fc2_bias)}
    params = {name: {"kernel": kernel, "bias": bias} for name, (kernel, bias) in layers.items()}
    branch = Mlp(w.fc1_kernel.shape[1], dtype=x.dtype).apply(
        {"params": params}, normed(x, w.norm_scale, w.norm_bias), False
    )
    return x + scale_examples(branch, factor)


def attention_by_modules(
    x: jax.Array, w: attention.Weights, factor: jax.Array, *, window: int, shift: int
) -> jax.Array:
    qkv = dense(normed(x, w.norm_scale, w.norm_bias), w.qkv_kernel, w.qkv_bias)
    out = window_attention(
        qkv, w.position, window=window, shift=shift, pad_qkv=w.qkv_bias.astype(x.dtype), scale=0.35
    )
    return x + scale_examples(dense(out, w.proj_kernel, w.proj_bias), factor)


def equal(
    ours: Callable[..., jax.Array],
    modules: Callable[..., jax.Array],
    x: jax.Array,
    weights: tuple[jax.Array, ...],
    tolerance: float,
) -> None:
    """Results, and gradients of the map and all parameters, to a part of the largest value of each."""
    factor = draw(7, *x.shape)

    def total(run: Callable[..., jax.Array], x: jax.Array, weights: tuple) -> tuple[jax.Array, jax.Array]:
        out = run(x, weights, FACTORS)
        return (out.astype(jnp.float32) * factor).sum(), out

    found, expected = (
        jax.jit(jax.grad(functools.partial(total, run), argnums=(0, 1), has_aux=True))(x, weights)
        for run in (ours, modules)
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        one, other = (np.asarray(value, np.float32) for value in (one, other))
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize(
    ("size", "channels", "dtype", "tolerance"),
    [((7, 9), 8, "float32", 2e-6), ((8, 16), 16, "float32", 2e-6), ((7, 9), 8, "bfloat16", 0.03)],
)
def test_the_mlp_half(size: tuple[int, int], channels: int, dtype: str, tolerance: float):
    hidden = 4 * channels
    shapes = [(channels,), (channels,), (channels, hidden), (hidden,), (hidden, channels), (channels,)]
    weights = mlp.Weights(*(draw(seed, *shape) for seed, shape in enumerate(shapes)))
    ours = functools.partial(mlp.mlp_half_block, interpret=True)
    equal(ours, mlp_by_modules, draw(9, 2, *size, channels).astype(dtype), weights, tolerance)


@pytest.mark.parametrize(
    ("size", "heads", "window", "shift", "dtype", "tolerance"),
    [
        ((8, 12), 1, 4, 0, "float32", 2e-6),
        ((14, 14), 2, 7, 3, "float32", 2e-6),
        ((8, 12), 2, 4, 2, "bfloat16", 0.04),
    ],
)
def test_the_attention_half(
    size: tuple[int, int], heads: int, window: int, shift: int, dtype: str, tolerance: float
):
    channels, tokens = 16, window**2
    shapes = [
        (channels,),
        (channels,),
        (channels, 3 * channels),
        (3 * channels,),
        (channels, channels),
        (channels,),
        (heads, tokens, tokens),
    ]
    weights = attention.Weights(*(draw(seed, *shape) for seed, shape in enumerate(shapes)))
    fixed = {"window": window, "shift": shift}
    ours = functools.partial(attention.attention_half_block, **fixed, scale=0.35, interpret=True)
    modules = functools.partial(attention_by_modules, **fixed)
    equal(ours, modules, draw(9, 2, *size, channels).astype(dtype), weights, tolerance)


def test_what_does_not_fit_is_named():
    assert mlp.unsupported(96, 384, jnp.bfloat16) == ""
    assert "MiB of on-chip memory" in mlp.unsupported(1536, 6144, jnp.bfloat16)
    sizes = {"window": 7, "heads": 3, "dtype": jnp.bfloat16}
    assert attention.unsupported(56, 56, 96, **sizes) == ""
    assert attention.unsupported(50, 56, 96, **sizes) == "a map of 50 x 56 has no whole windows of 7"
    assert "MiB of on-chip memory" in attention.unsupported(448, 224, 96, **sizes)
    assert "too long" in attention.unsupported(56, 448, 96, **sizes)
