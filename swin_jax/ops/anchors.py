"""Anchors of a feature pyramid, in OpenMMLab's order: level, row, column, anchor of the cell.

The anchors of cell (row i, column j) at stride s are centred on the cell's upper left corner `(j s, i s)`, not on its
middle: the published detectors were trained so.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Num, UInt32

Sizes = Sequence[tuple[int, int]]
"""Height and width in cells of each level's map."""
Numbers = Sequence[float | int]


def cell_anchors(stride: int, scales: Numbers, ratios: Numbers) -> Float[np.ndarray, "anchors 4"]:
    """The anchors of one cell around (0, 0), f32, ratio by ratio and within it scale by scale.

    Scale a and ratio r (height over width) give an anchor of `a stride / sqrt(r)` x `a stride * sqrt(r)` pixels.
    """
    roots = np.sqrt(np.asarray(ratios, np.float32))[:, None]
    sides = np.asarray(scales, np.float32)[None, :] * np.float32(stride)
    half_width, half_height = (0.5 * sides * (1 / roots)).ravel(), (0.5 * sides * roots).ravel()
    return np.stack([-half_width, -half_height, half_width, half_height], axis=-1)


def pyramid_anchors(
    sizes: Sizes, strides: Sequence[int], *, scales: Numbers, ratios: Numbers
) -> tuple[Float[Array, "_ 4"], ...]:
    """The anchors of every level, f32 [height * width * anchors, 4] in pixels of the picture."""
    return tuple(
        _level_anchors(size, stride, cell_anchors(stride, scales, ratios))
        for size, stride in zip(sizes, strides, strict=True)
    )


def valid_cells(
    sizes: Sizes, strides: Sequence[int], picture: Num[Array, "2"], *, per_cell: int, multiple: int = 32
) -> tuple[Bool[Array, " _"], ...]:
    """Which anchors take part in a picture of true size `picture` (height, width): for every level bool
    [height * width * per_cell].

    A cell takes part if its upper left corner lies within the picture padded to the next `multiple` of pixels; the
    rest of the canvas is there only because the pictures of a batch share its shape.
    """
    height, width = -(-picture // multiple) * multiple
    places = (_places(size, per_cell) for size in sizes)
    return tuple(
        (row * stride < height) & (column * stride < width)
        for (row, column, _), stride in zip(places, strides, strict=True)
    )


def inside(
    anchors: Float[Array, "n 4"], picture: Num[Array, "2"], *, border: float | int = 0
) -> Bool[Array, " n"]:
    """Which anchors do not reach further than `border` pixels out of a picture of true size `picture` (height, width).

    Cascade R-CNN and HTC train on these alone (border 0); Mask R-CNN on all anchors: there, do not call this.
    """
    height, width = picture.astype(jnp.float32)
    x1, y1, x2, y2 = anchors.T
    return (x1 >= -border) & (y1 >= -border) & (x2 < width + border) & (y2 < height + border)


def pyramid_names(sizes: Sizes, *, per_cell: int) -> tuple[UInt32[Array, " _"], ...]:
    """A number for every anchor that depends on its level, row, column and place in the cell alone, not on the
    size of the canvas: `sample.balanced` draws by it, so that padding changes no draw.

    Raises:
      ValueError: if a map has more than 4096 rows or columns, or there are more than 8 levels or 16 anchors a cell.
    """
    if len(sizes) > 8 or per_cell > 16 or max(max(size) for size in sizes) > 4096:
        raise ValueError(
            f"at most 8 levels of 4096 x 4096 cells of 16 anchors have names, got {per_cell} in {sizes}"
        )
    levels = (_places(size, per_cell) for size in sizes)
    return tuple(
        (((level * 4096 + row) * 4096 + column) * 16 + of_cell).astype(jnp.uint32)
        for level, (row, column, of_cell) in enumerate(levels)
    )


def _level_anchors(size: tuple[int, int], stride: int, cell: Float[np.ndarray, "anchors 4"]) -> Array:
    # Computed on device: as a constant, the anchors of a large canvas would be megabytes of program.
    row, column, of_cell = _places(size, len(cell))
    x, y = (place.astype(jnp.float32) * stride for place in (column, row))
    around = [
        sum(jnp.where(of_cell == number, float(value), 0.0) for number, value in enumerate(side))
        for side in cell.T
    ]
    return jnp.stack([x + around[0], y + around[1], x + around[2], y + around[3]], axis=-1)


def _places(size: tuple[int, int], per_cell: int) -> tuple[Int32[Array, " n"], ...]:
    """Row, column and number within its cell of every anchor of a level.

    By division, not by broadcasting over [rows, columns, anchors]: to flatten that, a TPU moves every number, and its
    compiler takes a minute to see how.
    """
    rows, columns = size
    cell, of_cell = jnp.divmod(jnp.arange(rows * columns * per_cell, dtype=jnp.int32), per_cell)
    row, column = jnp.divmod(cell, columns)
    return row, column, of_cell
