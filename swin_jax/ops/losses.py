"""Losses as functions of arrays, one value per example; whoever sums them chooses the denominator."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def smoothed_cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], *, smoothing: float = 0.0
) -> Float[Array, " batch"]:
    """Cross-entropy with the target `(1 - smoothing) * one_hot + smoothing / classes`, in f32."""
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    of_label = jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]
    return -(1.0 - smoothing) * of_label - smoothing * jnp.mean(log_probabilities, axis=-1)
