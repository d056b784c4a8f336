"""Max-IoU assignment against OpenMMLab's results, a loop over boxes, and cases made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import anchors
from swin_jax.ops.assign import Assignment, max_iou
from swin_jax.ops.boxes import pairwise_iou

assign = jax.jit(max_iou, static_argnames=("positive_iou", "negative_iou", "low_quality_iou", "ignore_iof"))
all_overlaps = jax.jit(pairwise_iou)
RPN = {"positive_iou": 0.7, "negative_iou": 0.3, "low_quality_iou": 0.3}
RCNN = {"positive_iou": 0.5, "negative_iou": 0.5, "low_quality_iou": 0.5}
CASCADE = {"positive_iou": 0.6, "negative_iou": 0.6, "low_quality_iou": None}


def numbers(found: Assignment) -> np.ndarray:
    """0 negative, -1 no part, k + 1 ground truth k: as OpenMMLab writes it."""
    return np.where(found.positive, found.truth + 1, np.where(found.negative, 0, -1))


def naive(candidates, boxes, *, positive_iou, negative_iou, low_quality_iou, usable=None) -> np.ndarray:
    """Candidate by candidate, then box by box, on the IoUs of the code under test."""
    overlaps = np.asarray(all_overlaps(boxes, candidates))
    usable = np.ones(len(candidates), bool) if usable is None else usable
    result = np.full(len(candidates), -1)
    for i in np.flatnonzero(usable):
        best = overlaps[:, i].max() if len(boxes) else 0.0
        if best >= positive_iou:
            result[i] = int(np.flatnonzero(overlaps[:, i] == best)[0]) + 1
        elif best < negative_iou:
            result[i] = 0
    if low_quality_iou is not None and usable.any():
        for k in range(len(boxes)):
            best = overlaps[k, usable].max()
            if best >= low_quality_iou:
                result[usable & (overlaps[k] == best)] = k + 1
    return result


def without_ties(candidates, boxes) -> np.ndarray:
    """Candidates that share no box's best IoU with another one.

    11 of the 756 stored anchors do, equal in real numbers. Whether their IoUs are equal in f32 as well, and so whether
    the low-quality rule takes all of them, depends on which products a compiler fuses with sums: the stored ones
    themselves differ by a unit in the last place for one box. Ties that f32 represents are tested below.
    """
    overlaps = np.asarray(all_overlaps(boxes, candidates), np.float64)
    near = (overlaps.max(axis=1, keepdims=True) - overlaps < 1e-6) & (overlaps > 0.25)
    clear = ~(near & (near.sum(axis=1, keepdims=True) > 1)).any(axis=0)
    assert (~clear).sum() == 11
    return clear


@pytest.mark.parametrize(("name", "rule"), [("rpn", RPN), ("rcnn", RCNN), ("cascade0.6", CASCADE)])
def test_assignment_is_openmmlabs(golden, name: str, rule: dict):
    reference = golden("openmmlab_boxes")
    boxes = reference["assign/gt_boxes"]
    padded = np.concatenate([boxes, np.zeros((4, 4), np.float32), boxes[:2]])
    valid = np.arange(len(padded)) < len(boxes)
    found = assign(reference["assign/priors"], padded, valid, **rule)
    clear = without_ties(reference["assign/priors"], boxes)
    np.testing.assert_array_equal(numbers(found)[clear], reference[f"assign/{name}/gt_inds"][clear])
    np.testing.assert_allclose(found.overlap, reference[f"assign/{name}/max_overlaps"], atol=1e-6)


def test_candidates_in_ignored_regions_are_openmmlabs(golden):
    reference = golden("openmmlab_boxes")
    regions = np.concatenate([reference["assign/ignore_boxes"], [[0, 0, 256, 192]]]).astype(np.float32)
    boxes = reference["assign/gt_boxes"]
    ignore = (jnp.asarray(regions), jnp.array([True, False]))
    found = assign(reference["assign/priors"], boxes, np.ones(len(boxes), bool), ignore=ignore, **RPN)
    expected = reference["assign/rpn_with_ignore/gt_inds"]
    clear = without_ties(reference["assign/priors"], boxes)
    np.testing.assert_array_equal(numbers(found)[clear], expected[clear])
    assert (expected == -1).sum() > 50


@pytest.mark.parametrize("model", ["mask_rcnn", "cascade_mask_rcnn"])
@pytest.mark.parametrize("picture", [0, 1])
def test_anchors_of_a_picture_are_assigned_as_in_openmmlabs_training(golden, model: str, picture: int):
    reference = golden("openmmlab_selection")
    size, sizes, strides = (
        jnp.array([(192, 256), (176, 240)][picture]),
        ((48, 64), (24, 32), (12, 16), (6, 8), (3, 4)),
        (4, 8, 16, 32, 64),
    )
    boxes = reference[f"{model}/train/gt/img{picture}/boxes"]

    @jax.jit
    def of(boxes):
        all_anchors = jnp.concatenate(
            anchors.pyramid_anchors(sizes, strides, scales=(8,), ratios=(0.5, 1.0, 2.0))
        )
        usable = jnp.concatenate(anchors.valid_cells(sizes, strides, size, per_cell=3))
        if model == "cascade_mask_rcnn":
            usable &= anchors.inside(all_anchors, size)
        return usable, max_iou(all_anchors, boxes, jnp.ones(len(boxes), bool), candidate_valid=usable, **RPN)

    usable, found = of(boxes)
    # Their indices count the anchors that take part.
    place = np.cumsum(usable) - 1
    theirs = f"{model}/train/sampling/rpn/call0/img{picture}"
    positive = np.flatnonzero(found.positive)
    np.testing.assert_array_equal(place[positive], reference[f"{theirs}/pos_inds"])
    np.testing.assert_array_equal(found.truth[positive], reference[f"{theirs}/pos_assigned_gt_inds"])
    assert int(found.negative.sum()) == reference[f"{theirs}/num_neg"]


@pytest.mark.parametrize(("model", "low_quality"), [("mask_rcnn", 0.5), ("cascade_mask_rcnn", None)])
@pytest.mark.parametrize("picture", [0, 1])
def test_proposals_are_assigned_as_in_openmmlabs_training(golden, model: str, low_quality, picture: int):
    reference = golden("openmmlab_selection")
    boxes = reference[f"{model}/train/gt/img{picture}/boxes"]
    candidates = np.concatenate([boxes, reference[f"{model}/train/proposals/img{picture}/boxes"]])
    rule = {"positive_iou": 0.5, "negative_iou": 0.5, "low_quality_iou": low_quality}
    found = assign(candidates, boxes, np.ones(len(boxes), bool), **rule)
    theirs = f"{model}/train/sampling/stage0/call0/img{picture}"
    positive = np.flatnonzero(found.positive)
    np.testing.assert_array_equal(positive, reference[f"{theirs}/pos_inds"])
    np.testing.assert_array_equal(found.truth[positive], reference[f"{theirs}/pos_assigned_gt_inds"])
    assert int(found.negative.sum()) == reference[f"{theirs}/num_neg"]


@pytest.mark.parametrize("rule", [RPN, RCNN, CASCADE], ids=["rpn", "rcnn", "cascade"])
def test_assignment_of_tied_boxes_is_that_of_a_loop(rule: dict):
    """Boxes on a coarse grid: many equal IoUs, duplicates among ground truth, empty ones."""
    for seed in range(20):
        rng = np.random.RandomState(seed)
        corner = rng.randint(0, 6, (60, 2))
        candidates = np.concatenate([corner, corner + rng.randint(0, 5, (60, 2))], axis=1).astype(np.float32)
        boxes = candidates[rng.randint(0, 60, 7)]
        usable = rng.rand(60) < 0.8
        valid = rng.rand(7) < 0.7
        found = assign(candidates, boxes, valid, candidate_valid=usable, **rule)
        # The loop sees valid boxes alone; `kept` leads back to the padded ones.
        kept = np.concatenate([[-1, 0], np.flatnonzero(valid) + 1])
        expected = kept[naive(candidates, boxes[valid], usable=usable, **rule) + 1]
        np.testing.assert_array_equal(numbers(found), expected)


def test_two_boxes_whose_best_anchor_is_the_same_leave_it_to_the_last():
    candidates = jnp.array([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    boxes = jnp.array([[0.0, 0, 10, 9], [0, 0, 10, 5], [0, 0, 10, 2]])
    found = assign(candidates, boxes, jnp.ones(3, bool), **RPN)
    # The first has IoU .9, the second .5, the third .2, too little for the rule.
    np.testing.assert_array_equal(numbers(found), [2, 0])
    without = assign(candidates, boxes, jnp.ones(3, bool), **{**RPN, "low_quality_iou": None})
    np.testing.assert_array_equal(numbers(without), [1, 0])


def test_a_candidate_between_the_thresholds_takes_no_part():
    found = assign(
        jnp.array([[0.0, 0, 10, 5], [0, 0, 10, 10]]), jnp.array([[0.0, 0, 10, 10]]), jnp.array([True]), **RPN
    )
    np.testing.assert_array_equal(numbers(found), [-1, 1])


def test_without_ground_truth_all_that_takes_part_is_negative():
    found = assign(
        jnp.zeros((3, 4)), jnp.zeros((2, 4)), jnp.zeros(2, bool), candidate_valid=jnp.arange(3) < 2, **RPN
    )
    np.testing.assert_array_equal(numbers(found), [0, 0, -1])
