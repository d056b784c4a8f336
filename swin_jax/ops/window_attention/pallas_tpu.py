"""Window attention as one TPU kernel: a map's queries, keys and values are read once, its result is written once.

The kernel holds one picture's map in VMEM. Shift, partition and mask are addresses within it; scores never leave the
chip. The backward kernel computes them again from the same map, so that the forward pass saves nothing else. The
gradient of the bias is summed in VMEM over the pictures.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from swin_jax.ops import windows
from swin_jax.ops.window_attention.tpu_rows import (
    VMEM,
    Geometry,
    attend,
    attend_backward,
    cost,
    fetch,
    scores,
    shift_masks,
    spread_bias,
    store,
    wrap_back,
    wrap_forth,
)

LANES = 128
LONGEST = 160
"""Products of windows and heads in a row of windows, which are unrolled: beyond it compiling takes minutes."""


def window_attention(
    qkv: Float[Array, "batch height width channels3"],
    bias: Float[Array, "heads tokens tokens"],
    *,
    window: int,
    shift: int,
    pad_qkv: Float[Array, " channels3"],
    scale: float,
    interpret: bool = False,
    **_: Any,
) -> Float[Array, "batch height width channels"]:
    """See `swin_jax.ops.window_attention.window_attention`; arguments are already checked and not `unsupported`.

    With `interpret` the kernel is run by jax operations, on any platform, which is slow.
    """
    height, width = qkv.shape[1:3]
    filled = windows.pad_to_windows(qkv, window, pad_qkv)
    rows, columns = filled.shape[1:3]
    geometry = Geometry(rows, columns, window, shift, bias.shape[0], float(scale), interpret)
    out: Array = _attention(geometry, filled, spread_bias(bias.astype(jnp.float32), geometry))
    return out[:, :height, :width]


def unsupported(
    qkv: Float[Array, "batch height width channels3"],
    bias: Float[Array, "heads tokens tokens"],
    *,
    window: int,
    shift: int,
    scale: float | Float[Array, " heads"],
    normalize_qk: bool,
    dropout_rate: float,
    dropout_key: Any,
    **_: Any,
) -> str:
    """Why the kernel cannot compute this, in a sentence; "" if it can."""
    height, width = (windows.padded_size(side, window) for side in qkv.shape[1:3])
    geometry = Geometry(height, width, window, shift, bias.shape[0], 1.0, False)
    needed = _vmem(geometry, qkv.shape[-1], jnp.dtype(qkv.dtype).itemsize)
    if normalize_qk or isinstance(scale, Array):
        return "it has no cosine attention"
    if dropout_key is not None and dropout_rate > 0.0:
        return "it has no dropout of attention weights"
    if geometry.columns * geometry.heads > LONGEST:
        return f"a row of {geometry.columns} windows with {geometry.heads} heads is too long for it"
    if needed > VMEM:
        return (
            f"a map of {height} x {width} x {qkv.shape[-1]} needs {needed / 2**20:.0f} MiB of on-chip memory"
        )
    return ""


def _vmem(geometry: Geometry, channels: int, itemsize: int) -> int:
    """Bytes of the backward kernel: blocks twice, as the next is fetched meanwhile, and float32 scratch."""

    def map_of(rows: int, columns: int, channels: int, size: int) -> int:
        return rows * (-(-columns // 16) * 16) * (-(-channels // LANES) * LANES) * size

    of_picture = sum(
        map_of(geometry.height, geometry.width, part, itemsize)
        for part in (channels, channels, channels // 3)
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


def _call(
    kernel: Any,
    geometry: Geometry,
    maps: tuple[Array, ...],
    bias: Array,
    *,
    results: tuple[jax.ShapeDtypeStruct, ...],
    scratch: tuple[int, ...],
) -> tuple[Array, ...]:
    """Runs the kernel for one picture after the other. `maps` and results of four axes are cut into pictures; all else
    stays in VMEM from the first to the last. `scratch` are the channels of float32 rows of windows."""
    masks = jnp.asarray(shift_masks(geometry))
    products = 2 if len(maps) == 1 else 5
    of_scores = scores(geometry, maps[0].shape[0])
    size = maps[0].shape[-1] // (3 * geometry.heads)

    def block(shape: tuple[int, ...]) -> pl.BlockSpec:
        if len(shape) == 4:
            return pl.BlockSpec((1, *shape[1:]), lambda picture: (picture, 0, 0, 0))
        return pl.BlockSpec(shape, lambda picture: (0,) * len(shape))

    return pl.pallas_call(
        functools.partial(kernel, geometry),
        out_shape=results,
        grid=(maps[0].shape[0],),
        in_specs=[block(array.shape) for array in (*maps, bias, masks)],
        out_specs=tuple(block(result.shape) for result in results),
        scratch_shapes=[
            pltpu.VMEM((geometry.window, geometry.canvas, channels), jnp.float32) for channels in scratch
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",), vmem_limit_bytes=VMEM + 8 * 2**20
        ),
        cost_estimate=cost(
            (*maps, bias, masks), results, flops=2 * products * size * of_scores, exponentials=of_scores
        ),
        interpret=geometry.interpret,
        name=kernel.__name__.strip("_"),
    )(*maps, bias, masks)


def _forward_kernel(
    geometry: Geometry, qkv: Any, bias: Any, masks: Any, out: Any, row_qkv: Any, row_out: Any
) -> None:
    row_qkv[:] = jnp.zeros_like(row_qkv)

    def window_row(row: Int[Array, ""], _: None) -> None:
        fetch(geometry, row, qkv, row_qkv)
        wrap_forth(geometry, row_qkv)
        attend(geometry, row, row_qkv, row_out, bias, masks, out.dtype)
        wrap_back(geometry, row_out)
        store(geometry, row, row_out, out)

    jax.lax.fori_loop(0, geometry.rows, window_row, None)


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
) -> None:
    row_qkv[:] = jnp.zeros_like(row_qkv)
    row_gradient[:] = jnp.zeros_like(row_gradient)

    @pl.when(pl.program_id(0) == 0)
    def _begin() -> None:
        d_bias[:] = jnp.zeros_like(d_bias)

    def window_row(row: Int[Array, ""], _: None) -> None:
        for picture, canvas in ((qkv, row_qkv), (gradient, row_gradient)):
            fetch(geometry, row, picture, canvas)
            wrap_forth(geometry, canvas)
        attend_backward(geometry, row, row_qkv, row_gradient, row_d_qkv, bias, masks, d_bias, gradient.dtype)
        wrap_back(geometry, row_d_qkv)
        store(geometry, row, row_d_qkv, d_qkv)

    jax.lax.fori_loop(0, geometry.rows, window_row, None)
