"""RoIAlign (He et al., 2017): a P x P map of features of every box, read from its level of a pyramid.

Feature cell i at stride s covers pixels `[i s, (i + 1) s)`; its value stands at `(i + 0.5) s`. A box is divided into
P x P bins; a bin's value is the mean over `n x n` points in it, `n` the sampling ratio, or with `ADAPTIVE` sampling
`ceil(bin in cells)` for each axis and box, as all published two-stage detectors do. A point is interpolated linearly
between the four cells around it; up to one cell outside the map it reads the border, further out it counts as 0.

Two forms give the same numbers. "gather" reads cells point by point: its backward pass scatters, which is slow on TPU
and adds in any order on GPU. "separable" multiplies with one matrix per box and axis: matrix products only, forward
and backward, at the price of products with the zeros of whole maps. Boxes get no gradient: none of the detectors
propagates one through the coordinates.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from swin_jax.ops import boxes as box_ops

ADAPTIVE = 0
MOST_POINTS = 1024  # per bin and axis: a bin of more cells than that is no part of a picture
FINEST = 56.0  # pixels: boxes of a smaller side than twice that read the first level


class Axis(NamedTuple):
    """The points of boxes along one axis, in cells of the map that each box reads. Leading axes are those of boxes."""

    start: Float[Array, "*boxes"]  # of the first bin, minus 1/2: cell i is at i
    bin: Float[Array, "*boxes"]  # extent of one bin
    points: Int32[Array, "*boxes"]  # per bin
    cells: Int32[Array, "*boxes"]  # of the map


def level_of(
    boxes: Float[Array, "*batch 4"], levels: int, *, finest: float = FINEST
) -> Int32[Array, "*batch"]:
    """The level that each box reads: `floor(log2(sqrt(area) / finest + 1e-6))`, within 0 .. levels - 1.

    Lin et al. (2017), eq. 1, with 224 pixels on the third level. Written as comparisons: exact at the powers of two.
    """
    size = jnp.sqrt(jnp.maximum(box_ops.area(boxes), 0.0)) / finest + 1e-6
    level = jnp.zeros(boxes.shape[:-1], jnp.int32)
    for finer in range(1, levels):
        level += (size >= 2.0**finer).astype(jnp.int32)
    return level


def roi_align(
    pyramid: Sequence[Float[Array, "batch _ _ channels"]],
    boxes: Float[Array, "batch n 4"],
    *,
    strides: Sequence[int],
    size: int,
    sampling: int = ADAPTIVE,
    method: str = "gather",
    levels: Int32[Array, "batch n"] | None = None,
    chunk: int = 64,
) -> Float[Array, "batch n size size channels"]:
    """Features of boxes, one level of the pyramid each.

    Args:
      pyramid: maps of one or more levels.
      boxes: in pixels. Clip them to the picture where sampling is adaptive: every cell of extent costs points.
      strides: pixels per cell of each level.
      size: bins a side; 7 for box heads, 14 for mask heads.
      sampling: points per bin and axis, or `ADAPTIVE`.
      method: "gather" or "separable", see above.
      levels: which level each box reads; by default `level_of`.
      chunk: boxes of a picture that the separable form treats at once; the memory of a few [chunk, size, W, channels].

    Returns:
      In the type of the pyramid; coordinates, weights and sums are f32.

    Raises:
      ValueError: for another method, a negative sampling ratio, or if levels and strides differ in number.
    """
    if method not in ("gather", "separable"):
        raise ValueError(f"RoIAlign has the methods gather and separable, got {method!r}")
    if sampling < 0:
        raise ValueError(f"the sampling ratio is 0 (adaptive) or a number of points, got {sampling}")
    if len(pyramid) != len(strides):
        raise ValueError(f"{len(pyramid)} maps need as many strides, got {tuple(strides)}")
    boxes = jax.lax.stop_gradient(boxes)
    levels = level_of(boxes, len(pyramid)) if levels is None else levels
    y, x = _axes(pyramid, boxes, levels, strides, size, sampling)
    most = _most_points(y.points, x.points) if sampling == ADAPTIVE else (sampling, sampling)
    if method == "gather":
        flat = jnp.concatenate(
            [level.reshape(level.shape[0], -1, level.shape[3]) for level in pyramid], axis=1
        )
        offset = _offsets(pyramid)[levels]
        pool = functools.partial(_gathered, size)
        return jax.vmap(pool, in_axes=(0, 0, 0, 0, None))(flat, y, x, offset, most)
    pool = functools.partial(_separable, size=size, most=most, chunk=chunk)
    return jax.vmap(pool)(tuple(pyramid), y, x, levels)


def axis_weights(
    axis: Axis, bins: int, cells: int, most: int | Int32[Array, ""], *, replicate: bool
) -> Float[Array, "*boxes bins cells"]:
    """How much each of a map's cells along one axis counts in each bin: the sum of the hats of its points, over their
    number.

    With `replicate` a point up to one cell beyond the outermost ones reads those, and further out 0 (RoIAlign);
    without, the map is surrounded by zeros.
    """
    place = jnp.arange(cells, dtype=jnp.int32)

    def add(point: Array, weights: Array) -> Array:
        for cell, weight in _taps(axis, bins, point, replicate):
            weights += jnp.where(cell[..., None] == _like(place, cell.ndim + 1), weight[..., None], 0.0)
        return weights

    return jax.lax.fori_loop(0, most, add, jnp.zeros((*axis.start.shape, bins, cells), jnp.float32))


def box_axis(
    low: Float[Array, "*boxes"],
    high: Float[Array, "*boxes"],
    cells: Int32[Array, "*boxes"],
    bins: int,
    sampling: int,
) -> Axis:
    """The points of boxes from `low` to `high`, in cells counted from the map's edge."""
    start = low - 0.5
    extent = (high - 0.5) - start
    if sampling == ADAPTIVE:
        points = jnp.clip(jnp.ceil(extent / bins), 0, MOST_POINTS).astype(jnp.int32)
    else:
        points = jnp.full(low.shape, sampling, jnp.int32)
    return Axis(start, extent / bins, points, cells)


def _axes(
    pyramid: Sequence[Array], boxes: Array, levels: Array, strides: Sequence[int], size: int, sampling: int
) -> tuple[Axis, Axis]:
    """The points along y and along x."""
    per_pixel = (1.0 / jnp.asarray(strides, jnp.float32))[levels]
    heights, widths = (jnp.asarray([level.shape[axis] for level in pyramid], jnp.int32) for axis in (1, 2))
    x1, y1, x2, y2 = jnp.moveaxis(boxes.astype(jnp.float32) * per_pixel[..., None], -1, 0)
    return (
        box_axis(y1, y2, heights[levels], size, sampling),
        box_axis(x1, x2, widths[levels], size, sampling),
    )


def _taps(
    axis: Axis, bins: int, point: Array | int, replicate: bool
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The two cells [*boxes, bins] between which the `point`-th point of each bin lies, and their weights."""
    ndim = axis.start.ndim + 1
    start, extent, points, cells = (value[..., None] for value in axis)
    number = jnp.maximum(points, 1).astype(jnp.float32)
    place = start + _like(jnp.arange(bins, dtype=jnp.float32), ndim) * extent
    place = place + (point + 0.5) * extent / number
    last = (cells - 1).astype(jnp.float32)
    counts = point < points
    if replicate:
        counts = counts & (place >= -1.0) & (place <= last + 1.0)
        place = jnp.clip(place, 0.0, last)
    low = jnp.floor(place)
    share = place - low
    low_cell = low.astype(jnp.int32)
    high_cell = low_cell + 1
    if replicate:
        high_cell = jnp.minimum(high_cell, cells - 1)
    whole = jnp.where(counts, 1.0 / number, 0.0)
    return (low_cell, (1.0 - share) * whole), (high_cell, share * whole)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gathered(
    size: int,
    flat: Float[Array, "places channels"],
    y: Axis,
    x: Axis,
    offset: Int32[Array, " n"],
    most: tuple[int | Array, int | Array],
) -> Float[Array, "n size size channels"]:
    """Point by point of the bins, of all boxes of a picture at once. `flat` is the pyramid, level by level; `offset`
    is where each box's level begins. The number of points may be known only on device: hence the gradient by hand."""
    total = jnp.zeros((offset.shape[0], size, size, flat.shape[1]), jnp.float32)

    def add(point: Array, total: Array) -> Array:
        for index, weight in _corners(size, y, x, offset, point, most[1]):
            total += weight[..., None] * flat[index].astype(jnp.float32)
        return total

    return jax.lax.fori_loop(0, most[0] * most[1], add, total).astype(flat.dtype)


def _gathered_forward(
    size: int, flat: Array, y: Axis, x: Axis, offset: Array, most: tuple[int | Array, int | Array]
) -> tuple[Array, tuple]:
    return _gathered(size, flat, y, x, offset, most), (jnp.zeros_like(flat), y, x, offset, most)


def _gathered_backward(size: int, residuals: tuple, upstream: Array) -> tuple[Array, None, None, None, None]:
    zeros, y, x, offset, most = residuals
    upstream = upstream.astype(jnp.float32)

    def add(point: Array, gradient: Array) -> Array:
        for index, weight in _corners(size, y, x, offset, point, most[1]):
            gradient = gradient.at[index].add(weight[..., None] * upstream)
        return gradient

    gradient = jax.lax.fori_loop(0, most[0] * most[1], add, zeros.astype(jnp.float32))
    return gradient.astype(zeros.dtype), None, None, None, None


_gathered.defvjp(_gathered_forward, _gathered_backward)


def _corners(
    size: int, y: Axis, x: Axis, offset: Array, point: Array, columns: int | Array
) -> list[tuple[Int32[Array, "n size size"], Float[Array, "n size size"]]]:
    """The four cells around a point of every bin, as places in the flat pyramid, and their weights."""
    rows = _taps(y, size, point // columns, True)
    across = _taps(x, size, point % columns, True)
    return [
        (
            offset[:, None, None] + row[:, :, None] * x.cells[:, None, None] + column[:, None, :],
            of_row[:, :, None] * of_column[:, None, :],
        )
        for row, of_row in rows
        for column, of_column in across
    ]


def _separable(
    pyramid: tuple[Float[Array, "_ _ channels"], ...],
    y: Axis,
    x: Axis,
    levels: Int32[Array, " n"],
    *,
    size: int,
    most: tuple[int | Array, int | Array],
    chunk: int,
) -> Float[Array, "n size size channels"]:
    """`rows @ map @ columns^T` of every level, the rows of boxes of other levels zero; chunk by chunk of boxes."""
    n = levels.shape[0]
    chunk = min(chunk, n)
    chunks = -(-n // chunk)

    def split(value: Array) -> Array:
        return jnp.pad(value, (0, chunks * chunk - n)).reshape(chunks, chunk)

    # Weights are made again in the backward pass: kept, those of all chunks would outweigh the features.
    @jax.checkpoint
    def of_chunk(part: tuple[Axis, Axis, Array]) -> Array:
        y, x, levels = part
        total = jnp.zeros((chunk, size, size, pyramid[0].shape[2]), jnp.float32)
        for number, features in enumerate(pyramid):
            height, width, _ = features.shape
            rows = axis_weights(y, size, height, most[0], replicate=True)
            rows = jnp.where((levels == number)[:, None, None], rows, 0.0)
            columns = axis_weights(x, size, width, most[1], replicate=True)
            total += _product(rows, features, columns)
        return total

    found = jax.lax.map(of_chunk, jax.tree.map(split, (y, x, levels)))
    return found.reshape(chunks * chunk, size, size, -1)[:n].astype(pyramid[0].dtype)


def _product(
    rows: Float[Array, "n size height"],
    features: Float[Array, "height width channels"],
    columns: Float[Array, "n size width"],
) -> Float[Array, "n size size channels"]:
    """f32 features are multiplied in full precision; bf16 ones in one pass with f32 sums."""
    precision = jax.lax.Precision.HIGHEST if features.dtype == jnp.float32 else None
    einsum = functools.partial(jnp.einsum, precision=precision, preferred_element_type=jnp.float32)
    half = einsum("nph,hwc->npwc", rows.astype(features.dtype), features)
    return einsum("nqw,npwc->npqc", columns, half)


def _offsets(pyramid: Sequence[Array]) -> Int32[Array, " levels"]:
    """Where each level begins in the flat pyramid."""
    starts, at = [], 0
    for level in pyramid:
        starts.append(at)
        at += level.shape[1] * level.shape[2]
    return jnp.asarray(starts, jnp.int32)


def _most_points(y: Array, x: Array) -> tuple[Array, Array]:
    """The largest numbers of points along y and x in the batch: the lengths of the loops."""
    return jnp.max(y), jnp.max(x)


def _like(line: Array, ndim: int) -> Array:
    """A line as the last of `ndim` axes."""
    return line.reshape((1,) * (ndim - 1) + line.shape)
