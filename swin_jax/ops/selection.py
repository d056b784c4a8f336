"""From dense predictions to a fixed number of boxes: proposals of a pyramid, detections of many classes."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Num

from swin_jax.ops import boxes as box_ops
from swin_jax.ops.nms import nms, soft_nms


class Proposals(NamedTuple):
    """The boxes of one picture in which the second stage looks, best first; rows behind the last are empty."""

    boxes: Float[Array, "k 4"]
    scores: Float[Array, " k"]
    valid: Bool[Array, " k"]


class Detections(NamedTuple):
    """What was found in one picture, best first; rows behind the last are empty (all zero)."""

    boxes: Float[Array, "k 4"]
    scores: Float[Array, " k"]
    labels: Int32[Array, " k"]
    row: Int32[Array, " k"]  # the input row that the detection came from
    valid: Bool[Array, " k"]
    complete: Bool[Array, ""]  # False if more candidates than `candidates` could have changed the result


def propose(
    logits: Sequence[Float[Array, " _"]],
    deltas: Sequence[Float[Array, "_ 4"]],
    anchors: Sequence[Float[Array, "_ 4"]],
    takes_part: Sequence[Bool[Array, " _"]],
    picture: Num[Array, "2"],
    *,
    per_level: int,
    most: int,
    threshold: float = 0.7,
) -> Proposals:
    """The proposals of one picture from the outputs of a region proposal network, one array per level.

    Of each level the `per_level` best by sigmoid score are decoded and clipped to the picture's true size (height,
    width); what has lost its width or height is dropped (OpenMMLab since 3.0; before, such boxes were kept);
    suppression runs within the level; of the survivors of all levels the `most` best remain. Published: 2000 per level
    and 1000 or 2000 in training, 1000 and 1000 in tests. No gradient passes.

    Args:
      logits: objectness of every anchor.
      deltas: of every anchor, for `boxes.decode` with standard deviations of 1.
      anchors: of `anchors.pyramid_anchors`.
      takes_part: of `anchors.valid_cells`.
      picture: true height and width.
      per_level: boxes that enter the suppression of a level.
      most: rows of the result.
      threshold: IoU above which the worse box of a level is dropped.
    """
    logits, deltas = jax.lax.stop_gradient((list(logits), list(deltas)))
    best = [
        _best_of_level(*level, picture=picture, most=per_level)
        for level in zip(logits, deltas, anchors, takes_part, strict=True)
    ]
    found, scores, valid = (jnp.stack(parts) for parts in zip(*best, strict=True))
    # One problem per level under vmap: what suppression with a level per group gives, at a fifth of the work.
    kept = jax.vmap(functools.partial(nms, threshold=threshold, most=per_level))(found, scores, valid)
    found = jnp.take_along_axis(found, kept.rows[:, :, None], axis=1).reshape(-1, 4)
    scores = jnp.where(kept.valid, kept.scores, -1.0).ravel()
    scores, order = jax.lax.top_k(scores, min(most, scores.shape[0]))
    order, scores = jnp.pad(order, (0, most - order.shape[0])), _padded(scores, most, -1.0)
    valid = scores >= 0
    return Proposals(jnp.where(valid[:, None], found[order], 0.0), jnp.where(valid, scores, 0.0), valid)


def detect(
    boxes: Float[Array, "n classes_or_1 4"],
    scores: Float[Array, "n classes"],
    valid: Bool[Array, " n"],
    *,
    least_score: float,
    threshold: float,
    most: int,
    candidates: int = 4096,
    soft: str | None = None,
    least_soft_score: float = 1e-3,
    sigma: float = 0.5,
) -> Detections:
    """The `most` best (box, class) pairs of one picture after suppression within each class.

    Only the `candidates` best pairs with a score above `least_score` are looked at. Suppression runs from better to
    worse, so that cutting off the worst changes nothing as long as `most` pairs survive, or all pairs fit: `complete`
    says so. For soft-NMS, which lowers scores, the last result must not be below the best pair cut off.

    Args:
      boxes: in pixels, `[n, classes, 4]`, or `[n, 1, 4]` where all classes share a box.
      scores: probabilities of the classes, the background left out.
      valid: False for empty rows.
      least_score: .05 as published (.001 for HTC).
      threshold: IoU above which (soft linear: from which) a box of the class gives way.
      most: 100 as published.
      candidates: how many pairs to look at.
      soft: "linear" or "gaussian" soft-NMS instead of dropping boxes.
      least_soft_score: below it soft-NMS drops a box.
      sigma: of Gaussian soft-NMS.
    """
    classes = scores.shape[1]
    pairs = jnp.where(valid[:, None] & (scores > least_score), scores, -1.0).ravel()
    above = jnp.sum(pairs > -1.0)
    candidates = min(candidates, pairs.shape[0])
    best, pair = jax.lax.top_k(pairs, candidates)
    row, label = pair // classes, pair % classes
    of_class = label if boxes.shape[1] == classes else jnp.zeros_like(label)
    found = boxes[row, of_class]
    if soft is None:
        kept = nms(found, best, best > -1.0, threshold=threshold, most=most, groups=label)
        unharmed = kept.valid[-1]
    else:
        kept = soft_nms(
            found,
            best,
            best > -1.0,
            most=most,
            method=soft,
            threshold=threshold,
            sigma=sigma,
            least_score=least_soft_score,
            groups=label,
        )
        # The best pair cut off is no better than the last one looked at.
        unharmed = kept.valid[-1] & (kept.scores[-1] >= best[-1])
    return Detections(
        boxes=jnp.where(kept.valid[:, None], found[kept.rows], 0.0),
        scores=kept.scores,
        labels=jnp.where(kept.valid, label[kept.rows], 0),
        row=jnp.where(kept.valid, row[kept.rows], 0),
        valid=kept.valid,
        complete=(above <= candidates) | unharmed,
    )


def _best_of_level(
    logits: Float[Array, " n"],
    deltas: Float[Array, "n 4"],
    anchors: Float[Array, "n 4"],
    takes_part: Bool[Array, " n"],
    *,
    picture: Num[Array, "2"],
    most: int,
) -> tuple[Float[Array, "most 4"], Float[Array, " most"], Bool[Array, " most"]]:
    """Boxes, scores and which rows hold one: `most` rows, however small the level."""
    scores = jnp.where(takes_part, jax.nn.sigmoid(logits.astype(jnp.float32)), -1.0)
    scores, index = jax.lax.top_k(scores, min(most, scores.shape[0]))
    found = box_ops.clip(box_ops.decode(anchors[index], deltas[index]), picture)
    sides = found[:, 2:] - found[:, :2]
    valid = (scores >= 0) & jnp.all(sides > 0, axis=-1)
    missing = most - scores.shape[0]
    return jnp.pad(found, ((0, missing), (0, 0))), _padded(scores, most, -1.0), jnp.pad(valid, (0, missing))


def _padded(x: Float[Array, " n"], length: int, value: float) -> Float[Array, " length"]:
    return jnp.pad(x, (0, length - x.shape[0]), constant_values=value)
