"""Proposals and detections against what OpenMMLab's Mask R-CNN selected from the same outputs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import anchors, boxes
from swin_jax.ops.selection import detect, propose

SIZES = ((48, 64), (24, 32), (12, 16), (6, 8), (3, 4))
STRIDES = (4, 8, 16, 32, 64)


def level_rows(reference: dict[str, np.ndarray], output: int, width: int) -> list[np.ndarray]:
    """One output of the region proposal network, `[rows * columns * 3, width]` per level."""
    levels = [reference[f"mask_rcnn/test/rpn_head/{output}/{level}"] for level in range(5)]
    return [level.transpose(1, 2, 0).reshape(-1, width) for level in levels]


@pytest.mark.parametrize("padding", [0, 30], ids=["exact", "more_rows"])
def test_proposals_are_openmmlabs(golden, padding: int):
    reference = golden("openmmlab_selection")
    picture = jnp.array([176, 240])  # on a canvas of 192 x 256

    @jax.jit
    def of(logits, deltas):
        return propose(
            logits,
            deltas,
            anchors.pyramid_anchors(SIZES, STRIDES, scales=(8,), ratios=(0.5, 1.0, 2.0)),
            anchors.valid_cells(SIZES, STRIDES, picture, per_cell=3),
            picture,
            per_level=200,
            most=100 + padding,
        )

    logits = [level[:, 0] for level in level_rows(reference, 0, 1)]
    found = of(logits, level_rows(reference, 1, 4))
    assert found.valid[:100].all()
    np.testing.assert_allclose(
        found.scores[:100], reference["mask_rcnn/test/proposals/img1/scores"], atol=1e-6
    )
    np.testing.assert_allclose(found.boxes[:100], reference["mask_rcnn/test/proposals/img1/boxes"], atol=1e-3)


def test_a_pyramid_with_few_boxes_leaves_rows_empty():
    """One anchor is decoded out of the picture and so has no width, another takes no part."""
    level = jnp.array([[0.0, 0, 10, 10], [-40, 0, -20, 10], [20, 20, 30, 30], [0, 0, 9, 10]])
    found = jax.jit(partial(propose, per_level=6, most=5))(
        [jnp.array([1.0, 3.0, 2.0, 0.5])],
        [jnp.zeros((4, 4))],
        [level],
        [jnp.array([True, True, False, True])],
        jnp.array([50, 50]),
    )
    np.testing.assert_array_equal(found.valid, [True] + [False] * 4)
    np.testing.assert_array_equal(found.boxes[0], [0, 0, 10, 10])
    assert not np.asarray(found.boxes[1:]).any()


DETECTIONS = {
    "det": {"least_score": 0.05, "threshold": 0.5, "most": 40},
    "det_score_thr_0.7": {"least_score": 0.7, "threshold": 0.5, "most": 100},
    "det_soft_nms": {
        "least_score": 0.05,
        "threshold": 0.5,
        "most": 60,
        "soft": "linear",
        "least_soft_score": 0.05,
    },
}


@pytest.mark.parametrize("name", DETECTIONS)
def test_detections_are_openmmlabs(golden, name: str):
    reference = golden("openmmlab_selection")

    @jax.jit
    @jax.vmap
    def of(rois, logits, deltas, size, factor):
        found = boxes.decode(rois[:, None], deltas.reshape(-1, 5, 4), stds=(0.1, 0.1, 0.2, 0.2))
        found = boxes.clip(found, size) / factor
        scores = jax.nn.softmax(logits)[:, :5]
        return detect(found, scores, jnp.ones(rois.shape[0], bool), **DETECTIONS[name])

    rois = reference["mask_rcnn/test/bbox_roi_extractor/rois"].reshape(2, 100, 5)[:, :, 1:]
    logits, deltas = (reference[f"mask_rcnn/test/bbox_head/{i}"].reshape(2, 100, -1) for i in (0, 1))
    found = of(rois, logits, deltas, np.array([[192, 256], [176, 240]]), np.array([1.28, 1.0], np.float32))
    assert found.complete.all()
    for picture in (0, 1):
        theirs = {
            part: reference[f"mask_rcnn/test/{name}/img{picture}/{part}"]
            for part in ("boxes", "scores", "labels")
        }
        count = len(theirs["labels"])
        assert int(found.valid[picture].sum()) == count
        np.testing.assert_array_equal(found.labels[picture, :count], theirs["labels"])
        np.testing.assert_allclose(found.scores[picture, :count], theirs["scores"], atol=2e-6)
        np.testing.assert_allclose(found.boxes[picture, :count], theirs["boxes"], atol=1e-3)


@pytest.mark.parametrize("soft", [None, "linear"])
def test_multiclass_selection_is_openmmlabs(golden, soft: str | None):
    reference = golden("openmmlab_boxes")
    name = "multiclass_soft_nms" if soft else "multiclass_nms"
    found = jax.jit(
        partial(detect, least_score=0.05, threshold=0.5, most=30, soft=soft, least_soft_score=0.05)
    )(
        reference["multiclass_nms/boxes"].reshape(60, 5, 4),
        reference["multiclass_nms/scores"][:, :5],
        np.ones(60, bool),
    )
    dets = reference[f"{name}/dets"]
    assert found.valid.all()
    np.testing.assert_array_equal(found.labels, reference[f"{name}/labels"])
    np.testing.assert_array_equal(found.row, reference[f"{name}/inds"] // 5)
    np.testing.assert_allclose(found.boxes, dets[:, :4], atol=1e-4)
    np.testing.assert_allclose(found.scores, dets[:, 4], atol=1e-6)


def test_too_few_candidates_are_reported():
    """Ten boxes on one spot and one elsewhere: among the best eight only one survives, the second is not seen."""
    spot = np.tile(np.array([[0, 0, 5, 5]], np.float32), (11, 1))
    spot[10] += 20
    scores = np.linspace(0.9, 0.5, 11, dtype=np.float32)[:, None]
    of = jax.jit(partial(detect, least_score=0.05, threshold=0.5, most=2), static_argnames="candidates")
    few = of(spot[:, None], scores, np.ones(11, bool), candidates=8)
    assert not few.complete
    assert few.valid.sum() == 1
    enough = of(spot[:, None], scores, np.ones(11, bool), candidates=11)
    assert enough.complete
    np.testing.assert_array_equal(enough.row, [0, 10])


def test_boxes_shared_by_all_classes_and_rows_without_a_box():
    shared = np.array([[[0, 0, 10, 10]], [[0, 0, 10, 9]], [[50, 50, 60, 60]]], np.float32)
    scores = np.array([[0.9, 0.3], [0.8, 0.6], [0.95, 0.95]], np.float32)
    found = jax.jit(partial(detect, least_score=0.05, threshold=0.5, most=4))(
        shared, scores, np.array([True, True, False])
    )
    np.testing.assert_array_equal(found.valid, [True, True, False, False])
    np.testing.assert_array_equal(found.labels[:2], [0, 1])
    np.testing.assert_array_equal(found.row[:2], [0, 1])
