"""What becomes of one record, for detection: a picture on a canvas and its padded ground truth."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from swin_jax.data import dense_geometry as geometry
from swin_jax.data.decode import decode_picture, picture_size
from swin_jax.data.detection_geometry import DRAWS, MULTIPLE, Augmentation, Drawn, Size, canvas_of, canvases
from swin_jax.data.examples import Record, Row
from swin_jax.data.instaboost import InstaBoost
from swin_jax.data.instances import Instances
from swin_jax.data.labels import IGNORE
from swin_jax.data.segmentation import image_fields
from swin_jax.data.sources.coco import check_size


@dataclasses.dataclass(frozen=True)
class DetectionTrain:
    """A training picture and its objects, crowds left out.

    Row: `image` uint8 [*canvas, 3], black beyond the picture; `size` int32 [2], its height and width; `boxes` float32
    [G, 4]; `labels` int32 [G]; `box_valid` bool [G]; with masks `masks` bool [G, M, M], each the object's share of its
    box. Rows beyond the objects are 0. With a stride `semantic` uint8 [canvas height / stride, canvas width / stride],
    the class number of the upper left pixel of each cell, 255 beyond the picture and where it has none.

    Attributes:
      augmentation: of the geometry.
      max_boxes: G.
      mask_size: M; 0 where the data have no masks, or nobody asks for them.
      instaboost: of the objects, before any geometry; None for none. The label map stays as it is, as published.
      semantic_stride: of the label map, the side of a cell in pixels; 0 for no label map.
    """

    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    max_boxes: int = 100
    mask_size: int = 112
    instaboost: InstaBoost | None = None
    semantic_stride: int = 0

    def __post_init__(self) -> None:
        for field in ("max_boxes", "mask_size"):
            if getattr(self, field) < (field == "max_boxes"):
                raise ValueError(f"data.{field} is {getattr(self, field)}; give a number of 1 or more")
        stride = self.semantic_stride
        if stride and (stride < 0 or MULTIPLE % stride):
            raise ValueError(
                f"semantic_stride is {stride}; give a divisor of {MULTIPLE}, such as 8, or 0 for no label map"
            )

    @property
    def canvases(self) -> tuple[Size, ...]:
        return canvases(max(self.augmentation.short_sides), self.augmentation.long_side)

    @property
    def draws(self) -> int:
        """How many numbers in [0, 1) decide on a row."""
        return DRAWS + (self.instaboost is not None)

    def buckets(self, sizes: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """The canvas of pictures of `sizes` [n, 2] with these draws [n, draws], int64 [n]."""
        return canvas_of(self.augmentation.draw(sizes, uniforms).last, self.canvases)

    def __call__(self, record: Record, rng: np.random.Generator) -> Row:
        return self.row(record, rng.random(self.draws))

    def row(self, record: Record, uniforms: np.ndarray) -> Row:
        """Raises ValueError where the picture has more objects than rows (none is dropped unsaid), or where a label map
        is wanted and it has none, or one of another size."""
        picture = decode_picture(record["image"], record["name"])
        height, width = picture.shape[:2]
        check_size(record, height, width)
        drawn = self.augmentation.draw(np.array([[height, width]]), uniforms[None])
        first, (top, left, rows, columns), last = (part[0].tolist() for part in drawn[:3])
        found: Instances = record["instances"]
        found = found.take(~found.crowd)
        if self.instaboost is not None:
            rng = np.random.default_rng(int(uniforms[DRAWS] * 2**53))
            picture, found = self.instaboost.boost(picture, found, rng)
        found = found.scaled(first[1] / width, first[0] / height)
        found = found.cropped(left, top, rows, columns).scaled(last[1] / columns, last[0] / rows)
        if drawn.mirrored[0]:
            found = found.mirrored(last[1])
        canvas = self.canvases[int(canvas_of(drawn.last, self.canvases)[0])]
        row = {
            "image": geometry.padded(_moved(picture, drawn, geometry.resize_picture), canvas, 0),
            "size": np.asarray(last, np.int32),
            **self._truth(found, record["name"]),
        }
        if self.semantic_stride:
            labels = _moved(_labels(record, (height, width)), drawn, geometry.resize_labels)
            row["semantic"] = self._cells(labels, canvas)
        return row

    def _cells(self, labels: np.ndarray, canvas: Size) -> np.ndarray:
        """What OpenCV's nearest resize makes of the padded map: every stride-th pixel."""
        stride = self.semantic_stride
        cells = canvas[0] // stride, canvas[1] // stride
        return geometry.padded(labels[::stride, ::stride], cells, IGNORE)

    def _truth(self, found: Instances, name: str) -> Row:
        count = len(found)
        if count > self.max_boxes:
            raise ValueError(
                f"{name} has {count} objects and data.max_boxes is {self.max_boxes}; allow as many as there are"
            )
        rows: dict[str, Any] = {
            "boxes": found.boxes,
            "labels": found.labels.astype(np.int32),
            "box_valid": np.ones(count, bool),
        }
        if self.mask_size:
            rows["masks"] = found.mask_crops(self.mask_size)
        return {
            field: np.pad(values, ((0, self.max_boxes - count),) + ((0, 0),) * (values.ndim - 1))
            for field, values in rows.items()
        }


def _moved(
    array: np.ndarray, drawn: Drawn, resize: Callable[[np.ndarray, list[int]], np.ndarray]
) -> np.ndarray:
    """What becomes of the one picture that `drawn` is for, or of its label map: [H, W, ...] to [*last, ...]."""
    first, (top, left, rows, columns), last = (part[0].tolist() for part in drawn[:3])
    array = resize(array, first)[top : top + rows, left : left + columns]
    array = resize(array, last)
    return array[:, ::-1] if drawn.mirrored[0] else array


def _labels(record: Record, size: Size) -> np.ndarray:
    """Class numbers uint8 [*size]."""
    if "semantic" not in record:
        raise ValueError(f"{record['name']} has no label map; training with a semantic branch needs one")
    return record["semantic"].classes(size, record["name"])


@dataclasses.dataclass(frozen=True)
class DetectionEval:
    """The whole picture, as large as fits into `scale`, once for each of `ratios` of it.

    Row: `image`, `image_1`, ... uint8 [*canvas, 3], black beyond the picture; `size`, `size_1`, ... int32 [2], height
    and width of each; `original_size` int32 [2].

    Attributes:
      scale: (long side, short side).
      ratios: 1 alone for single-scale evaluation.
    """

    scale: Size = (1333, 800)
    ratios: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or min(self.scale) < 1:
            raise ValueError(f"data.scale is {self.scale}; give (long side, short side) in pixels")
        if not self.ratios or min(self.ratios) <= 0:
            raise ValueError(f"evaluation.ratios are {self.ratios}; give factors above 0")

    def __call__(self, record: Record, rng: np.random.Generator) -> Row:
        picture = decode_picture(record["image"], record["name"])
        height, width = picture.shape[:2]
        check_size(record, height, width)
        row = {"original_size": np.asarray((height, width), np.int32)}
        for suffix, (size, canvas) in zip(
            suffixes(len(self.ratios)), self._places(height, width), strict=True
        ):
            row[f"image{suffix}"] = geometry.padded(geometry.resize_picture(picture, size), canvas, 0)
            row[f"size{suffix}"] = np.asarray(size, np.int32)
        return row

    def bucket(self, record: Record) -> tuple[int, ...]:
        """The canvases: larger first."""
        size = record["size"] if "size" in record else picture_size(record["image"], record["name"])
        sides = [side for _, canvas in self._places(int(size[0]), int(size[1])) for side in canvas]
        return tuple(sides)

    def _places(self, height: int, width: int) -> list[tuple[Size, Size]]:
        """Size and canvas at every ratio."""
        places = []
        for ratio in self.ratios:
            scale = geometry.scaled(self.scale, ratio)
            size, known = geometry.fitted_size(height, width, scale), canvases(min(scale), max(scale))
            places.append((size, known[int(canvas_of(np.array([size]), known)[0])]))
        return places


def suffixes(count: int) -> tuple[str, ...]:
    """What the fields of a row's views end in."""
    return tuple(field.removeprefix("image") for field in image_fields(count))
