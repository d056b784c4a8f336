"""Losses of detectors, one value per prediction, in f32.

None of them divides: whoever sums them over the valid rows of the global batch gives the denominator, which the
published detectors choose differently (all sampled anchors; all sampled boxes, not only the positives; all ground
truth). `total` sums valid rows; the others, as long as they are finite, add nothing to value or gradient.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Num

from swin_jax.ops import boxes as box_ops
from swin_jax.ops.losses import smoothed_cross_entropy


def total(values: Float[Array, "*batch"], valid: Bool[Array, "*batch"]) -> Float[Array, ""]:
    """The sum of the values of valid rows: a numerator."""
    return jnp.sum(jnp.where(valid, values, 0.0))


def sigmoid_cross_entropy(
    logits: Float[Array, "*batch"], targets: Num[Array, "*batch"] | Bool[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Binary cross-entropy of probabilities `sigmoid(logits)`; objectness, centreness, masks."""
    logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    return targets * jax.nn.softplus(-logits) + (1.0 - targets) * jax.nn.softplus(logits)


def softmax_cross_entropy(
    logits: Float[Array, "*batch classes"], labels: Int32[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Cross-entropy of one label; box heads have the background as their last class."""
    rows = logits.reshape(-1, logits.shape[-1])
    return smoothed_cross_entropy(rows, labels.ravel()).reshape(labels.shape)


def mask_cross_entropy(
    logits: Float[Array, "n height width classes"],
    labels: Int32[Array, " n"],
    targets: Bool[Array, "n height width"],
) -> Float[Array, " n"]:
    """Mean binary cross-entropy over the pixels of the mask of each box's own class; `labels` within the classes."""
    # A comparison, not a gather: the gradient of a gather is a scatter over all logits.
    of_label = labels[:, None, None, None] == jnp.arange(logits.shape[-1])[None, None, None]
    own = jnp.sum(jnp.where(of_label, logits.astype(jnp.float32), 0.0), axis=-1)
    return jnp.mean(sigmoid_cross_entropy(own, targets), axis=(1, 2))


def focal(
    logits: Float[Array, "n classes"], labels: Int32[Array, " n"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Array, " n"]:
    """Sigmoid focal loss (Lin et al., 2017) summed over the classes; a label of `classes` is the background."""
    logits = logits.astype(jnp.float32)
    targets = (labels[:, None] == jnp.arange(logits.shape[-1])[None]).astype(jnp.float32)
    probability = jax.nn.sigmoid(logits)
    miss = probability * (1 - targets) + (1 - probability) * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return jnp.sum(weight * miss**gamma * sigmoid_cross_entropy(logits, targets), axis=-1)


def l1(predictions: Float[Array, "*batch 4"], targets: Float[Array, "*batch 4"]) -> Float[Array, "*batch"]:
    """Absolute differences, summed over the four coordinates."""
    return jnp.sum(jnp.abs(predictions.astype(jnp.float32) - targets), axis=-1)


def smooth_l1(
    predictions: Float[Array, "*batch 4"], targets: Float[Array, "*batch 4"], *, beta: float
) -> Float[Array, "*batch"]:
    """`d**2 / (2 beta)` where the difference d is below `beta`, `d - beta / 2` above, summed over the coordinates."""
    difference = jnp.abs(predictions.astype(jnp.float32) - targets)
    square = 0.5 * difference * difference / beta
    return jnp.sum(jnp.where(difference < beta, square, difference - 0.5 * beta), axis=-1)


def giou(
    predictions: Float[Array, "*batch 4"],
    targets: Float[Array, "*batch 4"],
    *,
    epsilon: float = box_ops.EPSILON,
) -> Float[Array, "*batch"]:
    """1 - GIoU of decoded boxes."""
    return 1.0 - box_ops.giou(predictions.astype(jnp.float32), targets, epsilon=epsilon)
