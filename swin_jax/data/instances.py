"""The objects of one picture: boxes, classes, outlines, and what geometry makes of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as pycocotools_mask

coco_masks: Any = pycocotools_mask  # its stubs know fewer types than it takes
Polygons = tuple[np.ndarray, ...]
"""Rings around the parts of an object, float32 [corners, 2] of (x, y) in pixels; pixel i covers [i, i + 1)."""
Runs = Mapping[str, Any]
"""A compressed run-length mask of the whole picture as pycocotools has it: `size` (height, width), `counts` bytes."""
Outline = Polygons | Runs
Real = float | int

LEAST_SIDE = 1.0
"""Boxes of smaller width or height in the original picture are no objects (the published filter)."""


@dataclasses.dataclass(frozen=True)
class Instances:
    """N objects. Boxes have been through all geometry, outlines are as annotated until somebody looks at them.

    Attributes:
      boxes: float32 [N, 4], (x1, y1, x2, y2) in pixels.
      labels: int64 [N], class numbers from 0.
      areas: float32 [N], in pixels of the original picture, as annotated.
      crowd: bool [N], regions of many objects that are not told apart.
      ids: int64 [N], of the annotations.
      outlines: N of them in pixels of the original picture, or None where the data have boxes alone.
      scale, shift: (x, y): an outline's coordinates times scale plus shift are where it is now.
    """

    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ids: np.ndarray
    outlines: tuple[Outline, ...] | None = None
    scale: tuple[Real, Real] = (1.0, 1.0)
    shift: tuple[Real, Real] = (0.0, 0.0)

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, chosen: np.ndarray) -> "Instances":
        """Some of them, by index or mask."""
        indices = np.arange(len(self))[chosen]
        outlines = None if self.outlines is None else tuple(self.outlines[index] for index in indices)
        arrays = {name: getattr(self, name)[indices] for name in ("boxes", "labels", "areas", "crowd", "ids")}
        return dataclasses.replace(self, **arrays, outlines=outlines)

    def scaled(self, x: Real, y: Real) -> "Instances":
        """In a picture resized by these factors."""
        factors = np.array([x, y, x, y], np.float32)
        return dataclasses.replace(
            self,
            boxes=self.boxes * factors,
            scale=(self.scale[0] * x, self.scale[1] * y),
            shift=(self.shift[0] * x, self.shift[1] * y),
        )

    def mirrored(self, width: Real) -> "Instances":
        """In a picture of `width` pixels turned left to right."""
        boxes = self.boxes.copy()
        boxes[:, [0, 2]] = width - self.boxes[:, [2, 0]]
        return dataclasses.replace(
            self,
            boxes=boxes,
            scale=(-self.scale[0], self.scale[1]),
            shift=(width - self.shift[0], self.shift[1]),
        )

    def cropped(self, left: Real, top: Real, height: Real, width: Real) -> "Instances":
        """In a part of the picture: boxes are cut to it, and who has nothing in it is left out.

        The box that remains is the cut one, as published, not the tight box of what is seen of the object.
        """
        moved = self.boxes - np.array([left, top, left, top], np.float32)
        limits = np.array([width, height, width, height], np.float32)
        boxes = np.clip(moved, 0, limits)
        seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        shift = (self.shift[0] - left, self.shift[1] - top)
        return dataclasses.replace(self, boxes=boxes, shift=shift).take(seen)

    def mask_crops(self, size: int) -> np.ndarray:
        """What each object covers of its box, bool [N, size, size]: the box divided into size x size cells.

        Raises:
          ValueError: there are no outlines.
        """
        if self.outlines is None:
            raise ValueError("these data have boxes and no masks")
        crops = np.zeros((len(self), size, size), bool)
        for index, outline in enumerate(self.outlines):
            crops[index] = self._crop(outline, self.boxes[index].astype(np.float64), size)
        return crops

    def _crop(self, outline: Outline, box: np.ndarray, size: int) -> np.ndarray:
        """A cell's place u is (x - x1) / (x2 - x1) * size of the box, and x = scale * annotated + shift."""
        cells = size / np.maximum(box[2:] - box[:2], 1e-6)
        factor, offset = np.array(self.scale) * cells, (np.array(self.shift) - box[:2]) * cells
        if isinstance(outline, Mapping):
            mask = coco_masks.decode(outline).astype(bool)
            # Every cell reads the pixel that its middle lies in.
            middles = (np.arange(size)[:, None] + 0.5 - offset) / factor
            columns, rows = np.floor(middles).astype(np.int64).T
            inside = _within(rows, mask.shape[0])[:, None] & _within(columns, mask.shape[1])[None]
            return inside & mask[rows.clip(0, mask.shape[0] - 1)][:, columns.clip(0, mask.shape[1] - 1)]
        rings = [(ring.astype(np.float64) * factor + offset).ravel().tolist() for ring in outline]
        return rasterised(rings, size, size)


def _within(places: np.ndarray, length: int) -> np.ndarray:
    return (places >= 0) & (places < length)


def rasterised(rings: list[list[float]], height: int, width: int) -> np.ndarray:
    """The pixels in any of the polygons (x, y, x, y, ...), bool [height, width], as the COCO tools count them."""
    if not rings:
        return np.zeros((height, width), bool)
    return coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(rings, height, width))).astype(bool)


def bitmap(outline: Outline, height: int, width: int) -> np.ndarray:
    """An annotated outline in its picture, bool [height, width]."""
    if isinstance(outline, Mapping):
        return coco_masks.decode(outline).astype(bool)
    return rasterised([ring.ravel().tolist() for ring in outline], height, width)


def runs_of(mask: np.ndarray) -> Runs:
    """A bitmap as run lengths."""
    return coco_masks.encode(np.asfortranarray(mask, np.uint8))
