"""Performer attention (Choromanski et al., 2021): softmax attention of all tokens estimated at linear cost (table 6).

FAVOR+: `exp(q k)` is the mean over random directions w of `f_w(q) f_w(k)` with the positive features
`f_w(x) = exp(w x - |x|^2 / 2)`; directions come in orthogonal blocks. Sums are float32.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

Heads = Float[Array, "batch tokens heads head_channels"]


def feature_count(head_channels: int) -> int:
    """`d ln d`, rounded up: the number that the paper's theorem 4 asks for up to a factor."""
    return max(1, math.ceil(head_channels * math.log(head_channels)))


def orthogonal_directions(key: Key[Array, ""], count: int, channels: int) -> Float[Array, "count channels"]:
    """Gaussian directions of which each block of `channels` is orthogonal, with the lengths of independent ones."""
    direction_key, length_key = jax.random.split(key)
    blocks = -(-count // channels)
    draws = jax.random.normal(direction_key, (blocks, channels, channels))
    q, r = jnp.linalg.qr(draws)
    # Without these signs q prefers some directions (Mezzadri, 2007), and the estimate would not converge.
    q = q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[:, None]
    directions = q.reshape(blocks * channels, channels)[:count]
    lengths = jnp.linalg.norm(jax.random.normal(length_key, (count, channels)), axis=-1)
    return directions * lengths[:, None]


def performer_attention(
    q: Heads,
    k: Heads,
    v: Heads,
    directions: Float[Array, "count channels"] | Float[np.ndarray, "count channels"],
) -> Heads:
    """The estimate of `softmax(q k^T / sqrt(d)) v` by the features of `directions`, in the type of `v`."""
    root = q.shape[-1] ** -0.25
    of_queries = _features(q.astype(jnp.float32) * root, directions, tokens_share=False)
    of_keys = _features(k.astype(jnp.float32) * root, directions, tokens_share=True)
    # Keys first: [features, channels] of each head, whatever the number of tokens.
    summed = jnp.einsum("bthf,bthd->bhfd", of_keys, v.astype(jnp.float32))
    weighed = jnp.einsum("bthf,bhfd->bthd", of_queries, summed)
    total = jnp.einsum("bthf,bhf->bth", of_queries, jnp.sum(of_keys, axis=1))
    return (weighed / jnp.maximum(total, jnp.finfo(jnp.float32).tiny)[..., None]).astype(v.dtype)


def _features(
    x: Heads, directions: Array | np.ndarray, *, tokens_share: bool
) -> Float[Array, "batch tokens heads count"]:
    """Positive features up to a factor that the quotient of the two sums does not see: one for each query, one for
    all keys of a head. It keeps the largest at 1.

    The published code adds a small number to every feature, against sums of 0: then the estimate would not converge.
    """
    logarithm = jnp.einsum("bthd,fd->bthf", x, jnp.asarray(directions, jnp.float32))
    logarithm = logarithm - 0.5 * jnp.sum(x * x, axis=-1, keepdims=True)
    axes = (1, 3) if tokens_share else (3,)
    most = jax.lax.stop_gradient(jnp.max(logarithm, axis=axes, keepdims=True))
    return jnp.exp(logarithm - most)
