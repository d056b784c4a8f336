"""Colours of one uint8 picture: tables of 256 entries per channel, and blends with a degenerate picture.

Integer results are those of Pillow's `ImageOps`, `ImageEnhance`, `ImageFilter.SMOOTH` and conversion to "L".
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

Picture = UInt8[Array, "height width channels"]
Table = Int[Array, "channels 256"]
"""What each value of each channel becomes, int32 in 0..255."""

LUMA = (19595, 38470, 7471)  # ITU-R 601-2, in 65536ths


def grey(image: UInt8[Array, "height width 3"]) -> UInt8[Array, "height width"]:
    """The luminance of each pixel."""
    red, green, blue = (image[:, :, channel].astype(jnp.int32) for channel in range(3))
    return ((LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue + 0x8000) >> 16).astype(jnp.uint8)


def mean_grey(luminance: UInt8[Array, "height width"]) -> UInt8[Array, ""]:
    """The mean luminance, rounded half up; exact up to eight million pixels."""
    total = jnp.sum(luminance.astype(jnp.int32))
    return ((total + luminance.size // 2) // luminance.size).astype(jnp.uint8)


def smooth(image: Picture) -> Picture:
    """A 3 x 3 mean in which the centre counts five times; the outermost pixels stay as they are."""
    values = image.astype(jnp.int32)
    lines = values[:-2] + values[1:-1] + values[2:]
    block = lines[:, :-2] + lines[:, 1:-1] + lines[:, 2:]
    centre = values[1:-1, 1:-1]
    inner = (2 * (block + 4 * centre) + 13) // 26
    return image.at[1:-1, 1:-1].set(inner.astype(jnp.uint8))


def blend(
    degenerate: UInt8[Array, "#height #width #channels"], image: Picture, factor: Float[Array, ""]
) -> Picture:
    """`degenerate + factor * (image - degenerate)`, clipped to 0..255 and cut off: 1 is the picture itself."""
    low, high = degenerate.astype(jnp.float32), image.astype(jnp.float32)
    return jnp.clip(low + factor * (high - low), 0.0, 255.0).astype(jnp.uint8)


def look_up(image: Picture, table: Table) -> Picture:
    """Each value replaced by its channel's entry."""
    channels = range(image.shape[-1])
    entries = table.astype(jnp.uint8)
    return jnp.stack(
        [entries[channel].at[image[:, :, channel]].get(mode="promise_in_bounds") for channel in channels],
        axis=-1,
    )


def identity_table(channels: int) -> Table:
    return jnp.broadcast_to(jnp.arange(256, dtype=jnp.int32)[None], (channels, 256))


def posterized(values: Table, bits: Int[Array, ""]) -> Table:
    """Keeps the `bits` most significant bits, 0 to 8."""
    return values & -(1 << (8 - bits))


def solarized(values: Table, threshold: Int[Array, ""]) -> Table:
    """Inverts the values from `threshold` on."""
    return jnp.where(values < threshold, values, 255 - values)


def brightened_below_128(values: Table, added: Int[Array, ""]) -> Table:
    """ "Solarize-add": adds to the values below 128."""
    return jnp.where(values < 128, jnp.minimum(values + added, 255), values)


def autocontrasted(values: Table, image: Picture) -> Table:
    """Stretches each channel of `image` to 0..255; a channel of one value stays."""
    low = jnp.min(image, axis=(0, 1)).astype(jnp.int32)[:, None]
    high = jnp.max(image, axis=(0, 1)).astype(jnp.int32)[:, None]
    stretched = jnp.clip((values - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, stretched, values)


def equalized(values: Table, image: Picture, wanted: Bool[Array, ""]) -> Table:
    """Spreads each channel's values evenly over the pixels of `image`; without `wanted` the result means nothing.

    A table step is the number of pixels short of those of the largest value, over 255; a channel with fewer
    pixels than a step needs stays.
    """
    counts = _histogram(image, wanted)
    last = jnp.max(image, axis=(0, 1)).astype(jnp.int32)
    pixels = image.shape[0] * image.shape[1]
    step = (pixels - jnp.take_along_axis(counts, last[:, None], axis=1)) // 255
    below = jnp.cumsum(counts, axis=1) - counts
    spread = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, spread, values)


def _histogram(image: Picture, wanted: Bool[Array, ""]) -> Int[Array, "channels 256"]:
    """How often each value occurs in each channel. Where it is not wanted every pixel falls beside the bins, so
    that a program of many pictures writes only for those that need it."""
    channels = image.shape[-1]
    bins = jnp.where(wanted, image.reshape(-1, channels).astype(jnp.int32), 256)
    channel = jnp.broadcast_to(jnp.arange(channels)[None, :], bins.shape)
    return jnp.zeros((channels, 256), jnp.int32).at[channel, bins].add(1, mode="drop")
