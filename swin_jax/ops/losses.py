"""Losses as functions of arrays, one value per example; whoever sums them chooses the denominator."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def smoothed_cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], *, smoothing: float = 0.0
) -> Float[Array, " batch"]:
    """Cross-entropy with the target `(1 - smoothing) * one_hot + smoothing / classes`, in f32."""
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return _smoothed(log_probabilities, _at(log_probabilities, labels), smoothing)


def mixed_cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    partners: Int[Array, " batch"],
    shares: Float[Array, " batch"],
    *,
    smoothing: float = 0.0,
) -> Float[Array, " batch"]:
    """Cross-entropy with `share` of the smoothed target of `label` and the rest of that of `partner`, in f32.

    The target is never written down: with 21,841 classes it would be as large as the logits.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    own, other = _at(log_probabilities, labels), _at(log_probabilities, partners)
    return _smoothed(log_probabilities, shares * own + (1.0 - shares) * other, smoothing)


def _at(
    log_probabilities: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    return jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]


def _smoothed(
    log_probabilities: Float[Array, "batch classes"], of_target: Float[Array, " batch"], smoothing: float
) -> Float[Array, " batch"]:
    return -(1.0 - smoothing) * of_target - smoothing * jnp.mean(log_probabilities, axis=-1)
