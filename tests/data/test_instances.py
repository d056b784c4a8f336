"""Objects of a picture: geometry moves boxes and outlines together."""

import pickle

import numpy as np
import pytest
from pycocotools import mask as coco_masks

from swin_jax.data.instances import Instances, bitmap, runs_of

HEIGHT, WIDTH = 60, 80


def ring(*corners: float) -> np.ndarray:
    return np.array(corners, np.float32).reshape(-1, 2)


TRIANGLE = (ring(10, 10, 40, 12, 22, 50),)
TWO_PARTS = (ring(45, 5, 60, 5, 60, 20, 45, 20), ring(60, 30, 78, 34, 70, 55))


def objects(*, runs: bool = False) -> Instances:
    outlines: tuple = (TRIANGLE, TWO_PARTS)
    bitmaps = [bitmap(outline, HEIGHT, WIDTH) for outline in outlines]
    boxes = np.array([[10, 10, 40, 50], [45, 5, 78, 55]], np.float32)
    return Instances(
        boxes=boxes,
        labels=np.array([1, 0]),
        areas=np.array([mask.sum() for mask in bitmaps], np.float32),
        crowd=np.array([False, False]),
        ids=np.array([7, 8]),
        outlines=tuple(runs_of(mask) for mask in bitmaps) if runs else outlines,
    )


def pasted(found: Instances, row: int, height: int, width: int, size: int = 224) -> np.ndarray:
    """An object's crop, read at the pixel centres of a picture."""
    crop, (x1, y1, x2, y2) = found.mask_crops(size)[row], found.boxes[row]
    columns = np.floor((np.arange(width) + 0.5 - x1) / (x2 - x1) * size).astype(int)
    rows = np.floor((np.arange(height) + 0.5 - y1) / (y2 - y1) * size).astype(int)
    inside = ((rows >= 0) & (rows < size))[:, None] & ((columns >= 0) & (columns < size))[None]
    return inside & crop[np.clip(rows, 0, size - 1)][:, np.clip(columns, 0, size - 1)]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("runs", [False, True], ids=["polygons", "run lengths"])
@pytest.mark.parametrize("row", [0, 1])
def test_geometry_of_outlines_is_that_of_bitmaps(row: int, runs: bool):
    """Doubled, cut and mirrored: as if the bitmap had been. Polygons keep what a bitmap loses."""
    found, outline = objects(runs=runs), (TRIANGLE, TWO_PARTS)[row]
    mask = np.repeat(np.repeat(bitmap(outline, HEIGHT, WIDTH), 2, 0), 2, 1)
    if not runs:
        mask = bitmap(tuple(2 * part for part in outline), 2 * HEIGHT, 2 * WIDTH)
    moved = found.scaled(2, 2).cropped(30, 16, 90, 110)
    assert iou(pasted(moved, row, 90, 110), mask[16:106, 30:140]) > 0.97
    mirrored = moved.mirrored(110)
    assert iou(pasted(mirrored, row, 90, 110), mask[16:106, 30:140][:, ::-1]) > 0.97
    again = mirrored.mirrored(110)
    np.testing.assert_allclose(again.boxes, moved.boxes, atol=1e-4)
    np.testing.assert_array_equal(again.mask_crops(28), moved.mask_crops(28))


def test_a_box_shaped_object_fills_its_crop():
    square = (ring(3.25, 4.5, 17.75, 4.5, 17.75, 30.5, 3.25, 30.5),)
    found = Instances(
        boxes=np.array([[3.25, 4.5, 17.75, 30.5]], np.float32),
        labels=np.zeros(1, np.int64),
        areas=np.ones(1, np.float32),
        crowd=np.zeros(1, bool),
        ids=np.ones(1, np.int64),
        outlines=(square,),
    )
    assert found.mask_crops(112).all()
    half = found.cropped(0, 0, 60, 10.5)
    assert half.mask_crops(112).all()  # the cut box is full, too
    np.testing.assert_allclose(half.boxes, [[3.25, 4.5, 10.5, 30.5]])


def test_who_has_nothing_in_the_crop_is_left_out():
    left = objects().cropped(0, 0, 60, 45)
    assert left.ids.tolist() == [7]
    assert left.outlines is not None
    assert len(left.outlines) == 1
    nothing = objects().cropped(0, 56, 4, 20)
    assert len(nothing) == 0
    assert nothing.mask_crops(28).shape == (0, 28, 28)


def test_taking_some_keeps_rows_together():
    found = objects().take(np.array([False, True]))
    assert (found.labels.tolist(), found.ids.tolist()) == ([0], [8])
    assert found.outlines == (TWO_PARTS,)


def test_boxes_without_outlines_have_no_masks():
    import dataclasses

    bare = dataclasses.replace(objects(), outlines=None)
    assert bare.scaled(2, 2).cropped(0, 0, 50, 50).outlines is None
    with pytest.raises(ValueError, match="these data have boxes and no masks"):
        bare.mask_crops(28)


def test_bitmaps_are_those_of_the_coco_tools():
    rings = [part.ravel().tolist() for part in TWO_PARTS]
    theirs = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(rings, HEIGHT, WIDTH)))
    np.testing.assert_array_equal(bitmap(TWO_PARTS, HEIGHT, WIDTH), theirs)
    np.testing.assert_array_equal(bitmap(runs_of(theirs.astype(bool)), HEIGHT, WIDTH), theirs)


def test_they_travel_into_workers():
    found = pickle.loads(pickle.dumps(objects(runs=True)))
    np.testing.assert_array_equal(found.mask_crops(28), objects(runs=True).mask_crops(28))
