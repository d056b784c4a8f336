"""Pictures and maps whose sizes are known only when the program runs, in the corner of a canvas of fixed size.

So one compiled program serves all pictures whose maps have one size, whatever sizes their label maps have.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def resize_to_canvas(
    maps: Float[Array, "batch height width channels"],
    sizes: Int[Array, "batch 2"],
    *,
    through: tuple[int, int],
    canvas: tuple[int, int],
) -> Float[Array, "batch rows columns channels"]:
    """Interpolates bilinearly to the size `through`, and from there to each row's own size; f32.

    Half-pixel centres, edges replicated, no smoothing (as `resize.resize_bilinear`). The two steps, which published
    evaluation takes from logits to the network's picture and to the original one, are one matrix for each axis.

    Args:
      maps: of any float type.
      sizes: (height, width) of each row's result, at most `canvas`.
      through: (height, width) in between.
      canvas: (rows, columns) of the array returned; beyond a row's size it is 0.
    """
    for axis, letters in enumerate(("bih,bhwc->biwc", "bjw,bhwc->bhjc")):
        middle = _weights(maps.shape[1 + axis], jnp.asarray([through[axis]]), through[axis])[0]
        last = _weights(through[axis], sizes[:, axis], canvas[axis])
        highest = jax.lax.Precision.HIGHEST
        weights = jnp.einsum("bim,mh->bih", last, middle, precision=highest)
        maps = jnp.einsum(letters, weights, maps.astype(jnp.float32), precision=highest)
    return maps


def inside_only(
    images: Float[Array, "batch height width channels"], sizes: Int[Array, "batch 2"]
) -> Float[Array, "batch height width channels"]:
    """Pictures in the upper left corner of a canvas, with zeros beyond their sizes (height, width)."""
    rows, columns = (jnp.arange(length) for length in images.shape[1:3])
    below = rows[None, :, None] < sizes[:, 0, None, None]
    inside = below & (columns[None, None, :] < sizes[:, 1, None, None])
    return jnp.where(inside[..., None], images, 0.0)


def mirrored_within(
    images: Float[Array, "batch height width channels"], sizes: Int[Array, "batch 2"]
) -> Float[Array, "batch height width channels"]:
    """Each picture turned left to right within its own width: it stays in its corner."""
    columns = jnp.arange(images.shape[2])[None]
    source = jnp.where(columns < sizes[:, 1:], sizes[:, 1:] - 1 - columns, columns)
    return jnp.take_along_axis(images, source[:, None, :, None], axis=2)


def _weights(old: int, new: Int[Array, " batch"], canvas: int) -> Float[Array, "batch canvas old"]:
    """What each old line gives to each of the first `new` lines; 0 for the lines after them."""
    lines = jnp.arange(canvas, dtype=jnp.float32)[None]
    count = jnp.maximum(new, 1).astype(jnp.float32)[:, None]
    position = jnp.clip((lines + 0.5) * (old / count) - 0.5, 0.0, old - 1.0)
    # Hats of width one around every old line.
    hats = jnp.maximum(
        0.0, 1.0 - jnp.abs(position[:, :, None] - jnp.arange(old, dtype=jnp.float32)[None, None])
    )
    return jnp.where((lines < count)[:, :, None], hats, 0.0)
