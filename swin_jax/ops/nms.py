"""Non-maximum suppression with fixed shapes, equal to the greedy sequential algorithm; soft-NMS."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from swin_jax.ops.boxes import pairwise_iou

TILE = 256


class Selection(NamedTuple):
    """Up to k of n boxes, best first; what stands behind the last is empty."""

    rows: Int32[Array, " k"]  # of the boxes; 0 where empty
    scores: Float[Array, " k"]  # 0 where empty
    valid: Bool[Array, " k"]


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    *,
    threshold: float,
    most: int,
    groups: Int32[Array, " n"] | None = None,
    tile: int = TILE,
) -> Selection:
    """Keeps the best box, drops all that overlap it with IoU > `threshold`, and so on; returns the first `most`.

    Equal scores stand in the order of their index. With `groups` (classes, levels) a box suppresses only boxes of its
    own group. That is what adding a large offset per group to the coordinates achieves, without its rounding.
    """
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True).astype(jnp.int32)
    keep = nms_keep(
        boxes[order],
        valid[order],
        threshold=threshold,
        groups=None if groups is None else groups[order],
        tile=tile,
    )
    return _front(order, scores, keep, most)


def nms_keep(
    boxes: Float[Array, "n 4"],
    valid: Bool[Array, " n"],
    *,
    threshold: float,
    groups: Int32[Array, " n"] | None = None,
    tile: int = TILE,
) -> Bool[Array, " n"]:
    """Which of the boxes, sorted by falling score, greedy suppression keeps.

    Tile by tile: the survivors within a tile are the fix-point of "kept if no kept box before it suppresses it". By
    induction on rank that fix-point is unique and is the greedy result; it is reached after as many rounds as the
    longest chain of suppressions. Then the survivors suppress what follows. Memory is n x tile.
    """
    n = boxes.shape[0]
    tile = min(tile, n)
    tiles = -(-n // tile)
    padding = tiles * tile - n
    groups = jnp.zeros(n, jnp.int32) if groups is None else groups
    boxes, groups = jnp.pad(boxes, ((0, padding), (0, 0))), jnp.pad(groups, (0, padding))
    rank = jnp.arange(tiles * tile)

    def resolve(number: Array, alive: Bool[Array, " m"]) -> Bool[Array, " m"]:
        start = number * tile

        def of_tile(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, start, tile)

        suppresses = pairwise_iou(of_tile(boxes), boxes) > threshold
        suppresses &= (of_tile(groups)[:, None] == groups[None]) & (of_tile(rank)[:, None] < rank[None])
        within = jax.lax.dynamic_slice_in_dim(suppresses, start, tile, axis=1)
        survivors = _fix_point(of_tile(alive), within)
        # Those of the tile itself are suppressed by its survivors too: the fix-point again.
        return alive & ~jnp.any(survivors[:, None] & suppresses, axis=0)

    return jax.lax.fori_loop(0, tiles, resolve, jnp.pad(valid, (0, padding)))[:n]


def soft_nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    *,
    most: int,
    method: str = "linear",
    threshold: float = 0.3,
    sigma: float = 0.5,
    least_score: float = 1e-3,
    groups: Int32[Array, " n"] | None = None,
) -> Selection:
    """Soft-NMS (Bodla et al., 2017): takes the best box and lowers the scores of those that overlap it, `most` times.

    Linear: scores are multiplied by `1 - iou` where `iou >= threshold`. Gaussian: by `exp(-iou**2 / sigma)`
    everywhere. A box whose score falls below `least_score` is out. With `groups` only within the group. The result
    stands in the order of selection, with lowered scores. Sequential by nature: `most` steps over n boxes.

    Raises:
      ValueError: if the method is neither.
    """
    if method not in ("linear", "gaussian"):
        raise ValueError(f"soft-NMS is linear or gaussian, got {method!r}")
    groups = jnp.zeros(boxes.shape[0], jnp.int32) if groups is None else groups

    def select(
        left: Float[Array, " n"], _: None
    ) -> tuple[Float[Array, " n"], tuple[Int32[Array, ""], Float[Array, ""]]]:
        chosen = jnp.argmax(left).astype(jnp.int32)
        score = left[chosen]
        overlap = pairwise_iou(boxes[chosen][None], boxes)[0]
        if method == "linear":
            weight = jnp.where(overlap >= threshold, 1.0 - overlap, 1.0)
        else:
            weight = jnp.exp(-(overlap * overlap) / sigma)
        lowered = left * jnp.where(groups == groups[chosen], weight, 1.0)
        lowered = jnp.where(lowered < least_score, -jnp.inf, lowered)
        left = jnp.where(left == -jnp.inf, -jnp.inf, lowered)
        return left.at[chosen].set(-jnp.inf), (chosen, score)

    start = jnp.where(valid & (scores >= least_score), scores, -jnp.inf)
    _, (index, chosen_scores) = jax.lax.scan(select, start, None, length=most)
    chosen = chosen_scores > -jnp.inf
    return Selection(jnp.where(chosen, index, 0), jnp.where(chosen, chosen_scores, 0.0), chosen)


def _fix_point(alive: Bool[Array, " t"], suppresses: Bool[Array, "t t"]) -> Bool[Array, " t"]:
    """The set of boxes that are alive and that no box of the set suppresses; `suppresses` is strictly upper."""

    def next_set(kept: Bool[Array, " t"]) -> Bool[Array, " t"]:
        return alive & ~jnp.any(kept[:, None] & suppresses, axis=0)

    def changed(state: tuple[Array, Array]) -> Array:
        return jnp.any(state[0] != state[1])

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        return state[1], next_set(state[1])

    return jax.lax.while_loop(changed, again, (alive, next_set(alive)))[1]


def _front(
    order: Int32[Array, " n"], scores: Float[Array, " n"], keep: Bool[Array, " n"], most: int
) -> Selection:
    """The first `most` kept rows of `order`; rows are empty behind the last."""
    kept = jnp.argsort(~keep, stable=True)[:most]
    kept = jnp.pad(kept, (0, most - kept.shape[0]))
    valid = jnp.arange(most) < jnp.sum(keep)
    index = jnp.where(valid, order[kept], 0)
    return Selection(index, jnp.where(valid, scores[index], 0.0), valid)
