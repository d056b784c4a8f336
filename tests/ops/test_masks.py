"""Mask targets against mmdet's, closed forms, and each other: crops of boxes against bitmaps of pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops.masks import targets_from_bitmaps, targets_from_crops

from_bitmaps = jax.jit(targets_from_bitmaps)
from_crops = jax.jit(targets_from_crops, static_argnames="size")


def test_targets_from_bitmaps_are_openmmlabs(golden):
    reference = golden("openmmlab_rois")
    bitmaps = np.unpackbits(reference["mask_target/masks"])[: 4 * 96 * 128].reshape(4, 96, 128)
    expected = np.unpackbits(reference["mask_target/target_28"])[: 16 * 28 * 28].reshape(16, 28, 28)
    found = from_bitmaps(bitmaps, reference["mask_target/boxes"], reference["mask_target/gt_index"])
    differing = np.argwhere(np.asarray(found) != expected)
    # Two averages are exactly a half but for the rounding of their sum: .50000095 there.
    assert {tuple(place) for place in differing} <= {
        tuple(place) for place in reference["mask_target/at_threshold"]
    }
    assert len(reference["mask_target/at_threshold"]) == 2


def test_a_box_full_of_its_instance_is_all_ones_and_half_of_it_half():
    crops = np.ones((2, 112, 112), bool)
    crops[1, :, 56:] = False
    box = np.array([[10, 20, 50.3, 90.9], [10, 20, 50.3, 90.9]], np.float32)
    found = np.asarray(from_crops(crops, box, box, np.array([0, 1], np.int32)))
    assert found[0].all()
    assert found[1, :, :14].all()
    assert not found[1, :, 14:].any()


def test_outside_of_its_box_an_instance_is_nothing():
    truth = np.array([[20, 20, 40, 40]], np.float32)
    boxes = np.array([[10, 20, 50, 40], [60, 60, 70, 70]], np.float32)
    found = np.asarray(from_crops(np.ones((1, 112, 112), bool), truth, boxes, np.array([0, 0], np.int32)))
    # The middle half of the first box, up to the bin on each side that is cut in half.
    np.testing.assert_array_equal(found[0, 14, [5, 6, 7, 20, 21, 22]], [0, 0, 1, 1, 0, 0])
    assert not found[1].any()


def test_padded_instances_give_finite_nothing():
    zero = np.zeros((1, 4), np.float32)
    found = from_crops(np.zeros((1, 112, 112), bool), zero, zero, np.array([0], np.int32))
    assert not np.asarray(found).any()


def blob(y: np.ndarray, x: np.ndarray, seed: int) -> np.ndarray:
    """A star-shaped instance on the square (0, 1)^2, known at any point."""
    rng = np.random.RandomState(seed)
    angle, radius = np.arctan2(y - 0.5, x - 0.5), np.hypot(y - 0.5, x - 0.5)
    edge = 0.36 + sum(rng.uniform(-0.04, 0.04) * np.sin(k * angle + rng.uniform(0, 6)) for k in (1, 2, 3, 5))
    return radius < edge


@pytest.mark.parametrize(("low", "high", "least"), [(64, 180, 0.985), (24, 64, 0.95)])
def test_crops_of_112_cells_give_the_targets_of_bitmaps(low: int, high: int, least: float):
    """Instances of `low` to `high` pixels, boxes moved by 8%: mean IoU of the targets. What is left is mostly the
    bitmap's own rasterisation, finer than a bin of the target only for large instances."""
    rng = np.random.RandomState(0)
    count = 12
    side = rng.uniform(low, high, (count, 2))
    corner = rng.uniform(4, 250 - side)
    truth_boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    jitter = (rng.uniform(-0.08, 0.08, (count, 4)) * np.tile(side, 2)).astype(np.float32)
    boxes = np.clip(truth_boxes + jitter, 0, 256)
    pixel, cell = np.arange(256) + 0.5, (np.arange(112) + 0.5) / 112
    bitmaps, crops = np.zeros((count, 256, 256), bool), np.zeros((count, 112, 112), bool)
    for k, (x1, y1, x2, y2) in enumerate(truth_boxes):
        bitmaps[k] = blob(((pixel - y1) / (y2 - y1))[:, None], ((pixel - x1) / (x2 - x1))[None], k)
        crops[k] = blob(cell[:, None], cell[None], k)
    truth = np.arange(count, dtype=np.int32)
    whole = np.asarray(from_bitmaps(bitmaps, boxes, truth))
    cropped = np.asarray(from_crops(crops, truth_boxes, boxes, truth))
    shared, either = (whole & cropped).sum((1, 2)), (whole | cropped).sum((1, 2))
    assert (shared / either).mean() >= least


def test_targets_read_the_assigned_instance():
    crops = np.stack([np.zeros((56, 56), bool), np.ones((56, 56), bool)])
    boxes = np.tile(np.array([[0, 0, 30, 30]], np.float32), (2, 1))
    found = from_crops(crops, boxes, boxes, np.array([1, 0], np.int32), size=14)
    assert found[0].all()
    assert not np.asarray(found[1]).any()


def test_targets_are_made_under_vmap():
    crops = jnp.ones((3, 2, 28, 28), bool)
    boxes = jnp.tile(jnp.array([0.0, 0, 9, 9]), (3, 2, 1))
    truth = jnp.zeros((3, 2), jnp.int32)
    assert jax.jit(jax.vmap(targets_from_crops))(crops, boxes, boxes, truth).all()
