"""Rows of windows in the on-chip memory of a TPU: what kernels of window attention share.

A row of windows lies in a canvas, float32 `[window, canvas, channels]`. A window of `w x w` tokens is handled as `w`
rows of `stride` tokens, the next multiple of 8 (float32 tiles have 8 rows), so that joining its rows moves nothing.
The tokens in between belong to the neighbour: as keys their logit is `ABSENT`, as queries they are thrown away.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from swin_jax.ops import target, windows
from swin_jax.ops.window_attention.kernel_case import ABSENT, MapGeometry

SUBLANES = 8


class Geometry(MapGeometry):
    """A map of whole windows, and how its rows of windows lie in a canvas."""

    @property
    def stride(self) -> int:
        """Tokens from one row of a window to the next."""
        return -(-self.window // SUBLANES) * SUBLANES

    @property
    def tokens(self) -> int:
        return self.window * self.stride

    @property
    def canvas(self) -> int:
        """Columns of a row of windows in VMEM: the map's, those that wrap around, and what the last window overlaps."""
        return -(-(self.width + self.shift + self.stride) // SUBLANES) * SUBLANES


def spread_bias(bias: Float[Array, "heads n n"], geometry: Geometry) -> Float[Array, "heads tokens tokens"]:
    """The bias over the tokens of the kernel's windows; absent keys get `ABSENT`."""
    window, extra = geometry.window, geometry.stride - geometry.window
    wide = bias.reshape(-1, window, window, window, window)
    wide = jnp.pad(wide, ((0, 0), (0, 0), (0, extra), (0, 0), (0, 0)))
    wide = jnp.pad(wide, ((0, 0),) * 4 + ((0, extra),), constant_values=ABSENT)
    return wide.reshape(-1, geometry.tokens, geometry.tokens)


def shift_masks(geometry: Geometry) -> Float[np.ndarray, "kinds tokens tokens"]:
    """Added to the logits of a window that is (2) in the last row of windows and (1) in the last column of them."""
    rows, columns = np.divmod(np.arange(geometry.tokens), geometry.stride)
    edge = geometry.window - geometry.shift

    def mask(kind: int) -> Float[np.ndarray, "tokens tokens"]:
        side = 2 * (rows >= edge) * (kind // 2) + (columns >= edge) * (kind % 2)
        return np.where(side[:, None] == side[None, :], 0.0, windows.MASKED).astype(np.float32)

    return np.stack([mask(kind) for kind in range(4 if geometry.shift else 1)])


def usable_memory() -> int:
    """Bytes of on-chip memory that the arrays of a kernel may take; the rest is the compiler's."""
    return target.on_chip_memory() * 3 // 4


def compiler_params(axes: int) -> pltpu.CompilerParams:
    """Of a kernel whose grid of so many axes runs in order."""
    limit = target.on_chip_memory() * 13 // 16
    return pltpu.CompilerParams(dimension_semantics=("arbitrary",) * axes, vmem_limit_bytes=limit)


def cost(arrays: Sequence[Any], results: Sequence[Any], *, flops: int, exponentials: int) -> pl.CostEstimate:
    """What the compiler is told of a kernel that reads and writes everything once."""
    moved = sum(math.prod(array.shape) * jnp.dtype(array.dtype).itemsize for array in (*arrays, *results))
    return pl.CostEstimate(flops=flops, transcendentals=exponentials, bytes_accessed=moved)


def scores(geometry: Geometry, pictures: int) -> int:
    """Logits of all windows and heads, with those that fill up."""
    return pictures * geometry.rows * geometry.columns * geometry.heads * geometry.tokens**2


def fetch(geometry: Geometry, row: Any, picture: Any, canvas: Any) -> None:
    """Brings a row of (shifted) windows of a map `[1, height, width, channels]` into its canvas."""
    for inner in range(geometry.window):
        canvas[inner, : geometry.width, :] = picture[0, _row_of_map(geometry, row, inner)].astype(jnp.float32)


def store(geometry: Geometry, row: Any, canvas: Any, picture: Any) -> None:
    """The inverse of `fetch`."""
    for inner in range(geometry.window):
        values = canvas[inner, : geometry.width, :]
        picture[0, _row_of_map(geometry, row, inner)] = values.astype(picture.dtype)


def wrap_forth(geometry: Geometry, canvas: Any) -> None:
    """Repeats the first columns behind the last, where shifted windows look for them."""
    if geometry.shift:
        canvas[:, geometry.width : geometry.width + geometry.shift, :] = canvas[:, : geometry.shift, :]


def wrap_back(geometry: Geometry, canvas: Any) -> None:
    """Brings what windows left behind the last column back to the first ones."""
    if geometry.shift:
        canvas[:, : geometry.shift, :] = canvas[:, geometry.width : geometry.width + geometry.shift, :]


def attend(
    geometry: Geometry, row: Any, row_qkv: Any, row_out: Any, bias: Any, masks: Any, dtype: Any
) -> None:
    """Writes the attended values of a row of windows; products are computed in `dtype`."""
    channels = row_out.shape[-1]
    for column in range(geometry.columns):
        window = window_of(geometry, row_qkv, column)
        parts = []
        for head in range(geometry.heads):
            q, k, v = _of_head(geometry, window, head, channels, dtype)
            weights = _weights(geometry, q, k, bias[head], masks, row, column)
            parts.append(product(weights.astype(dtype), v, ((1,), (0,))))
        _keep(geometry, row_out, column, jnp.concatenate(parts, axis=-1))


def attend_backward(
    geometry: Geometry,
    row: Any,
    row_qkv: Any,
    row_gradient: Any,
    row_d_qkv: Any,
    bias: Any,
    masks: Any,
    d_bias: Any,
    dtype: Any,
) -> None:
    """Writes the gradient of a row's queries, keys and values and adds that of the bias to `d_bias`."""
    channels = row_gradient.shape[-1]
    size = channels // geometry.heads
    place = jax.lax.broadcasted_iota(jnp.int32, (geometry.tokens, 1), 0)
    present = place % geometry.stride < geometry.window
    for column in range(geometry.columns):
        window = window_of(geometry, row_qkv, column)
        incoming = jnp.where(present, window_of(geometry, row_gradient, column), 0.0)
        of_q, of_k, of_v = [], [], []
        for head in range(geometry.heads):
            q, k, v = _of_head(geometry, window, head, channels, dtype)
            weights = _weights(geometry, q, k, bias[head], masks, row, column)
            of_out = incoming[:, head * size : (head + 1) * size].astype(dtype)
            of_weights = product(of_out, v, ((1,), (1,)))
            total = jnp.sum(of_weights * weights, axis=-1, keepdims=True)
            of_logits = weights * (of_weights - total)
            d_bias[head] += of_logits
            rounded = of_logits.astype(dtype)
            of_q.append(product(rounded, k, ((1,), (0,))) * geometry.scale)
            of_k.append(product(rounded, q, ((0,), (0,))))
            of_v.append(product(weights.astype(dtype), of_out, ((0,), (0,))))
        _keep(geometry, row_d_qkv, column, jnp.concatenate(of_q + of_k + of_v, axis=-1))


def _row_of_map(geometry: Geometry, row: Any, inner: int) -> Any:
    moved = row * geometry.window + (geometry.shift + inner)
    return jnp.where(moved < geometry.height, moved, moved - geometry.height)


def window_of(geometry: Geometry, canvas: Any, column: int) -> Float[Array, "tokens channels"]:
    start = column * geometry.window + geometry.shift
    tokens = canvas[:, start : start + geometry.stride, :]
    return tokens.reshape(geometry.tokens, tokens.shape[-1])


def _keep(geometry: Geometry, canvas: Any, column: int, tokens: Float[Array, "tokens channels"]) -> None:
    start = column * geometry.window + geometry.shift
    rows = tokens.reshape(geometry.window, geometry.stride, tokens.shape[-1])
    canvas[:, start : start + geometry.window, :] = rows[:, : geometry.window, :]


def _of_head(
    geometry: Geometry, window: Array, head: int, channels: int, dtype: Any
) -> tuple[Array, Array, Array]:
    """Scaled queries, keys and values of one head, in the type that products are computed in."""
    size = channels // geometry.heads
    starts = (part * channels + head * size for part in range(3))
    q, k, v = (window[:, start : start + size] for start in starts)
    return (q * geometry.scale).astype(dtype), k.astype(dtype), v.astype(dtype)


def _weights(
    geometry: Geometry, q: Array, k: Array, bias: Array, masks: Any, row: Any, column: int
) -> Float[Array, "tokens tokens"]:
    logits = product(q, k, ((1,), (1,))) + bias
    if geometry.shift:
        last_row = (row == geometry.rows - 1).astype(jnp.int32)
        logits = logits + masks[2 * last_row + int(column == geometry.columns - 1)]
    powers = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    return powers / jnp.sum(powers, axis=-1, keepdims=True)


def product(a: Array, b: Array, axes: tuple[tuple[int], tuple[int]]) -> Array:
    return jax.lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=jnp.float32)
