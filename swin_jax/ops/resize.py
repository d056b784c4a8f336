"""Resizing: position tables by bicubic interpolation, maps by bilinear interpolation and adaptive averaging.

The published loaders of tables interpolate with the Keys kernel a = -0.75, half-pixel centres, edges replicated and no
antialiasing. `jax.image.resize` does that under the name "cubic-pytorch"; its "cubic" (a = -0.5, antialiased,
edges renormalised) gives other numbers.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def resize_grid(
    grid: Float[Array, "height width channels"], height: int, width: int
) -> Float[Array, "new_height new_width channels"]:
    """Interpolates a grid of vectors, such as a position embedding, to `height` x `width` in float32."""
    if grid.shape[:2] == (height, width):
        return grid
    shape = (height, width, grid.shape[2])
    resized = jax.image.resize(grid.astype(jnp.float32), shape, method="cubic-pytorch", antialias=False)
    return resized.astype(grid.dtype)


def resize_bias_table(table: Float[Array, "offsets heads"], window: int) -> Float[Array, "new_offsets heads"]:
    """Interpolates a relative position bias table of `(2w - 1)^2` offsets to a window of `window` tokens a
    side.

    Raises:
      ValueError: if the table's length is not the square of an odd number.
    """
    side = math.isqrt(table.shape[0])
    if side * side != table.shape[0] or side % 2 == 0:
        raise ValueError(f"a bias table has (2 * window - 1)**2 rows, got {table.shape[0]}")
    heads = table.shape[1]
    target = 2 * window - 1
    return resize_grid(table.reshape(side, side, heads), target, target).reshape(target * target, heads)


def resize_bilinear(
    maps: Float[Array, "batch height width channels"],
    size: tuple[int, int],
    *,
    align_corners: bool = False,
) -> Float[Array, "batch new_height new_width channels"]:
    """Interpolates maps to `size` (height, width) between the two nearest lines, up as well as down.

    With `align_corners=False` cells have half-pixel centres and edges are replicated; with True the centres
    of the outermost cells stay where they are. Neither smooths before shrinking: it is what PyTorch's
    `interpolate` computes. In the maps' own type, summed in float32.
    """
    if maps.shape[1:3] == tuple(size):
        return maps
    height, width = (
        _bilinear_weights(old, new, align_corners) for old, new in zip(maps.shape[1:3], size, strict=True)
    )
    return _weighted_lines(maps, height, width)


def adaptive_average_pool(
    maps: Float[Array, "batch height width channels"], size: tuple[int, int]
) -> Float[Array, "batch new_height new_width channels"]:
    """Averages maps over `size` (rows, columns) of bins that cover them; bins overlap where they do not divide.

    Bin i of k over n cells is [floor(i n / k), ceil((i + 1) n / k)), as PyTorch has it; k may exceed n. Means
    are taken in float32 and returned in the maps' type.
    """
    height, width = (_bin_weights(old, new) for old, new in zip(maps.shape[1:3], size, strict=True))
    return _weighted_lines(maps.astype(jnp.float32), height, width).astype(maps.dtype)


def _weighted_lines(maps: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Every new row is a weighted sum of rows, then every new column one of columns.

    Matrix products, because the gradient of gathering lines is a scatter: slow on TPU, in no fixed order on GPU.
    """
    highest = jax.lax.Precision.HIGHEST
    for axis, weights in ((1, rows), (2, columns)):
        letters = "ih,bhwc->biwc" if axis == 1 else "jw,bhwc->bhjc"
        maps = jnp.einsum(letters, jnp.asarray(weights, maps.dtype), maps, precision=highest)
    return maps


def _bilinear_weights(old: int, new: int, align_corners: bool) -> np.ndarray:
    """`[new, old]`: what each old line gives to each new one."""
    lines = np.arange(new, dtype=np.float64)
    if align_corners:
        position = lines * ((old - 1) / (new - 1) if new > 1 else 0.0)
    else:
        position = np.clip((lines + 0.5) * (old / new) - 0.5, 0.0, old - 1.0)
    # Hats of width one around every old line.
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(old)[None, :]))


def _bin_weights(old: int, new: int) -> np.ndarray:
    """`[new, old]`: the share of each old line in the mean of each bin."""
    bins, lines = np.arange(new)[:, None], np.arange(old)[None, :]
    inside = (lines >= bins * old // new) & (lines < -(-(bins + 1) * old // new))
    return inside / inside.sum(axis=1, keepdims=True)
