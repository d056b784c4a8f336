"""InstaBoost (Fang et al., 2019): objects moved a little, turned and resized within their own picture.

The random variant without appearance maps, with the ranges of the authors' `instaboostfast` that detectors are trained
with: objects whose boxes overlap, directly or through others, are cut out by their masks and move as one, so that who
hides whom stays as annotated; behind them the picture is painted over from its surroundings. A group within 10 pixels
of the picture's edge grows and moves outwards only and is not turned, or else the side at which the edge cuts it would
show within the picture. Groups are pasted in the order of their first objects; where one comes to lie over another, the
masks of both stay whole. Colours are jittered in the whole picture.

Unlike there, shifts and angles are any numbers of their ranges and not whole pixels and degrees, pixels are
interpolated linearly and not by splines, a moved mask is where the object covers half of a pixel or more, and the
background is painted at a lower resolution, in less than a tenth of the time. A group of which an object would keep no
pixel stays in its place, where the authors lose the object.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageEnhance

from swin_jax.data.instances import Instances, Outline, Runs, bitmap, runs_of

EDGE = 10
"""Pixels from the edge of the picture within which an object counts as cut by it."""
PAINTED_SIDE = 128
"""Pixels of the longer side at which the background is painted."""
PAINTED_RADIUS = 3
STILL = np.eye(2, 3)
OPAQUE = 255
COLOURS = (
    (ImageEnhance.Color, 0, 30),
    (ImageEnhance.Brightness, 10, 20),
    (ImageEnhance.Contrast, 10, 20),
    (ImageEnhance.Sharpness, 0, 30),
)
"""What of the colours is multiplied, in this order, and by how many tenths, least and most."""


class Cutout(NamedTuple):
    """The pixels of an object, or of a group of them.

    Attributes:
      box: (left, top, right, bottom) around them, int64 [4].
      mask: within the box, bool [bottom - top, right - left].
    """

    box: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class InstaBoost:
    """The distribution of what is done to a picture.

    Attributes:
      probability: that anything is.
      scale: range of the factor on an object's size.
      translation: by how much of its width and height it moves at most.
      rotation: by how many degrees it is turned at most.
      color_probability: of jittered colours, in a picture to which anything is done.
    """

    probability: float = 0.5
    scale: tuple[float, float] = (0.8, 1.2)
    translation: float = 1 / 15
    rotation: float = 1.0
    color_probability: float = 0.5

    def __post_init__(self) -> None:
        for field, value in (
            ("data.instaboost", self.probability),
            ("data.instaboost.color_probability", self.color_probability),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{field} is {value}; give a probability")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"data.instaboost.scale is {self.scale}; give (least, largest) factor above 0")
        if not 0 <= self.translation <= 1:
            raise ValueError(
                f"data.instaboost.translation is {self.translation}; give a share of an object's sides"
            )
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"data.instaboost.rotation is {self.rotation}; give degrees, 180 at most")

    def boost(
        self, picture: np.ndarray, instances: Instances, rng: np.random.Generator
    ) -> tuple[np.ndarray, Instances]:
        """Picture and objects after it; neither argument is written to.

        Crowds stay as they are, and objects of whose outline no pixel is left. All others get run lengths within the
        picture for outlines and the box around these.

        Args:
          picture: uint8 [H, W, 3].
          instances: in its pixels, through no geometry yet.
          rng: decides on everything.

        Raises:
          ValueError: there are no outlines.
        """
        if instances.outlines is None:
            raise ValueError("these data have boxes and no masks")
        if rng.random() >= self.probability:
            return picture, instances
        found = _cutouts(instances, picture.shape[:2])
        if not found:
            return picture, instances
        boosted = _painted(picture, list(found.values()))
        boxes, outlines = instances.boxes.copy(), list(instances.outlines)
        places = list(found)
        for group in _groups(np.stack([cutout.box for cutout in found.values()])):
            members = [places[index] for index in group]
            moved = self._paste(boosted, picture, [found[place] for place in members], rng)
            for place, cutout in zip(members, moved, strict=True):
                boxes[place], outlines[place] = cutout.box, _runs(cutout, picture.shape[:2])
        if rng.random() < self.color_probability:
            boosted = _coloured(boosted, rng)
        return boosted, dataclasses.replace(instances, boxes=boxes, outlines=tuple(outlines))

    def _paste(
        self, into: np.ndarray, picture: np.ndarray, group: Sequence[Cutout], rng: np.random.Generator
    ) -> list[Cutout]:
        """Pastes a group of objects of `picture` where they move to, and says where that is."""
        size = np.array(picture.shape[1::-1])
        whole = _joined(group)
        similarity = self._draw(whole.box, size, rng)
        moved = [_moved(cutout, similarity, size) for cutout in group]
        if not all(cutout.mask.any() for cutout in moved):
            similarity, moved = STILL, list(group)
        target = _target(whole.box, similarity, size)
        cover = _warped(_as_bytes(whole.mask), whole.box, similarity, target)
        pixels = _warped(_within(picture, whole.box), whole.box, similarity, target)
        _blend(_within(into, target), pixels, cover)
        return moved

    def _draw(self, box: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A similarity of the plane, float64 [2, 3], for what is in `box` of a picture of `size` (width, height)."""
        scale = rng.uniform(*self.scale)
        angle = math.radians(rng.uniform(-self.rotation, self.rotation))
        limits = self.translation * (box[2:] - box[:2])
        shift = rng.uniform(-limits, limits)
        before, behind = box[:2] < EDGE, box[2:] > size - EDGE
        if (before | behind).any():
            scale, angle = max(scale, 1.0), 0.0
            shift = np.clip(shift, np.where(behind, 0, -limits), np.where(before, 0, limits))
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]])
        middle = (box[:2] + box[2:]) / 2
        return np.column_stack([linear, middle + shift - linear @ middle])


def _cutouts(instances: Instances, size: tuple[int, ...]) -> dict[int, Cutout]:
    """Of every object that is no crowd and has pixels, by its index."""
    outlines: tuple[Outline, ...] = instances.outlines or ()
    whole = np.array([0, 0, size[1], size[0]])
    found = {
        index: _trimmed(whole, bitmap(outlines[index], size[0], size[1]))
        for index in np.flatnonzero(~instances.crowd).tolist()
    }
    return {index: cutout for index, cutout in found.items() if cutout.mask.any()}


def _trimmed(box: np.ndarray, mask: np.ndarray) -> Cutout:
    """With the box around the pixels of a mask that lies in a larger box; a mask without pixels as it is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Cutout(box, mask)
    inner = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return Cutout(inner + np.tile(box[:2], 2), _within(mask, inner))


def _within(array: np.ndarray, box: np.ndarray) -> np.ndarray:
    left, top, right, bottom = box.tolist()
    return array[top:bottom, left:right]


def _joined(group: Sequence[Cutout]) -> Cutout:
    boxes = np.stack([cutout.box for cutout in group])
    box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    mask = np.zeros((box[3] - box[1], box[2] - box[0]), bool)
    for cutout in group:
        _within(mask, cutout.box - np.tile(box[:2], 2))[cutout.mask] = True
    return Cutout(box, mask)


def _groups(boxes: np.ndarray) -> list[list[int]]:
    """Of boxes [n, 4]: who overlap, directly or through others, by the first of each group."""
    apart = (boxes[:, None, :2] >= boxes[None, :, 2:]).any(axis=-1)
    near = ~(apart | apart.T)
    first = np.arange(len(boxes))
    while (lower := np.where(near, first, len(boxes)).min(axis=1)).tolist() != first.tolist():
        first = lower
    return [np.flatnonzero(first == number).tolist() for number in np.unique(first)]


def _painted(picture: np.ndarray, cutouts: Sequence[Cutout]) -> np.ndarray:
    """The picture without these objects: their pixels continued from around them (Bertalmio et al., 2001)."""
    height, width = picture.shape[:2]
    hole = np.zeros((height, width), np.uint8)
    for cutout in cutouts:
        _within(hole, cutout.box)[cutout.mask] = OPAQUE
    factor = min(PAINTED_SIDE / max(height, width), 1.0)
    size = (math.ceil(width * factor), math.ceil(height * factor))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    # A cell is unknown as soon as any of it is an object's.
    unknown = np.asarray(cv2.resize(hole, size, interpolation=cv2.INTER_AREA) > 0, np.uint8)
    small = cv2.inpaint(small, unknown, PAINTED_RADIUS, cv2.INPAINT_NS)
    painted = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.copyTo(painted, hole, picture.copy())


def _target(box: np.ndarray, similarity: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The part of a picture of `size` (width, height) in which a box comes to lie, a pixel or more: int64 [4]."""
    corners = box[[[0, 1], [2, 1], [0, 3], [2, 3]]] @ similarity[:, :2].T + similarity[:, 2]
    low = np.clip(np.floor(corners.min(axis=0)), 0, size - 1)
    high = np.clip(np.ceil(corners.max(axis=0)), low + 1, size)
    return np.concatenate([low, high]).astype(np.int64)


def _warped(patch: np.ndarray, box: np.ndarray, similarity: np.ndarray, target: np.ndarray) -> np.ndarray:
    """What of `patch`, uint8, which fills `box`, is seen in the box `target`: beyond it colours go on, masks do not."""
    matrix = similarity.copy()
    # OpenCV's coordinates are 0 in the middle of the first pixel.
    matrix[:, 2] += similarity[:, :2] @ (box[:2] + 0.5) - 0.5 - target[:2]
    width, height = (target[2:] - target[:2]).tolist()
    border = cv2.BORDER_CONSTANT if patch.ndim == 2 else cv2.BORDER_REPLICATE
    return cv2.warpAffine(patch, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border)


def _moved(cutout: Cutout, similarity: np.ndarray, size: np.ndarray) -> Cutout:
    target = _target(cutout.box, similarity, size)
    cover = _warped(_as_bytes(cutout.mask), cutout.box, similarity, target)
    return _trimmed(target, cover > OPAQUE // 2)


def _blend(into: np.ndarray, pixels: np.ndarray, cover: np.ndarray) -> None:
    share = cover.astype(np.float32) / OPAQUE
    into[:] = cv2.blendLinear(pixels, np.ascontiguousarray(into), share, 1 - share)


def _as_bytes(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, np.uint8(OPAQUE), np.uint8(0))


def _runs(cutout: Cutout, size: tuple[int, ...]) -> Runs:
    mask = np.zeros(size, np.uint8, order="F")
    _within(mask, cutout.box)[:] = cutout.mask
    return runs_of(mask)


def _coloured(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = Image.fromarray(picture)
    for enhance, least, most in COLOURS:
        image = enhance(image).enhance(int(rng.integers(least, most, endpoint=True)) / 10)
    return np.asarray(image)
