"""Flips, normalisation, and the random stream of each row."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped, UInt8


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """One key for each of `rows` rows of the global batch, from its place in it: keys [rows]."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows))


def flip_rows(
    images: Shaped[Array, "batch height width channels"], key: jax.Array, *, probability: float
) -> Shaped[Array, "batch height width channels"]:
    """Mirrors each picture left to right with `probability`, drawn for every row of the global batch."""
    chosen = jax.random.bernoulli(key, probability, (images.shape[0],))
    return jnp.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def normalise(
    images: UInt8[Array, "batch height width channels"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "batch height width channels"]:
    """uint8 pixels to f32 with the given mean and standard deviation per channel (of pixels in 0..1)."""
    scale = jnp.asarray([1.0 / (255.0 * value) for value in std], jnp.float32)
    offset = jnp.asarray([m / s for m, s in zip(mean, std, strict=True)], jnp.float32)
    return images.astype(jnp.float32) * scale[None, None, None] - offset[None, None, None]
