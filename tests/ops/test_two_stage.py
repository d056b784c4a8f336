"""The pieces in the order in which a two-stage detector's training step calls them, differentiated as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import anchors, boxes, masks
from swin_jax.ops import detection_losses as losses
from swin_jax.ops.assign import max_iou
from swin_jax.ops.augment import row_keys
from swin_jax.ops.roi_align import roi_align
from swin_jax.ops.sample import balanced, with_truth
from swin_jax.ops.selection import propose

STRIDES, STDS, CLASSES = (4, 8), (0.1, 0.1, 0.2, 0.2), 3


def first_stage(logits, deltas, picture, truth, box_valid, key, sizes):
    """Losses of one picture and its sample of proposals."""
    levels = anchors.pyramid_anchors(sizes, STRIDES, scales=(4,), ratios=(1.0,))
    takes_part = anchors.valid_cells(sizes, STRIDES, picture, per_cell=1)
    names = jnp.concatenate(anchors.pyramid_names(sizes, per_cell=1))
    every, part = jnp.concatenate(levels), jnp.concatenate(takes_part)
    found = max_iou(
        every, truth, box_valid, positive_iou=0.7, negative_iou=0.3, low_quality_iou=0.3, candidate_valid=part
    )
    chosen = balanced(key, names, found.positive, found.negative, total=32, most_positive=16)
    score = losses.sigmoid_cross_entropy(jnp.concatenate(logits)[chosen.rows], chosen.positive)
    target = boxes.encode(every[chosen.rows], truth[found.truth[chosen.rows]])
    shift = losses.l1(jnp.concatenate(deltas)[chosen.rows], target)
    numerator = losses.total(score, chosen.valid) + losses.total(shift, chosen.positive)
    proposals = propose(logits, deltas, levels, takes_part, picture, per_level=20, most=24)
    found = max_iou(
        proposals.boxes,
        truth,
        box_valid,
        positive_iou=0.5,
        negative_iou=0.5,
        low_quality_iou=0.5,
        candidate_valid=proposals.valid,
    )
    candidates, found, names = with_truth(proposals.boxes, found, truth, box_valid)
    chosen = balanced(
        jax.random.fold_in(key, 1), names, found.positive, found.negative, total=16, most_positive=4
    )
    return numerator, jnp.sum(chosen.valid), candidates[chosen.rows], found.truth[chosen.rows], chosen


def loss(weights, batch, key):
    """Linear heads on the features themselves; numerators over the denominators of the whole batch."""
    pyramid = [features * weights["scale"][None, None, None] for features in batch["pyramid"]]
    sizes = tuple(features.shape[1:3] for features in pyramid)
    count = batch["boxes"].shape[0]

    def flat(channels):
        return [features[..., channels].reshape(count, -1, len(channels)) for features in pyramid]

    logits = [level[..., 0] for level in flat([0])]
    first, sampled, rois, truth, chosen = jax.vmap(
        lambda *parts: first_stage(*parts, sizes), in_axes=(0, 0, 0, 0, 0, 0)
    )(logits, flat([1, 2, 3, 4]), batch["size"], batch["boxes"], batch["box_valid"], row_keys(key, count))
    features = roi_align(pyramid, rois, strides=STRIDES, size=4, method="separable", chunk=8)
    pooled = features.mean(axis=(2, 3))
    own = jnp.take_along_axis(batch["boxes"], truth[..., None], axis=1)
    labels = jnp.where(chosen.positive, jnp.take_along_axis(batch["labels"], truth, axis=1), CLASSES)
    classes = losses.softmax_cross_entropy(pooled @ weights["classes"], labels)
    moved = boxes.decode(rois, pooled @ weights["boxes"], stds=STDS)
    shift = losses.giou(moved, own)
    target = jax.vmap(lambda *parts: masks.targets_from_crops(*parts, size=4))(
        batch["masks"], batch["boxes"], rois[:, :4], truth[:, :4]
    )
    logits = (features[:, :4] @ weights["masks"]).reshape(-1, 4, 4, CLASSES)
    mask = losses.mask_cross_entropy(logits, labels[:, :4].ravel(), target.reshape(-1, 4, 4))
    positive = chosen.positive[:, :4].ravel()
    return (
        jnp.sum(first) / jnp.maximum(jnp.sum(sampled), 1)
        + (losses.total(classes, chosen.valid) + losses.total(shift, chosen.positive))
        / jnp.maximum(jnp.sum(chosen.valid), 1)
        + losses.total(mask, positive) / jnp.maximum(jnp.sum(positive), 1)
    )


def batch_of(objects: int, padding: int) -> dict:
    rng = np.random.RandomState(0)
    corner = rng.uniform(0, 40, (2, objects, 2))
    truth = np.concatenate([corner, corner + rng.uniform(2, 24, (2, objects, 2))], axis=2)
    rows = ((0, 0), (0, padding))
    return {
        "pyramid": [jnp.asarray(rng.standard_normal((2, 64 // s, 64 // s, 5)), jnp.float32) for s in STRIDES],
        "size": jnp.array([[64, 64], [50, 60]]),
        "boxes": jnp.asarray(np.pad(truth, (*rows, (0, 0))), jnp.float32),
        "labels": jnp.asarray(np.pad(rng.randint(0, CLASSES, (2, objects)), rows), jnp.int32),
        "box_valid": jnp.asarray(np.pad(np.ones((2, objects), bool), rows)),
        "masks": jnp.asarray(np.pad(rng.rand(2, objects, 16, 16) < 0.7, (*rows, (0, 0), (0, 0)))),
    }


def weights() -> dict:
    rng = np.random.RandomState(1)
    shapes = {"scale": (5,), "classes": (5, CLASSES + 1), "boxes": (5, 4), "masks": (5, CLASSES)}
    return {
        name: jnp.asarray(rng.standard_normal(shape) * 0.3, jnp.float32) for name, shape in shapes.items()
    }


step = jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize("objects", [0, 1, 100])
def test_losses_and_gradients_are_finite_whatever_the_ground_truth(objects: int):
    value, gradient = step(weights(), batch_of(objects, 100 - objects), jax.random.key(0))
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["classes"]).max() > 0
    assert (np.abs(gradient["masks"]).max() > 0) == (objects > 0)


def test_what_stands_in_padded_rows_changes_nothing():
    batch, rng = batch_of(5, 95), np.random.RandomState(4)
    real = np.asarray(batch["box_valid"])
    other = {
        "boxes": np.sort(rng.uniform(0, 64, (2, 100, 2, 2)), axis=2).reshape(2, 100, 4).astype(np.float32),
        "labels": rng.randint(0, CLASSES, (2, 100)).astype(np.int32),
        "masks": rng.rand(2, 100, 16, 16) < 0.5,
    }
    for name, values in other.items():
        values[real] = np.asarray(batch[name])[real]
    one = step(weights(), batch, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, one, step(weights(), {**batch, **other}, jax.random.key(0)))


def test_a_larger_canvas_changes_no_assignment_sample_or_loss_of_the_first_stage():
    """The same features in the upper left corner, others around it."""
    batch, rng = batch_of(4, 2), np.random.RandomState(2)
    small = [np.asarray(features[0]) for features in batch["pyramid"]]
    large = [rng.standard_normal((96 // s, 128 // s, 5)).astype(np.float32) for s in STRIDES]
    for inner, outer in zip(small, large, strict=True):
        outer[: inner.shape[0], : inner.shape[1]] = inner

    @jax.jit
    def of(pyramid):
        logits = [features[..., 0].ravel() for features in pyramid]
        deltas = [features[..., 1:].reshape(-1, 4) for features in pyramid]
        sizes = tuple(features.shape[:2] for features in pyramid)
        picture = (batch["size"][0], batch["boxes"][0], batch["box_valid"][0], jax.random.key(3))
        return first_stage(logits, deltas, *picture, sizes)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), of(small), of(large))
