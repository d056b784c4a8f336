"""The first half of a block, `x + factor * proj(window attention(qkv(norm(x))))`, as one TPU kernel."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, DTypeLike, Float, Int

from swin_jax.ops import target
from swin_jax.ops.half_blocks.parts import (
    add_product,
    begin,
    norm,
    norm_backward,
    times,
    times_transposed,
)
from swin_jax.ops.window_attention.pallas_tpu import LONGEST
from swin_jax.ops.window_attention.tpu_rows import (
    Geometry,
    attend,
    attend_backward,
    compiler_params,
    cost,
    fetch,
    scores,
    shift_masks,
    spread_bias,
    store,
    usable_memory,
    wrap_back,
    wrap_forth,
)


class Weights(NamedTuple):
    """The parameters, float32; `position` is the gathered bias `[heads, tokens, tokens]`."""

    norm_scale: Float[Array, " channels"]
    norm_bias: Float[Array, " channels"]
    qkv_kernel: Float[Array, "channels channels3"]
    qkv_bias: Float[Array, " channels3"]
    proj_kernel: Float[Array, "channels channels"]
    proj_bias: Float[Array, " channels"]
    position: Float[Array, "heads tokens tokens"]


def attention_half_block(
    x: Float[Array, "batch height width channels"],
    weights: Weights,
    factor: Float[Array, " batch"],
    *,
    window: int,
    shift: int,
    scale: float,
    interpret: bool = False,
) -> Float[Array, "batch height width channels"]:
    """Norm, window attention and residual sum (Swin, section 3.2, eq. 3-4), of a map of whole windows.

    `window`, `shift` and `scale` are those of `ops.window_attention`, the other arguments those of `mlp_half_block`.
    """
    height, width = x.shape[1:3]
    geometry = Geometry(height, width, window, shift, weights.position.shape[0], float(scale), interpret)
    fields = tuple(weights._replace(position=spread_bias(weights.position, geometry)))

    def run(x: Array, factor: Array, *fields: Array) -> Array:
        return _half_block(geometry, x, Weights(*fields), jax.lax.stop_gradient(factor))

    return target.on_each_device(run, (x, factor, *fields), split=(True, True) + (False,) * len(fields))


def unsupported(height: int, width: int, channels: int, *, window: int, heads: int, dtype: DTypeLike) -> str:
    """Why the kernel cannot take these sizes, in a sentence; "" if it can."""
    if height % window or width % window:
        return f"a map of {height} x {width} has no whole windows of {window}"
    geometry = Geometry(height, width, window, 0, heads, 1.0, False)
    if geometry.columns * heads > LONGEST:
        return f"a row of {geometry.columns} windows with {heads} heads is too long for it"
    size = jnp.dtype(dtype).itemsize
    lanes = -(-channels // 128) * 128
    needed = 6 * height * (-(-width // 16) * 16) * lanes * size  # three maps, each twice
    needed += 2 * 4 * channels * channels * (size + 4)
    needed += 4 * window * geometry.canvas * 10 * lanes
    needed += 4 * geometry.tokens * (-(-geometry.tokens // 128) * 128) * (4 * heads + 12)
    if needed > usable_memory():
        return f"a map of {height} x {width} x {channels} needs {needed / 2**20:.0f} MiB of on-chip memory"
    return ""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _half_block(geometry: Geometry, x: Array, weights: Weights, factor: Array) -> Array:
    channels = x.shape[-1]
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    scratch = (channels, 3 * channels, channels)
    return _call(_forward_kernel, geometry, (x,), weights, factor, (shape,), scratch)[0]


def _forward(
    geometry: Geometry, x: Array, weights: Weights, factor: Array
) -> tuple[Array, tuple[Array, Weights, Array]]:
    return _half_block(geometry, x, weights, factor), (x, weights, factor)


def _backward(
    geometry: Geometry, saved: tuple[Array, Weights, Array], gradient: Array
) -> tuple[Array, Weights, Array]:
    x, weights, factor = saved
    channels = x.shape[-1]
    sums = tuple(jax.ShapeDtypeStruct(_matrix(one).shape, jnp.float32) for one in weights)
    results = (jax.ShapeDtypeStruct(x.shape, x.dtype), *sums)
    scratch = (channels, 3 * channels, channels, channels, 3 * channels)
    d_x, *found = _call(_backward_kernel, geometry, (x, gradient), weights, factor, results, scratch)
    of_weights = (total.reshape(of.shape) for total, of in zip(found, weights, strict=True))
    return d_x, Weights(*of_weights), jnp.zeros_like(factor)


_half_block.defvjp(_forward, _backward)


def _matrix(value: Array) -> Array:
    return value if value.ndim == 3 else value.reshape(-1, value.shape[-1])


def _call(
    kernel: Any,
    geometry: Geometry,
    maps: tuple[Array, ...],
    weights: Weights,
    factor: Array,
    results: tuple[jax.ShapeDtypeStruct, ...],
    scratch: tuple[int, ...],
) -> tuple[Array, ...]:
    """Runs the kernel for one picture after the other; what is no map stays in VMEM from the first to the last.
    `scratch` are the channels of canvases."""
    constants = tuple(
        _matrix(one).astype(maps[0].dtype if "kernel" in name else jnp.float32)
        for name, one in weights._asdict().items()
    )
    masks = jnp.asarray(shift_masks(geometry))
    batch, height, width, channels = maps[0].shape
    # Backward: everything once more, and two products for each.
    backward = len(maps) > 1
    of_scores, size = scores(geometry, batch), channels // geometry.heads
    flops = 2 * (7 if backward else 2) * size * of_scores
    flops += 2 * (3 if backward else 1) * 4 * batch * height * width * channels**2

    def block(shape: tuple[int, ...]) -> pl.BlockSpec:
        if len(shape) == 4:
            return pl.BlockSpec((1, *shape[1:]), lambda picture: (picture, 0, 0, 0))
        return pl.BlockSpec(shape, lambda picture: (0,) * len(shape))

    return pl.pallas_call(
        functools.partial(kernel, geometry),
        out_shape=results,
        grid=(maps[0].shape[0],),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            *(block(array.shape) for array in (*maps, *constants)),
            pl.BlockSpec(masks.shape, lambda picture: (0, 0, 0)),
        ],
        out_specs=tuple(block(result.shape) for result in results),
        scratch_shapes=[
            pltpu.VMEM((geometry.window, geometry.canvas, channels), jnp.float32) for channels in scratch
        ],
        compiler_params=compiler_params(axes=1),
        cost_estimate=cost(
            (factor, *maps, *constants, masks),
            results,
            flops=flops,
            exponentials=of_scores * (2 if backward else 1),
        ),
        interpret=geometry.interpret,
        name="attention" + kernel.__name__,
    )(factor, *maps, *constants, masks)


def _tokens(canvas: Any) -> Float[Array, "tokens channels"]:
    return canvas[:].reshape(-1, canvas.shape[-1])


def _fill(canvas: Any, tokens: Array) -> None:
    canvas[:] = tokens.reshape(canvas.shape)


def _forward_kernel(
    geometry: Geometry,
    factor: Any,
    x: Any,
    scale: Any,
    bias: Any,
    w_qkv: Any,
    b_qkv: Any,
    w_proj: Any,
    b_proj: Any,
    position: Any,
    masks: Any,
    out: Any,
    row_x: Any,
    row_qkv: Any,
    row_out: Any,
) -> None:
    dtype = out.dtype
    begin(row_x, row_out)
    of_picture = factor[pl.program_id(0)]

    def window_row(row: Int[Array, ""], _: None) -> None:
        fetch(geometry, row, x, row_x)
        normed = norm(_tokens(row_x), scale[:], bias[:])
        _fill(row_qkv, _projected(normed.values, w_qkv, b_qkv, dtype))
        wrap_forth(geometry, row_qkv)
        attend(geometry, row, row_qkv, row_out, position, masks, dtype)
        wrap_back(geometry, row_out)
        branch = _projected(_tokens(row_out), w_proj, b_proj, dtype)
        _fill(row_out, _tokens(row_x) + branch * of_picture)
        store(geometry, row, row_out, out)

    jax.lax.fori_loop(0, geometry.rows, window_row, None)


def _projected(x: Array, kernel: Any, bias: Any, dtype: Any) -> Array:
    return (times(x.astype(dtype), kernel[:]) + bias[:]).astype(dtype).astype(jnp.float32)


def _backward_kernel(
    geometry: Geometry,
    factor: Any,
    x: Any,
    gradient: Any,
    scale: Any,
    bias: Any,
    w_qkv: Any,
    b_qkv: Any,
    w_proj: Any,
    b_proj: Any,
    position: Any,
    masks: Any,
    d_x: Any,
    d_scale: Any,
    d_bias: Any,
    d_w_qkv: Any,
    d_b_qkv: Any,
    d_w_proj: Any,
    d_b_proj: Any,
    d_position: Any,
    row_x: Any,
    row_qkv: Any,
    row_out: Any,
    row_gradient: Any,
    row_d_qkv: Any,
) -> None:
    del b_proj  # adds to the branch alone
    dtype, width = d_x.dtype, geometry.width
    begin(row_x, row_out, row_gradient, row_d_qkv)
    of_picture = factor[pl.program_id(0)]

    @pl.when(pl.program_id(0) == 0)
    def _begin() -> None:
        begin(d_scale, d_bias, d_w_qkv, d_b_qkv, d_w_proj, d_b_proj, d_position)

    def window_row(row: Int[Array, ""], _: None) -> None:
        fetch(geometry, row, x, row_x)
        fetch(geometry, row, gradient, row_gradient)
        normed = norm(_tokens(row_x), scale[:], bias[:])
        inputs = normed.values.astype(dtype)
        _fill(row_qkv, _projected(normed.values, w_qkv, b_qkv, dtype))
        wrap_forth(geometry, row_qkv)
        attend(geometry, row, row_qkv, row_out, position, masks, dtype)
        wrap_back(geometry, row_out)
        # Behind the map's last column gradients are zeros, and so is what they are multiplied with.
        of_branch = (_tokens(row_gradient) * of_picture).astype(dtype)
        add_product(d_w_proj, _tokens(row_out).astype(dtype), of_branch)
        d_b_proj[:] += jnp.sum(of_branch.astype(jnp.float32), axis=0, keepdims=True)
        _fill(row_out, times_transposed(of_branch, w_proj[:]).astype(dtype).astype(jnp.float32))
        wrap_forth(geometry, row_out)
        attend_backward(geometry, row, row_qkv, row_out, row_d_qkv, position, masks, d_position, dtype)
        wrap_back(geometry, row_d_qkv)
        row_d_qkv[:, width:, :] = jnp.zeros_like(row_d_qkv[:, width:, :])
        of_qkv = _tokens(row_d_qkv)
        add_product(d_w_qkv, inputs, of_qkv.astype(dtype))
        d_b_qkv[:] += jnp.sum(of_qkv, axis=0, keepdims=True)
        of_normed = times_transposed(of_qkv.astype(dtype), w_qkv[:])
        of_x = norm_backward(normed, scale[:], of_normed, d_scale, d_bias)
        _fill(row_out, _tokens(row_gradient) + of_x)
        store(geometry, row, row_out, d_x)

    jax.lax.fori_loop(0, geometry.rows, window_row, None)
