"""Photometric distortion as segmentation recipes have it (after SSD, Liu et al., 2016), on uint8 levels.

Each picture, each step with probability one half: brightness; contrast, if its coin says before; saturation; hue;
contrast, if its coin says after. As in the published code every step cuts off to whole levels, and saturation and
hue pass through OpenCV's 8-bit HSV (hue in 180 steps), whose arithmetic is repeated here.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

BRIGHTNESS = 32.0
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18  # of 180; drawn from -18 to 17, both included
HUES = 180
# OpenCV's division tables: fixed point with 12 bits.
BITS = 12
_divisors = np.maximum(np.arange(256), 1)
SATURATION_TABLE = np.where(np.arange(256) > 0, np.rint((255 << BITS) / _divisors), 0).astype(np.int32)
HUE_TABLE = np.where(np.arange(256) > 0, np.rint((HUES << BITS) / (6.0 * _divisors)), 0).astype(np.int32)

Images = UInt8[Array, "batch height width 3"]
Levels = Int[Array, "batch height width 3"]
Channel = Int[Array, "batch height width"]


class Draws(NamedTuple):
    """What was drawn for each picture; a factor of 1 and a shift of 0 where a step is left out."""

    brightness: Float[Array, " batch"]
    contrast: Float[Array, " batch"]
    contrast_first: Bool[Array, " batch"]
    saturation: Float[Array, " batch"]
    hue: Int[Array, " batch"]


def photometric_distortion(images: Images, key: jax.Array) -> Images:
    """Distorts every picture of a batch by draws of its own."""
    return distort(images, draw(key, images.shape[0]))


def draw(key: jax.Array, batch: int) -> Draws:
    """The draws for `batch` pictures."""
    keys = jax.random.split(key, 9)
    coins = [jax.random.bernoulli(k, 0.5, (batch,)) for k in keys[:5]]

    def uniform(k: jax.Array, low: float, high: float) -> Array:
        return jax.random.uniform(k, (batch,), jnp.float32, low, high)

    return Draws(
        brightness=jnp.where(coins[0], uniform(keys[5], -BRIGHTNESS, BRIGHTNESS), 0.0),
        contrast=jnp.where(coins[1], uniform(keys[6], *CONTRAST), 1.0),
        contrast_first=coins[2],
        saturation=jnp.where(coins[3], uniform(keys[7], *SATURATION), 1.0),
        hue=jnp.where(coins[4], jax.random.randint(keys[8], (batch,), -HUE, HUE), 0),
    )


def distort(images: Images, draws: Draws) -> Images:
    """Applies draws, one for each picture."""
    levels = images.astype(jnp.int32)
    levels = _cut(levels + _each(draws.brightness))
    first = draws.contrast_first
    levels = _cut(levels * _each(jnp.where(first, draws.contrast, 1.0)))
    saturated = _of_hsv(*_saturated(_to_hsv(levels), draws.saturation))
    # Passing through HSV changes levels a little even where nothing else does.
    levels = jnp.where(_each(draws.saturation) == 1.0, levels, saturated)
    hue, saturation, value = _to_hsv(levels)
    turned = _of_hsv((hue + draws.hue[:, None, None]) % HUES, saturation, value)
    levels = jnp.where(_each(draws.hue) == 0, levels, turned)
    levels = _cut(levels * _each(jnp.where(first, 1.0, draws.contrast)))
    return levels.astype(jnp.uint8)


def _each(values: Array) -> Array:
    return values[:, None, None, None]


def _cut(levels: Array) -> Array:
    return jnp.clip(levels, 0.0, 255.0).astype(jnp.int32)


def _saturated(hsv: tuple[Array, Array, Array], factor: Array) -> tuple[Array, Array, Array]:
    hue, saturation, value = hsv
    return hue, _cut(saturation * factor[:, None, None]), value


def _to_hsv(rgb: Levels) -> tuple[Channel, Channel, Channel]:
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = jnp.max(rgb, axis=-1)
    spread = value - jnp.min(rgb, axis=-1)
    half = 1 << (BITS - 1)
    saturation = (spread * jnp.asarray(SATURATION_TABLE)[value] + half) >> BITS
    sixth = jnp.where(
        value == red,
        green - blue,
        jnp.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = (sixth * jnp.asarray(HUE_TABLE)[spread] + half) >> BITS
    return jnp.where(hue < 0, hue + HUES, hue), saturation, value


def _of_hsv(hue: Channel, saturation: Channel, value: Channel) -> Levels:
    position = hue.astype(jnp.float32) * jnp.float32(6 / HUES)
    sector = jnp.floor(position)
    part = position - sector
    s = saturation.astype(jnp.float32) * jnp.float32(1 / 255)
    v = value.astype(jnp.float32) * jnp.float32(1 / 255)
    low, falling, rising = v * (1.0 - s), v * (1.0 - s * part), v * (1.0 - s * (1.0 - part))
    sectors = [
        (v, rising, low),
        (falling, v, low),
        (low, v, rising),
        (low, falling, v),
        (rising, low, v),
        (v, low, falling),
    ]
    which = sector.astype(jnp.int32)
    channels = [
        jnp.select([which == number for number in range(6)], [entry[channel] for entry in sectors])
        for channel in range(3)
    ]
    # Cut off, not rounded: so does OpenCV's vector code.
    return jnp.floor(jnp.stack(channels, axis=-1) * 255.0).astype(jnp.int32)
