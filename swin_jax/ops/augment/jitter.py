"""Colour jitter, and the three augmentations of DeiT III. Off in the recipes of the paper.

Where RandAugment is used the published code skips colour jitter.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from swin_jax.ops.augment.basic import row_keys
from swin_jax.ops.augment.color import Picture, blend, grey, mean_grey

BLUR_RADIUS = 6  # taps on either side: three standard deviations of the widest blur
BLUR = (0.1, 2.0)  # standard deviations, in pixels


def color_jitter(
    images: UInt8[Array, "batch height width 3"], key: jax.Array, strength: float
) -> UInt8[Array, "batch height width 3"]:
    """Brightness, contrast and saturation of each picture, in an order of its own, each by a factor drawn
    uniformly from 1 - strength (not below 0) to 1 + strength."""

    def of_row(image: Picture, key: jax.Array) -> Picture:
        order, factors = jax.random.split(key)
        kinds = jax.random.permutation(order, 3)
        drawn = jax.random.uniform(factors, (3,), minval=max(0.0, 1.0 - strength), maxval=1.0 + strength)
        for kind, factor in zip(kinds, drawn, strict=True):
            luminance = grey(image)
            degenerate = jnp.where(kind == 1, mean_grey(luminance), luminance)[:, :, None]
            image = blend(jnp.where(kind == 0, 0, degenerate).astype(jnp.uint8), image, factor)
        return image

    return jax.vmap(of_row)(images, row_keys(key, images.shape[0]))


def three_augment(
    images: UInt8[Array, "batch height width 3"], key: jax.Array
) -> UInt8[Array, "batch height width 3"]:
    """One of grey, solarize and blur for each picture, each with probability 1/3 (Touvron et al., 2022)."""

    def of_row(image: Picture, key: jax.Array) -> Picture:
        which, width = jax.random.split(key)
        kind = jax.random.randint(which, (), 0, 3)
        sigma = jax.random.uniform(width, (), minval=BLUR[0], maxval=BLUR[1])
        solarized = jnp.where(image < 128, image, 255 - image)
        changed = jnp.where(kind == 0, grey(image)[:, :, None], solarized)
        return jnp.where(kind == 2, gaussian_blur(image, sigma), changed)

    return jax.vmap(of_row)(images, row_keys(key, images.shape[0]))


def gaussian_blur(image: Picture, sigma: Float[Array, ""]) -> Picture:
    """Each channel convolved with a Gaussian of `sigma` pixels, the border repeated; rounded."""
    offsets = jnp.asarray(np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1), jnp.float32)
    weights = jax.nn.softmax(-0.5 * (offsets / sigma) ** 2)
    around = ((BLUR_RADIUS, BLUR_RADIUS), (BLUR_RADIUS, BLUR_RADIUS), (0, 0))
    padded = jnp.pad(image, around, mode="edge").astype(jnp.float32)
    height, width, _ = image.shape
    lines = jnp.zeros((height, *padded.shape[1:]), jnp.float32)
    for tap, weight in enumerate(weights):
        lines += weight * padded[tap : tap + height]
    blurred = jnp.zeros(image.shape, jnp.float32)
    for tap, weight in enumerate(weights):
        blurred += weight * lines[:, tap : tap + width]
    return jnp.round(blurred).astype(jnp.uint8)
