"""Random erasing (Zhong et al., 2017) in the mode of the published recipes: noise pixel by pixel."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from swin_jax.ops.augment.basic import row_keys

ATTEMPTS = 10  # at a rectangle that fits


@dataclasses.dataclass(frozen=True)
class Erasing:
    """Which rectangles are erased.

    Args:
        probability: of a picture.
        area: smallest and largest share of the picture, drawn uniformly.
        aspect: smallest ratio of height to width; log-uniform up to its inverse.
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"augment.erase_probability is {self.probability}; give a probability, 0 to 1")
        if len(self.area) != 2 or not 0 < self.area[0] <= self.area[1] < 1:
            raise ValueError(f"augment.erase_area is {self.area}; give (low, high) with 0 < low <= high < 1")
        if not 0 < self.aspect <= 1:
            raise ValueError(f"augment.erase_aspect is {self.aspect}; give a number above 0, at most 1")


class Box(NamedTuple):
    """Rows top to bottom, columns left to right, the last ones excluded. An empty one contains nothing."""

    top: Int[Array, ""]
    left: Int[Array, ""]
    bottom: Int[Array, ""]
    right: Int[Array, ""]

    def mask(self, height: int, width: int) -> Bool[Array, "height width"]:
        """True inside."""
        row, column = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
        return (row >= self.top) & (row < self.bottom) & (column >= self.left) & (column < self.right)


def random_erasing(
    images: Float[Array, "batch height width channels"], key: jax.Array, erasing: Erasing
) -> Float[Array, "batch height width channels"]:
    """Overwrites a rectangle of some rows of the global batch, normalised already, with N(0, 1)."""
    _, height, width, channels = images.shape

    def of_row(image: Float[Array, "height width channels"], key: jax.Array) -> Array:
        where, what = jax.random.split(key)
        box = draw_box(where, height, width, erasing)
        noise = jax.random.normal(what, (height, width, channels), images.dtype)
        return jnp.where(box.mask(height, width)[:, :, None], noise, image)

    return jax.vmap(of_row)(images, row_keys(key, images.shape[0]))


def draw_box(key: jax.Array, height: int, width: int, erasing: Erasing) -> Box:
    """The rectangle of one picture: the first of ten drawn that is smaller than the picture on both sides; empty
    if none is, or if the picture is not chosen."""
    chosen, area, aspect, top, left = jax.random.split(key, 5)
    low, high = erasing.area
    areas = jax.random.uniform(area, (ATTEMPTS,), minval=low * height * width, maxval=high * height * width)
    widest = -math.log(erasing.aspect)
    aspects = jnp.exp(jax.random.uniform(aspect, (ATTEMPTS,), minval=-widest, maxval=widest))
    heights = jnp.round(jnp.sqrt(areas * aspects)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(areas / aspects)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)
    erase = fits[first] & jax.random.bernoulli(chosen, erasing.probability)
    tall, wide = jnp.where(erase, heights[first], 0), jnp.where(erase, widths[first], 0)
    upper = jax.random.randint(top, (), 0, height - tall + 1)
    start = jax.random.randint(left, (), 0, width - wide + 1)
    return Box(upper, start, upper + tall, start + wide)
