"""What becomes of one record, for semantic segmentation: a picture and the class number of each of its pixels."""

import dataclasses

import numpy as np

from swin_jax.data import dense_geometry as geometry
from swin_jax.data.decode import decode_picture, picture_size
from swin_jax.data.examples import Record, Row
from swin_jax.data.geometry import crop
from swin_jax.data.labels import IGNORE

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class SegmentationTrain:
    """The published training geometry (Liu et al., 2021, with OpenMMLab's UperNet recipe).

    A resize that keeps the aspect, by a factor drawn for each picture; a crop in which no class rules; a flip; what
    is missing to the crop's size is filled up below and on the right, behind the flip, as there.

    Row: `image` uint8 [*crop,3], black where filled up; `semantic` uint8 [*crop], 255 where filled up or ignored;
    `size` int32 [2], height and width of what is picture.

    Attributes:
      crop: (height, width).
      scale: (long side, short side) that the picture is fitted into, times the drawn factor; None keeps its size
        times the factor.
      ratio_range: of the factor.
      largest_share: of a crop's pixels that one class may have; see `dense_geometry.balanced_crop_box`.
      flip: probability of mirroring left and right.
    """

    crop: Size
    scale: Size | None = (2048, 512)
    ratio_range: tuple[float, float] = (0.5, 2.0)
    largest_share: float = 0.75
    flip: float = 0.5

    def __post_init__(self) -> None:
        _check_size("crop", self.crop)
        _check_scale(self.scale)
        if not 0 < self.ratio_range[0] <= self.ratio_range[1]:
            raise ValueError(f"ratio_range is {self.ratio_range}; give (low, high) with 0 < low <= high")
        if not 0 < self.largest_share <= 1:
            raise ValueError(f"largest_share is {self.largest_share}; give a share above 0 and at most 1")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is {self.flip}; give a probability")

    def __call__(self, record: Record, rng: np.random.Generator) -> Row:
        picture = decode_picture(record["image"], record["name"])
        labels = _labels(record, picture)
        height, width = picture.shape[:2]
        ratio = rng.uniform(*self.ratio_range)
        size = _target_size(height, width, self.scale, ratio)
        picture, labels = geometry.resize_picture(picture, size), geometry.resize_labels(labels, size)
        box = geometry.balanced_crop_box(labels, self.crop, self.largest_share, rng)
        picture, labels = crop(picture, box), crop(labels, box)
        if rng.random() < self.flip:
            picture, labels = picture[:, ::-1], labels[:, ::-1]
        return {
            "image": geometry.padded(picture, self.crop, 0),
            "semantic": geometry.padded(labels, self.crop, IGNORE),
            "size": np.asarray(labels.shape, np.int32),
        }


@dataclasses.dataclass(frozen=True)
class SegmentationEval:
    """The whole picture at its own aspect, once for each of `ratios`, and its labels as they are.

    Row: `image` uint8 [h,w,3] at the first ratio, `image_1`, ... at the others; `semantic` uint8 [H,W], the labels at
    their own size, filled up with 255 below and on the right to multiples of `canvas`; `size` int32 [2], height and
    width of what is not filled up.

    Attributes:
      scale: (long side, short side) that the picture is fitted into, times the ratio; None keeps its size.
      ratios: 1 alone for single-scale evaluation.
      multiple: if not 0, sides are rounded up to multiples of it, by resizing: fewer shapes to compile for, and an
        aspect up to (multiple - 1) pixels off.
      canvas: of the labels.
    """

    scale: Size | None = (2048, 512)
    ratios: tuple[float, ...] = (1.0,)
    multiple: int = 0
    canvas: int = 256

    def __post_init__(self) -> None:
        _check_scale(self.scale)
        if not self.ratios or min(self.ratios) <= 0:
            raise ValueError(f"ratios are {self.ratios}; give factors above 0")
        if self.multiple < 0 or self.canvas < 1:
            raise ValueError(
                f"size_multiple is {self.multiple} and canvas {self.canvas}; give 0 or more, and at least 1"
            )

    def __call__(self, record: Record, rng: np.random.Generator) -> Row:
        picture = decode_picture(record["image"], record["name"])
        height, width = picture.shape[:2]
        labels = (
            _labels(record, picture) if "semantic" in record else np.full((height, width), IGNORE, np.uint8)
        )
        row = {
            "semantic": geometry.padded(labels, geometry.rounded_up((height, width), self.canvas), IGNORE),
            "size": np.asarray((height, width), np.int32),
        }
        for field, size in zip(image_fields(len(self.ratios)), self._sizes(height, width), strict=True):
            row[field] = geometry.resize_picture(picture, size)
        return row

    def bucket(self, record: Record) -> tuple[int, ...]:
        height, width = picture_size(record["image"], record["name"])
        sizes = (*self._sizes(height, width), geometry.rounded_up((height, width), self.canvas))
        return (sum(rows * columns for rows, columns in sizes), *(side for size in sizes for side in size))

    def _sizes(self, height: int, width: int) -> list[Size]:
        sizes = [_target_size(height, width, self.scale, ratio) for ratio in self.ratios]
        return [geometry.rounded_up(size, self.multiple) if self.multiple else size for size in sizes]


def image_fields(count: int) -> tuple[str, ...]:
    """The names of a row's pictures at so many scales."""
    return ("image", *(f"image_{index}" for index in range(1, count)))


def _labels(record: Record, picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return record["semantic"].classes((height, width), record["name"])


def _target_size(height: int, width: int, scale: Size | None, ratio: float) -> Size:
    if scale is None:
        return geometry.times(height, width, ratio)
    return geometry.fitted_size(height, width, geometry.scaled(scale, ratio))


def _check_size(field: str, size: tuple[int, ...]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"{field} is {size}; give (height, width) in pixels")


def _check_scale(scale: tuple[int, ...] | None) -> None:
    if scale is not None and (len(scale) != 2 or min(scale) < 1):
        raise ValueError(f"scale is {scale}; give (long side, short side) in pixels, or None")
