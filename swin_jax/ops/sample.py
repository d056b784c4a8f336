"""Random samples of exact size, drawn alike whatever the batch, the canvas and the number of devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key, UInt32

from swin_jax.ops.assign import Assignment


class Sample(NamedTuple):
    """The candidates of one picture that enter a loss: first the positives, then the negatives, then nothing."""

    rows: Int32[Array, " total"]  # of the candidates; 0 where empty
    positive: Bool[Array, " total"]
    valid: Bool[Array, " total"]


def balanced(
    key: Key[Array, ""],
    names: UInt32[Array, " n"],
    positive: Bool[Array, " n"],
    negative: Bool[Array, " n"],
    *,
    total: int,
    most_positive: int,
) -> Sample:
    """Draws uniformly, without replacement, up to `most_positive` positives and fills up to `total` with negatives.

    The counts are exact: `min(positives, most_positive)` positives and as many of the negatives as there are, or as
    fit. Where both run out the last rows are empty and must not count in a denominator.

    Args:
      key: of this picture at this step; `augment.row_keys` derives it from the row of the global batch.
      names: distinct numbers of the candidates, by which their lots are drawn. A candidate keeps its name, and so its
        lot, when padding grows: anchors have those of `anchors.pyramid_names`, proposals those of `with_truth`.
      positive: may be drawn as positive.
      negative: may be drawn as negative.
      total: rows of the result; 256 anchors or 512 proposals as published.
      most_positive: 128 for both.

    Raises:
      ValueError: if `most_positive` exceeds `total`.
    """
    if most_positive > total:
        raise ValueError(f"a sample of {total} cannot hold {most_positive} positives")
    lots = _lots(key, names)
    first, positives = _drawn(lots, positive, most_positive)
    second, negatives = _drawn(lots, negative, total)
    negatives = jnp.minimum(negatives, total - positives)
    row = jnp.arange(total, dtype=jnp.int32)
    is_positive = row < positives
    valid = row < positives + negatives
    of_positive = first[jnp.minimum(row, first.shape[0] - 1)] if most_positive else row
    of_negative = second[jnp.clip(row - positives, 0, second.shape[0] - 1)]
    index = jnp.where(is_positive, of_positive, of_negative)
    return Sample(jnp.where(valid, index, 0), is_positive, valid)


def with_truth(
    proposals: Float[Array, "p 4"],
    found: Assignment,
    boxes: Float[Array, "g 4"],
    box_valid: Bool[Array, " g"],
) -> tuple[Float[Array, "n 4"], Assignment, UInt32[Array, " n"]]:
    """Proposals with what they were assigned to, followed by the ground truth, which in training are their own perfect
    proposals: all boxes, their assignment, and their names. A row from p on is an injected one.

    As published the ground truth comes in when proposals have been assigned, each box for itself: it takes part neither
    in the low-quality rule nor in the choice among boxes that lie alike.
    """
    names = jnp.arange(proposals.shape[0], dtype=jnp.uint32)
    injected = jnp.arange(boxes.shape[0], dtype=jnp.uint32) + jnp.uint32(2**31)
    of_truth = Assignment(
        truth=jnp.where(box_valid, jnp.arange(boxes.shape[0], dtype=jnp.int32), 0),
        positive=box_valid,
        negative=jnp.zeros_like(box_valid),
        overlap=jnp.where(box_valid, 1.0, -1.0),
    )
    both = (jnp.concatenate(pair) for pair in zip(found, of_truth, strict=True))
    return jnp.concatenate([proposals, boxes]), Assignment(*both), jnp.concatenate([names, injected])


def _lots(key: Key[Array, ""], names: UInt32[Array, " n"]) -> Int32[Array, " n"]:
    """31 random bits for each name: a word of the key that the name is folded into, which is a hash of both. Of 269,000
    names some 17 pairs agree; those are ordered by index."""
    words = jax.random.key_data(jax.vmap(lambda name: jax.random.fold_in(key, name))(names))
    return (words[:, 0] >> 1).astype(jnp.int32)


def _drawn(
    lots: Int32[Array, " n"], eligible: Bool[Array, " n"], most: int
) -> tuple[Int32[Array, " _"], Int32[Array, ""]]:
    """The eligible candidates with the highest lots, and how many of the `most` asked for there are."""
    _, index = jax.lax.top_k(jnp.where(eligible, lots, -1), min(most, lots.shape[0]))
    return index, jnp.minimum(jnp.sum(eligible, dtype=jnp.int32), most)
