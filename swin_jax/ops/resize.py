"""Resizing of position tables by bicubic interpolation.

The published loaders interpolate with the Keys kernel a = -0.75, half-pixel centres, edges replicated and no
antialiasing. `jax.image.resize` does that under the name "cubic-pytorch"; its "cubic" (a = -0.5, antialiased,
edges renormalised) gives other numbers.
"""

import math

import jax
import jax.numpy as jnp
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
