"""Which ground-truth box, if any, a candidate box (an anchor, a proposal) learns from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from swin_jax.ops.boxes import iof, pairwise_iou


class Assignment(NamedTuple):
    """What every candidate of one picture is. Neither positive nor negative: it takes no part."""

    truth: Int32[Array, " n"]  # index of its ground-truth box; 0 where not positive
    positive: Bool[Array, " n"]
    negative: Bool[Array, " n"]
    overlap: Float[Array, " n"]  # its largest IoU with a ground-truth box; -1 where it takes no part


def max_iou(
    candidates: Float[Array, "n 4"],
    boxes: Float[Array, "g 4"],
    box_valid: Bool[Array, " g"],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_iou: float | None,
    candidate_valid: Bool[Array, " n"] | None = None,
    ignore: tuple[Float[Array, "i 4"], Bool[Array, " i"]] | None = None,
    ignore_iof: float = 0.5,
) -> Assignment:
    """Assigns by the largest IoU, as Faster R-CNN (Ren et al., 2015) in OpenMMLab's reading.

    A candidate is negative if its largest IoU is below `negative_iou`, and positive, for the first box that attains
    that IoU, if it is at least `positive_iou`. Then the low-quality rule: of every ground-truth box whose best IoU is
    at least `low_quality_iou`, all candidates with exactly that IoU become its positives, whatever they were; where
    several boxes claim one, the last has it. Without a valid box every candidate is negative.

    Works on one picture and holds a matrix [g, n] of f32; of a batch, `jax.lax.map` over pictures holds one at a time.

    Args:
      candidates: boxes in pixels.
      boxes: ground truth, padded to a fixed number g.
      box_valid: False for padding.
      positive_iou: .7 for anchors; .5, .6, .7 for proposals.
      negative_iou: .3 for anchors; the same as `positive_iou` for proposals.
      low_quality_iou: the least IoU of the low-quality rule; None switches the rule off.
      candidate_valid: False where a candidate takes no part (padding, anchors outside); by default all do.
      ignore: regions in which nothing is negative (crowds) and which of them are not padding. A candidate of which
        more than the share `ignore_iof` lies in one of them takes no part. None as in the published detectors.
      ignore_iof: that share.
    """
    takes_part = jnp.ones(candidates.shape[0], bool) if candidate_valid is None else candidate_valid
    if ignore is not None:
        regions, region_valid = ignore
        covered = jnp.where(region_valid[:, None], iof(candidates[None], regions[:, None]), 0.0)
        takes_part &= ~jnp.any(covered > ignore_iof, axis=0)
    overlaps = jnp.where(box_valid[:, None] & takes_part[None], pairwise_iou(boxes, candidates), -1.0)
    # One set of numbers for all that follows: computed twice in two fused loops, an IoU need not equal itself.
    overlaps = jax.lax.optimization_barrier(overlaps)
    best = jnp.max(overlaps, axis=0)
    truth = jnp.argmax(overlaps, axis=0).astype(jnp.int32)
    positive = best >= positive_iou
    if low_quality_iou is not None:
        claimed, claimer = _low_quality(overlaps, low_quality_iou)
        positive, truth = positive | claimed, jnp.where(claimed, claimer, truth)
    negative = takes_part & ~positive & (best < negative_iou)
    return Assignment(jnp.where(positive, truth, 0), positive, negative, best)


def _low_quality(overlaps: Float[Array, "g n"], least: float) -> tuple[Bool[Array, " n"], Int32[Array, " n"]]:
    """Which candidates are the best of some box with at least `least`, and of which box, the last if of several."""
    best_of_box = jnp.max(overlaps, axis=1, keepdims=True)
    claims = (overlaps == best_of_box) & (best_of_box >= least)
    number = jnp.arange(overlaps.shape[0], dtype=jnp.int32)[:, None]
    last = jnp.max(jnp.where(claims, number, -1), axis=0)
    return last >= 0, last
