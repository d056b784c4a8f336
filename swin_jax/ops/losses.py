"""Losses as functions of arrays, one value per example; whoever sums them chooses the denominator."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

IGNORE = 255
"""The label of a pixel that counts nowhere."""


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


def pixel_cross_entropy(
    logits: Float[Array, "batch height width classes"],
    labels: Integer[Array, "batch height width"],
    *,
    ignore: int = IGNORE,
) -> Float[Array, "batch height width"]:
    """Cross-entropy of every pixel in f32, 0 where the label is `ignore`."""
    logits = logits.astype(jnp.float32)
    # A comparison, not a gather: the gradient of a gather is a scatter over all logits.
    of_label = labels[..., None].astype(jnp.int32) == jnp.arange(logits.shape[-1])[None, None, None]
    chosen = jnp.sum(jnp.where(of_label, logits, 0.0), axis=-1)
    return jnp.where(labels == ignore, 0.0, jax.nn.logsumexp(logits, axis=-1) - chosen)


def segmentation_cross_entropy(
    logits: Float[Array, "batch height width classes"],
    labels: Integer[Array, "batch height width"],
    *,
    avg_non_ignore: bool = False,
    ignore: int = IGNORE,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`pixel_cross_entropy` as the numerator and the denominator of its mean.

    The published segmenters divide by the number of all pixels, ignored ones included (OpenMMLab's
    `avg_non_ignore=False`); with True only pixels with a label count, and a batch without any has denominator 0.
    """
    counted = jnp.sum(labels != ignore) if avg_non_ignore else labels.size
    return jnp.sum(pixel_cross_entropy(logits, labels, ignore=ignore)), jnp.float32(counted)


def _at(
    log_probabilities: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    return jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]


def _smoothed(
    log_probabilities: Float[Array, "batch classes"], of_target: Float[Array, " batch"], smoothing: float
) -> Float[Array, " batch"]:
    return -(1.0 - smoothing) * of_target - smoothing * jnp.mean(log_probabilities, axis=-1)
