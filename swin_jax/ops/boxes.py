"""Boxes `(x1, y1, x2, y2)` in pixels: overlaps, the delta coder, clipping, flipping.

A box covers `[x1, x2) x [y1, y2)`; nothing adds 1 to a width. Everything is float32: in bfloat16 a coordinate of 1000
pixels moves by up to 4. Overlaps broadcast: `iou(a[:, None], b[None])` is the matrix of all pairs.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

EPSILON = 1e-6
"""Smallest area (overlaps) and side (encoding) in a denominator, as in OpenMMLab's detectors."""
MOST_LOG_RATIO = abs(math.log(16 / 1000))
"""Predicted log size ratios are clipped to this, 4.135, on both sides; the published constant."""

LARGEST = 3e38
"""No area is larger."""

Boxes = Float[Array, "*#batch 4"]
Four = tuple[float, float, float, float]


def area(boxes: Float[Array, "*batch 4"]) -> Float[Array, "*batch"]:
    """Width times height, in square pixels; no box is repaired, an inverted side counts negative."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Boxes, b: Boxes) -> Array:
    """Intersection over union of `a` and `b`, f32 [*batch] of their broadcast; 0 between two empty boxes."""
    intersection, union = _intersection_and_union(a, b)
    return intersection / jnp.maximum(union, EPSILON)


def iof(a: Boxes, b: Boxes) -> Array:
    """Intersection over the area of `a` (the foreground) alone, f32 [*batch]: 1 where `b` contains `a`."""
    intersection, _ = _intersection_and_union(a, b)
    return intersection / jnp.maximum(area(a), EPSILON)


def giou(a: Boxes, b: Boxes, *, epsilon: float = EPSILON) -> Array:
    """Generalised IoU (Rezatofighi et al., 2019), f32 [*batch] in (-1, 1]: IoU less the share of the enclosing box
    that neither covers."""
    intersection, union = _intersection_and_union(a, b)
    union = jnp.maximum(union, epsilon)
    corner = jnp.minimum(a[..., :2], b[..., :2])
    sides = _at_least(jnp.maximum(a[..., 2:], b[..., 2:]) - corner, 0.0)
    enclosing = jnp.maximum(sides[..., 0] * sides[..., 1], epsilon)
    return intersection / union - (enclosing - union) / enclosing


def pairwise_iou(a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """`iou` of every pair."""
    return iou(a[:, None], b[None])


def encode(
    priors: Boxes,
    boxes: Boxes,
    *,
    stds: Four = (1.0, 1.0, 1.0, 1.0),
    means: Four = (0.0, 0.0, 0.0, 0.0),
) -> Array:
    """What a head should predict for `boxes` seen from `priors`: `(dx, dy, dw, dh)`, f32 [*batch, 4].

    Shifts of the centre in units of the prior's sides, logarithms of the ratios of the sides, then normalised by
    `means` and `stds`. Sides below `EPSILON` pixels count as that, so that padded rows stay finite.
    """
    prior_centre, prior_size = _centre_and_size(priors)
    centre, size = _centre_and_size(boxes)
    prior_size, size = jnp.maximum(prior_size, EPSILON), jnp.maximum(size, EPSILON)
    deltas = jnp.concatenate([(centre - prior_centre) / prior_size, jnp.log(size / prior_size)], axis=-1)
    return (deltas - _four(means, deltas)) / _four(stds, deltas)


def decode(
    priors: Boxes,
    deltas: Boxes,
    *,
    stds: Four = (1.0, 1.0, 1.0, 1.0),
    means: Four = (0.0, 0.0, 0.0, 0.0),
) -> Array:
    """The boxes that `deltas` describe seen from `priors`, f32 [*batch, 4]; the inverse of `encode`.

    Log ratios are clipped to `MOST_LOG_RATIO` before the exponential. Class-specific deltas `[n, classes, 4]` go with
    priors `[n, 1, 4]`. Boxes are not clipped: `clip` does that.
    """
    deltas = deltas.astype(jnp.float32)
    deltas = deltas * _four(stds, deltas) + _four(means, deltas)
    prior_centre, prior_size = _centre_and_size(priors)
    centre = prior_centre + prior_size * deltas[..., :2]
    half = 0.5 * prior_size * jnp.exp(jnp.clip(deltas[..., 2:], -MOST_LOG_RATIO, MOST_LOG_RATIO))
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def clip(boxes: Float[Array, "*batch 4"], size: Num[Array, "2"]) -> Float[Array, "*batch 4"]:
    """Cuts boxes to a picture of `size` (height, width): to its true size, not that of the padded canvas."""
    height, width = size.astype(boxes.dtype)
    most = jnp.stack([width, height, width, height]).reshape((1,) * (boxes.ndim - 1) + (4,))
    return jnp.clip(boxes, 0.0, most)


def flip(boxes: Float[Array, "*batch 4"], width: float | int | Num[Array, ""]) -> Float[Array, "*batch 4"]:
    """The boxes of a picture of true `width` pixels after it is mirrored left to right."""
    x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
    return jnp.stack([width - x2, y1, width - x1, y2], axis=-1)


def _intersection_and_union(a: Boxes, b: Boxes) -> tuple[Array, Array]:
    corner = jnp.maximum(a[..., :2], b[..., :2])
    sides = _at_least(jnp.minimum(a[..., 2:], b[..., 2:]) - corner, 0.0)
    intersection = _rounded(sides[..., 0] * sides[..., 1])
    return intersection, _rounded(area(a)) + _rounded(area(b)) - intersection


def _rounded(product: Array) -> Array:
    """The product itself, a float32 number.

    Compilers fuse a product with the sum it enters and leave its rounding out. Anchors that contain a box, or lie in
    it, would then tie for the best IoU or not by how a program is fused, and not as in the published code
    (`assign.max_iou` asks for equality). A minimum between the two keeps them apart; a barrier does not.
    """
    return jnp.minimum(product, LARGEST)


def _centre_and_size(boxes: Boxes) -> tuple[Array, Array]:
    return 0.5 * (boxes[..., :2] + boxes[..., 2:]), boxes[..., 2:] - boxes[..., :2]


def _at_least(x: Array, least: float) -> Array:
    """`jnp.maximum` whose gradient is 1, not 1/2, at a tie: boxes that just touch are drawn together."""
    return jnp.where(x >= least, x, least)


def _four(values: Four, like: Array) -> Array:
    return jnp.asarray(values, jnp.float32).reshape((1,) * (like.ndim - 1) + (4,))
