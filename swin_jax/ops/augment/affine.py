"""Affine transforms of one uint8 picture with Pillow's conventions.

A matrix (a, b, c, d, e, f) sends the centre (x + 0.5, y + 0.5) of an output pixel to (a x + b y + c, d x + e y + f)
in the input, in pixels from its upper left corner. What falls outside of the picture becomes the fill colour; inside
it, taps beyond the border repeat the border. The kernel is Keys' cubic with a = -1 and the result is cut off, not
rounded, to uint8: so Pillow does it in `Image.transform`, unlike in its `resize` (a = -0.5, rounded).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

Matrix = Float[Array, "6"]
Scalar = Float[Array, ""]


def rotation(degrees: Scalar, height: int, width: int) -> Matrix:
    """Turns the picture counter-clockwise around its centre."""
    angle = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = width / 2, height / 2
    return jnp.stack([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y])


def shear_and_shift(
    *,
    shear_x: Scalar | float = 0.0,
    shear_y: Scalar | float = 0.0,
    x: Scalar | float = 0.0,
    y: Scalar | float = 0.0,
) -> Matrix:
    """Reads a pixel's colour `shear_x` per row plus `x` to its right, `shear_y` per column plus `y` below it."""
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in (1.0, shear_x, x, shear_y, 1.0, y)])


def resample(
    image: UInt8[Array, "height width channels"], matrix: Matrix, fill: tuple[int, ...]
) -> UInt8[Array, "height width channels"]:
    """The picture under `matrix`, bicubic, in f32. The identity returns the picture unchanged.

    Sixteen gathers of whole pixels, added up as they come: none of them is kept.
    """
    height, width, channels = image.shape
    x, y = _sources(matrix, height, width)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    column, row = jnp.floor(x - 0.5), jnp.floor(y - 0.5)
    across, down = _cubic(x - 0.5 - column), _cubic(y - 0.5 - row)
    pixels = image.reshape(height * width, channels)
    columns = [_clipped(column + offset, width) for offset in (-1, 0, 1, 2)]
    total = jnp.zeros(image.shape, jnp.float32)
    for offset, weight in zip((-1, 0, 1, 2), down, strict=True):
        start = _clipped(row + offset, height) * width
        line = jnp.zeros(image.shape, jnp.float32)
        for place, tap in zip(columns, across, strict=True):
            line += tap[:, :, None] * pixels.at[start + place].get(mode="promise_in_bounds")
        total += weight[:, :, None] * line
    found = jnp.clip(total, 0.0, 255.0).astype(jnp.uint8)
    return jnp.where(inside[:, :, None], found, jnp.asarray(fill, jnp.uint8)[None, None])


def _sources(matrix: Matrix, height: int, width: int) -> tuple[Array, Array]:
    """x and y in the input of every output pixel, f32 [H, W] each."""
    x = jnp.arange(width, dtype=jnp.float32)[None, :] + 0.5
    y = jnp.arange(height, dtype=jnp.float32)[:, None] + 0.5
    a, b, c, d, e, f = matrix
    return a * x + b * y + c, d * x + e * y + f


def _clipped(place: Float[Array, "height width"], size: int) -> Array:
    return jnp.clip(place, 0, size - 1).astype(jnp.int32)


def _cubic(t: Float[Array, "height width"]) -> tuple[Array, Array, Array, Array]:
    """Weights of the taps at -1, 0, 1, 2 for a point `t` in [0, 1) beyond tap 0; Keys (1981) with a = -1."""
    u = 1.0 - t
    return -t * u * u, 1.0 - 2.0 * t * t + t * t * t, 1.0 - 2.0 * u * u + u * u * u, -u * t * t
