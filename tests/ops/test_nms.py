"""Suppression against OpenMMLab's results and the greedy algorithm in a loop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops.nms import nms, nms_keep, soft_nms

select = jax.jit(nms, static_argnames=("threshold", "most", "tile"))


def overlaps(boxes: np.ndarray) -> np.ndarray:
    """IoUs in f32, as the published loop computes them; 0 between empty boxes."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    sides = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(
        boxes[:, None, :2], boxes[None, :, :2]
    )
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    return shared / np.maximum(area[:, None] + area[None] - shared, np.float32(1e-6))


def greedy(boxes, scores, valid, threshold, groups) -> list[int]:
    matrix = overlaps(boxes)
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if valid[i] and not any(matrix[j, i] > threshold and groups[j] == groups[i] for j in kept):
            kept.append(int(i))
    return kept


def grid_boxes(rng: np.random.RandomState, count: int) -> np.ndarray:
    """Small integers: IoUs are exact ratios, many equal the threshold, some boxes are empty or the same."""
    corner = rng.randint(0, 12, (count, 2))
    return np.concatenate([corner, corner + rng.randint(0, 7, (count, 2))], axis=1).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_is_openmmlabs(golden, threshold: float):
    reference = golden("openmmlab_boxes")
    expected = reference[f"nms/random_iou{threshold}/keep"]
    found = select(
        reference["nms/random/boxes"],
        reference["nms/random/scores"],
        np.ones(120, bool),
        threshold=threshold,
        most=120,
        tile=32,
    )
    assert int(found.valid.sum()) == len(expected)
    np.testing.assert_array_equal(found.rows[: len(expected)], expected)


def as_set(boxes: np.ndarray, scores: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(np.round(row, 3).tolist()) for row in np.concatenate([boxes, scores[:, None]], axis=1)}


def test_nms_of_tied_pairs_is_openmmlabs(golden):
    reference = golden("openmmlab_boxes")
    boxes, scores = reference["nms/tied/boxes"], reference["nms/tied/scores"]
    found = select(boxes, scores, np.ones(60, bool), threshold=0.5, most=60)
    dets = reference["nms/tied_iou0.5/dets"]
    valid = np.asarray(found.valid)
    index = np.asarray(found.rows)[valid]
    assert as_set(boxes[index], np.asarray(found.scores)[valid]) == as_set(dets[:, :4], dets[:, 4])


def test_nms_of_groups_is_openmmlabs(golden):
    reference = golden("openmmlab_boxes")
    expected = reference["batched_nms/keep"]
    found = select(
        reference["batched_nms/boxes"],
        reference["batched_nms/scores"],
        np.ones(120, bool),
        threshold=0.5,
        most=120,
        groups=reference["batched_nms/ids"],
    )
    assert int(found.valid.sum()) == len(expected)
    np.testing.assert_array_equal(found.rows[: len(expected)], expected)


@pytest.mark.parametrize("tile", [16, 256])
def test_nms_is_the_greedy_algorithm(tile: int):
    """Random sets of 70 with equal scores, IoUs equal to the threshold, duplicates, empty boxes, padding, groups."""
    batched = jax.jit(jax.vmap(partial(nms, threshold=0.5, most=70, tile=tile)))
    sets = []
    for seed in range(100):
        rng = np.random.RandomState(seed)
        sets.append(
            (
                grid_boxes(rng, 70),
                (rng.randint(0, 9, 70) / 8).astype(np.float32),
                rng.rand(70) < 0.9,
                rng.randint(0, 1 + seed % 3, 70).astype(np.int32),
            )
        )
    boxes, scores, valid, groups = (np.stack(parts) for parts in zip(*sets, strict=True))
    found = batched(boxes, scores, valid, groups=groups)
    for number in range(100):
        expected = greedy(boxes[number], scores[number], valid[number], 0.5, groups[number])
        ours = np.asarray(found.rows[number])[np.asarray(found.valid[number])]
        assert ours.tolist() == expected


@pytest.mark.parametrize("tile", [8, 64])
def test_a_long_chain_of_suppressions(tile: int):
    """Each box suppresses the next alone: every second one stays, the worst case for a fix-point."""
    start = np.arange(100, dtype=np.float32)
    boxes = np.stack([start, np.zeros(100), start + 2.1, np.ones(100)], axis=1).astype(np.float32)
    keep = jax.jit(partial(nms_keep, threshold=0.3, tile=tile))(boxes, np.ones(100, bool))
    np.testing.assert_array_equal(keep, np.arange(100) % 2 == 0)


def test_identical_boxes_leave_the_first_of_the_best():
    boxes = np.tile(np.array([[0, 0, 5, 5]], np.float32), (40, 1))
    scores = np.full(40, 0.5, np.float32)
    scores[[7, 9]] = 0.75
    found = select(boxes, scores, np.ones(40, bool), threshold=0.5, most=3)
    np.testing.assert_array_equal(found.valid, [True, False, False])
    assert found.rows[0] == 7


def test_empty_boxes_suppress_nothing_and_no_box_gives_nothing():
    boxes = np.zeros((5, 4), np.float32)
    scores = np.linspace(0, 1, 5, dtype=np.float32)
    assert select(boxes, scores, np.ones(5, bool), threshold=0.5, most=5).valid.all()
    nothing = select(boxes, scores, np.zeros(5, bool), threshold=0.5, most=8)
    assert not nothing.valid.any()
    assert not np.asarray(nothing.scores).any()


def test_cutting_off_the_tail_leaves_the_head_alone():
    """Suppression runs from better to worse: the first 60 decide among themselves."""
    rng = np.random.RandomState(4)
    boxes = grid_boxes(rng, 100)
    keep = jax.jit(partial(nms_keep, threshold=0.5, tile=16))
    whole, head = keep(boxes, np.ones(100, bool)), keep(boxes[:60], np.ones(60, bool))
    np.testing.assert_array_equal(whole[:60], head)


def soft(method: str, **options):
    return jax.jit(partial(soft_nms, method=method, threshold=0.3, sigma=0.5, least_score=1e-3, **options))


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_nms_is_openmmlabs(golden, method: str):
    reference = golden("openmmlab_boxes")
    dets, index = reference[f"soft_nms/{method}/dets"], reference[f"soft_nms/{method}/inds"]
    boxes, scores = reference["nms/random/boxes"], reference["nms/random/scores"]
    found = soft(method, most=120)(boxes, scores, np.ones(120, bool))
    count = len(index)
    assert int(found.valid.sum()) == count
    np.testing.assert_array_equal(found.rows[:count], index)
    np.testing.assert_allclose(found.scores[:count], dets[:, 4], atol=1e-6)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_nms_of_tied_pairs_is_openmmlabs(golden, method: str):
    reference = golden("openmmlab_boxes")
    dets = reference[f"soft_nms/tied_{method}/dets"]
    boxes, scores = reference["nms/tied/boxes"], reference["nms/tied/scores"]
    found = soft(method, most=60)(boxes, scores, np.ones(60, bool))
    valid = np.asarray(found.valid)
    ours = as_set(boxes[np.asarray(found.rows)[valid]], np.asarray(found.scores)[valid])
    assert ours == as_set(dets[:, :4], dets[:, 4])


def test_soft_nms_leaves_other_groups_alone():
    boxes = np.tile(np.array([[0, 0, 4, 4]], np.float32), (3, 1))
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    found = soft("gaussian", most=3)(boxes, scores, np.ones(3, bool), groups=np.array([0, 1, 0], np.int32))
    np.testing.assert_array_equal(found.rows, [0, 1, 2])
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7 * np.exp(-2)], rtol=1e-6)


def test_another_method_of_soft_nms_is_refused():
    with pytest.raises(ValueError, match="soft-NMS is linear or gaussian, got 'hard'"):
        soft_nms(jnp.zeros((1, 4)), jnp.zeros(1), jnp.ones(1, bool), most=1, method="hard")
