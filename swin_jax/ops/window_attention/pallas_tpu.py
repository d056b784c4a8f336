"""Window attention as one TPU kernel: a map's queries, keys and values are read once, its result is written once.

The kernel holds one picture's map in VMEM, or where that is too large one row of windows (`tpu_streams`). Shift,
partition and mask are addresses within it; scores never leave the chip. The backward kernel computes them again from
the same map, so that the forward pass saves nothing else. The gradient of the bias is summed in VMEM over the pictures.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from swin_jax.ops import target, windows
from swin_jax.ops.window_attention import kernel_case
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
from swin_jax.ops.window_attention.tpu_streams import Passing, Stream, arrive, at_first, leave, passing

LANES = 128
FLOAT32_ALONE = ("TPU v2", "TPU v3")
"""Devices whose matrix units kernels can give float32 alone."""

LONGEST = 160
"""Products of windows and heads in a row of windows, which are unrolled: beyond it compiling takes minutes."""


def unsupported(
    qkv: Float[Array, "batch height width channels3"],
    bias: Float[Array, "heads tokens tokens"],
    *,
    window: int,
    shift: int,
    **fixed: Any,
) -> str:
    """Why the kernel cannot compute this, in a sentence; "" if it can. Arguments are those of `window_attention`."""
    if obstacle := kernel_case.unsupported(**fixed):
        return obstacle
    height, width = (windows.padded_size(side, window) for side in qkv.shape[1:3])
    geometry = Geometry(height, width, window, shift, bias.shape[0], 1.0, False)
    needed = _memory(geometry, qkv, geometry.window)
    if geometry.columns * geometry.heads > LONGEST:
        return f"a row of {geometry.columns} windows with {geometry.heads} heads is too long for it"
    if needed > usable_memory():
        return (
            f"a row of {window} x {width} x {qkv.shape[-1]} needs {needed / 2**20:.0f} MiB of on-chip memory"
        )
    if target.device_kind() in FLOAT32_ALONE and qkv.dtype != jnp.float32:
        return f"its products of {qkv.dtype} are none of a {target.device_kind()}"
    return ""


def _memory(geometry: Geometry, qkv: Array, height: int) -> int:
    """Bytes that the backward kernel takes if it holds `height` rows of the map: these twice, as the next are fetched
    meanwhile, and float32 scratch."""
    channels, itemsize = qkv.shape[-1], jnp.dtype(qkv.dtype).itemsize

    def map_of(rows: int, columns: int, channels: int, size: int) -> int:
        return rows * (-(-columns // 16) * 16) * (-(-channels // LANES) * LANES) * size

    of_picture = sum(
        map_of(height, geometry.width, part, itemsize) for part in (channels, channels, channels // 3)
    )
    of_row = sum(
        map_of(geometry.window, geometry.canvas, part, 4) for part in (channels, channels, channels // 3)
    )
    scores = geometry.tokens * (-(-geometry.tokens // LANES) * LANES) * 4
    return 2 * of_picture + of_row + scores * (2 * geometry.heads + 8)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(geometry: Geometry, qkv: Array, bias: Array) -> Array:
    channels = qkv.shape[-1] // 3
    return _call(
        _forward_kernel,
        geometry,
        (qkv,),
        bias,
        results=(jax.ShapeDtypeStruct((*qkv.shape[:3], channels), qkv.dtype),),
        scratch=(3 * channels, channels),
    )[0]


def _attention_forward(geometry: Geometry, qkv: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
    return _attention(geometry, qkv, bias), (qkv, bias)


def _attention_backward(
    geometry: Geometry, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    qkv, bias = saved
    channels = qkv.shape[-1] // 3
    d_qkv, d_bias = _call(
        _backward_kernel,
        geometry,
        (qkv, gradient),
        bias,
        results=(
            jax.ShapeDtypeStruct(qkv.shape, qkv.dtype),
            jax.ShapeDtypeStruct(bias.shape, jnp.float32),
        ),
        scratch=(3 * channels, channels, 3 * channels),
    )
    return d_qkv, d_bias


_attention.defvjp(_attention_forward, _attention_backward)


def _attend(geometry: Geometry, qkv: Array, bias: Array) -> Array:
    return _attention(geometry, qkv, spread_bias(bias, geometry))


window_attention = functools.partial(kernel_case.on_whole_windows, Geometry, _attend)


def _call(
    kernel: Any,
    geometry: Geometry,
    maps: tuple[Array, ...],
    bias: Array,
    *,
    results: tuple[jax.ShapeDtypeStruct, ...],
    scratch: tuple[int, ...],
) -> tuple[Array, ...]:
    """Runs the kernel for one picture after the other. `maps` and results of four axes are cut into pictures, or into
    rows of windows where a picture is too large; all else stays in VMEM from the first to the last. `scratch` are the
    channels of float32 rows of windows."""
    qkv, masks = maps[0], jnp.asarray(shift_masks(geometry))
    streamed = _memory(geometry, qkv, geometry.height) > usable_memory()
    products = 2 if len(maps) == 1 else 5
    of_scores = scores(geometry, qkv.shape[0])
    size = qkv.shape[-1] // (3 * geometry.heads)

    def block(shape: tuple[int, ...]) -> pl.BlockSpec:
        if len(shape) == 4 and streamed:
            return pl.BlockSpec(memory_space=pl.ANY)
        if len(shape) == 4:
            return pl.BlockSpec((1, *shape[1:]), lambda picture, _: (picture, 0, 0, 0))
        return pl.BlockSpec(shape, lambda *_: (0,) * len(shape))

    canvases = [pltpu.VMEM((geometry.window, geometry.canvas, channels), jnp.float32) for channels in scratch]
    on_the_way = [passing(geometry, channels, qkv.dtype) for channels in scratch] if streamed else []
    grid = (qkv.shape[0], geometry.rows if streamed else 1)
    return pl.pallas_call(
        functools.partial(kernel, geometry),
        out_shape=results,
        grid=grid,
        in_specs=[block(array.shape) for array in (*maps, bias, masks)],
        out_specs=tuple(block(result.shape) for result in results),
        scratch_shapes=[*canvases, *on_the_way],
        compiler_params=compiler_params(axes=len(grid)),
        cost_estimate=cost(
            (*maps, bias, masks), results, flops=2 * products * size * of_scores, exponentials=of_scores
        ),
        interpret=geometry.interpret,
        name=kernel.__name__.strip("_"),
    )(*maps, bias, masks)


def _forward_kernel(
    geometry: Geometry, qkv: Any, bias: Any, masks: Any, out: Any, row_qkv: Any, row_out: Any, *ways: Passing
) -> None:
    def compute(row: Any) -> None:
        wrap_forth(geometry, row_qkv)
        attend(geometry, row, row_qkv, row_out, bias, masks, out.dtype)
        wrap_back(geometry, row_out)

    _each_row(geometry, compute, ((qkv, row_qkv),), (out, row_out), ways)


def _backward_kernel(
    geometry: Geometry,
    qkv: Any,
    gradient: Any,
    bias: Any,
    masks: Any,
    d_qkv: Any,
    d_bias: Any,
    row_qkv: Any,
    row_gradient: Any,
    row_d_qkv: Any,
    *ways: Passing,
) -> None:
    @pl.when(at_first())
    def _begin() -> None:
        d_bias[:] = jnp.zeros_like(d_bias)

    def compute(row: Any) -> None:
        wrap_forth(geometry, row_qkv)
        wrap_forth(geometry, row_gradient)
        attend_backward(geometry, row, row_qkv, row_gradient, row_d_qkv, bias, masks, d_bias, gradient.dtype)
        wrap_back(geometry, row_d_qkv)

    _each_row(geometry, compute, ((qkv, row_qkv), (gradient, row_gradient)), (d_qkv, row_d_qkv), ways)


def _each_row(
    geometry: Geometry,
    compute: Callable[[Any], None],
    inputs: tuple[tuple[Any, Any], ...],
    output: tuple[Any, Any],
    ways: tuple[Passing, ...],
) -> None:
    """Computes the rows of windows of this step of the grid, between their maps and canvases."""

    @pl.when(at_first())
    def _begin() -> None:
        for _, canvas in inputs:
            canvas[:] = jnp.zeros_like(canvas)

    def window_row(row: Int[Array, ""], _: None) -> None:
        for picture, canvas in inputs:
            fetch(geometry, row, picture, canvas)
        compute(row)
        store(geometry, row, output[1], output[0])

    if not ways:
        jax.lax.fori_loop(0, geometry.rows, window_row, None)
        return
    *arriving, leaving = (
        Stream(picture, way, canvas) for (picture, canvas), way in zip((*inputs, output), ways, strict=True)
    )
    arrive(geometry, arriving)
    compute(pl.program_id(1))
    leave(geometry, (leaving,))
