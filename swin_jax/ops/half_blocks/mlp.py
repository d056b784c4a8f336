"""The second half of a block, `x + factor * fc2(gelu(fc1(norm(x))))`, as one TPU kernel."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, DTypeLike, Float

from swin_jax.ops import target
from swin_jax.ops.half_blocks.parts import (
    add_product,
    begin,
    gelu,
    gelu_slope,
    norm,
    norm_backward,
    times,
    times_transposed,
)
from swin_jax.ops.window_attention.tpu_rows import SUBLANES, compiler_params, cost, usable_memory

TILE = 512
"""Tokens that are handled at once, at most."""


class Weights(NamedTuple):
    """The parameters, float32."""

    norm_scale: Float[Array, " channels"]
    norm_bias: Float[Array, " channels"]
    fc1_kernel: Float[Array, "channels hidden"]
    fc1_bias: Float[Array, " hidden"]
    fc2_kernel: Float[Array, "hidden channels"]
    fc2_bias: Float[Array, " channels"]


def mlp_half_block(
    x: Float[Array, "batch height width channels"],
    weights: Weights,
    factor: Float[Array, " batch"],
    *,
    interpret: bool = False,
) -> Float[Array, "batch height width channels"]:
    """Norm, MLP and residual sum (Swin, section 3.1 and figure 3b).

    Args:
      x: a map; products are computed in its type, norm and GELU in float32.
      weights: the parameters; their gradients are float32.
      factor: of the branch of each picture (stochastic depth); it gets no gradient.
      interpret: runs the kernel by jax operations, on any platform.
    """
    fields = tuple(weights)

    def run(x: Array, factor: Array, *fields: Array) -> Array:
        return _half_block(interpret, x, Weights(*fields), jax.lax.stop_gradient(factor))

    return target.on_each_device(run, (x, factor, *fields), split=(True, True) + (False,) * len(fields))


def unsupported(channels: int, hidden: int, dtype: DTypeLike) -> str:
    """Why the kernel cannot take these sizes, in a sentence; "" if it can."""
    needed = 2 * 2 * channels * hidden * (jnp.dtype(dtype).itemsize + 4) + 4 * TILE * (
        3 * hidden + 6 * channels
    )
    if needed > usable_memory():
        return f"an MLP of {channels} and {hidden} channels needs {needed / 2**20:.0f} MiB of on-chip memory"
    return ""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _half_block(interpret: bool, x: Array, weights: Weights, factor: Array) -> Array:
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return _call(_forward_kernel, interpret, (x,), weights, factor, (shape,), scratch=1)[0]


def _forward(
    interpret: bool, x: Array, weights: Weights, factor: Array
) -> tuple[Array, tuple[Array, Weights, Array]]:
    return _half_block(interpret, x, weights, factor), (x, weights, factor)


def _backward(
    interpret: bool, saved: tuple[Array, Weights, Array], gradient: Array
) -> tuple[Array, Weights, Array]:
    x, weights, factor = saved
    results = (jax.ShapeDtypeStruct(x.shape, x.dtype), *_sums(weights))
    d_x, *sums = _call(_backward_kernel, interpret, (x, gradient), weights, factor, results, scratch=2)
    of_weights = (total.reshape(of.shape) for total, of in zip(sums, weights, strict=True))
    return d_x, Weights(*of_weights), jnp.zeros_like(factor)


_half_block.defvjp(_forward, _backward)


def _sums(weights: Weights) -> tuple[jax.ShapeDtypeStruct, ...]:
    return tuple(jax.ShapeDtypeStruct(_matrix(one).shape, jnp.float32) for one in weights)


def _matrix(value: Array) -> Array:
    return value.reshape(-1, value.shape[-1])


def _tile(height: int, width: int) -> tuple[int, int]:
    """Rows of the map that are handled at once, and tokens from one to the next."""
    stride = -(-width // SUBLANES) * SUBLANES
    rows = max(
        rows for rows in range(1, height + 1) if height % rows == 0 and (rows * stride <= TILE or rows == 1)
    )
    return rows, stride


def _call(
    kernel: Any,
    interpret: bool,
    maps: tuple[Array, ...],
    weights: Weights,
    factor: Array,
    results: tuple[jax.ShapeDtypeStruct, ...],
    *,
    scratch: int,
) -> tuple[Array, ...]:
    """Runs the kernel over tiles of rows; what is no map stays in VMEM from the first tile to the last."""
    batch, height, width, channels = maps[0].shape
    rows, stride = _tile(height, width)
    kernels = tuple(
        _matrix(one).astype(maps[0].dtype if "kernel" in name else jnp.float32)
        for name, one in weights._asdict().items()
    )

    hidden = weights.fc1_bias.shape[0]
    values = batch * height * width * hidden
    flops = 2 * channels * values * (2 if len(maps) == 1 else 5)

    def block(shape: tuple[int, ...]) -> pl.BlockSpec:
        if len(shape) == 4:
            return pl.BlockSpec((1, rows, *shape[2:]), lambda picture, tile: (picture, tile, 0, 0))
        return pl.BlockSpec(shape, lambda picture, tile: (0, 0))

    return pl.pallas_call(
        kernel,
        out_shape=results,
        grid=(batch, height // rows),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            *(block(array.shape) for array in (*maps, *kernels)),
        ],
        out_specs=tuple(block(result.shape) for result in results),
        scratch_shapes=[pltpu.VMEM((rows, stride, channels), jnp.float32)] * scratch,
        compiler_params=compiler_params(axes=2),
        cost_estimate=cost((factor, *maps, *kernels), results, flops=flops, exponentials=values),
        interpret=interpret,
        name="mlp" + kernel.__name__,
    )(factor, *maps, *kernels)


def _forward_kernel(
    factor: Any, x: Any, scale: Any, bias: Any, w1: Any, b1: Any, w2: Any, b2: Any, *rest: Any
) -> None:
    out, canvas = rest
    dtype, width = out.dtype, out.shape[2]
    tokens = _tokens(x, canvas)
    normed = norm(tokens, scale[:], bias[:])
    hidden = (times(normed.values.astype(dtype), w1[:]) + b1[:]).astype(dtype)
    branch = times(gelu(hidden.astype(jnp.float32)).astype(dtype), w2[:]) + b2[:]
    summed = tokens + branch.astype(dtype).astype(jnp.float32) * factor[pl.program_id(0)]
    out[0] = summed.reshape(canvas.shape)[:, :width].astype(dtype)


def _backward_kernel(
    factor: Any, x: Any, gradient: Any, scale: Any, bias: Any, w1: Any, b1: Any, w2: Any, b2: Any, *rest: Any
) -> None:
    d_x, d_scale, d_bias, d_w1, d_b1, d_w2, d_b2, canvas, gradients = rest
    del b2  # adds to the branch alone
    dtype, width = d_x.dtype, d_x.shape[2]

    @pl.when((pl.program_id(0) == 0) & (pl.program_id(1) == 0))
    def _begin() -> None:
        begin(d_scale, d_bias, d_w1, d_b1, d_w2, d_b2)

    of_sum = _tokens(gradient, gradients)
    of_branch = of_sum * factor[pl.program_id(0)]
    normed = norm(_tokens(x, canvas), scale[:], bias[:])
    inputs = normed.values.astype(dtype)
    hidden = (times(inputs, w1[:]) + b1[:]).astype(dtype).astype(jnp.float32)
    add_product(d_w2, gelu(hidden).astype(dtype), of_branch.astype(dtype))
    d_b2[:] += jnp.sum(of_branch, axis=0, keepdims=True)
    of_hidden = times_transposed(of_branch.astype(dtype), w2[:]) * gelu_slope(hidden)
    add_product(d_w1, inputs, of_hidden.astype(dtype))
    d_b1[:] += jnp.sum(of_hidden, axis=0, keepdims=True)
    of_normed = times_transposed(of_hidden.astype(dtype), w1[:])
    summed = of_sum + norm_backward(normed, scale[:], of_normed, d_scale, d_bias)
    d_x[0] = summed.reshape(canvas.shape)[:, :width].astype(dtype)


def _tokens(tile: Any, canvas: Any) -> Float[Array, "tokens channels"]:
    """Rows of a map as tokens; between two rows there may be zeros, which neither give nor get anything."""
    width = tile.shape[2]
    if width < canvas.shape[1]:
        canvas[:] = jnp.zeros_like(canvas)
    canvas[:, :width, :] = tile[0].astype(jnp.float32)
    return canvas[:].reshape(-1, canvas.shape[-1])
