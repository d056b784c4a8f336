"""What becomes of one record, for classification: a picture of fixed size and its label.

Example functions travel into worker processes, so they are plain frozen data. They draw from the generator they
are given and from nothing else.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from swin_jax.data import geometry
from swin_jax.data.decode import decode_picture

Record = Mapping[str, Any]
"""One element of a source: `image` (encoded bytes, or uint8 [H,W,C]), `label`, `name`, and what else the set has."""

Row = dict[str, np.ndarray]
"""One row of a batch: arrays whose shapes do not depend on the record."""


@runtime_checkable
class Example(Protocol):
    """Makes a row of a batch from a record. Raises UnreadablePicture where the record's picture is damaged."""

    def __call__(self, record: Record, rng: np.random.Generator) -> Row: ...


@runtime_checkable
class BucketedExample(Example, Protocol):
    """One whose rows have shapes that depend on the picture's size: evaluation batches equal ones together."""

    def bucket(self, record: Record) -> tuple[int, ...]:
        """What decides the shapes of the record's row, from its header alone; larger pictures give larger tuples."""
        ...


@dataclasses.dataclass(frozen=True)
class ClassificationTrain:
    """Random resized crop, or for small pictures a shifted one: image uint8 [*size,3], label int32 [].

    Attributes:
      size: (height, width) of the result.
      scale: range of the crop's share of the picture's area.
      ratio: range of the crop's width over height.
      interpolation: "bicubic", "bilinear", "lanczos" or "nearest".
      pad_crop: if not 0, instead of the resized crop: the picture at `size`, padded by so many black pixels,
        and a random crop of `size` (what the released code does at 32 pixels and below, with 4).
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    pad_crop: int = 0

    def __post_init__(self) -> None:
        _check_size("size", self.size)
        _check_interpolation(self.interpolation)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"crop scale is {self.scale}; give (low, high) with 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"crop ratio is {self.ratio}; give (low, high) with 0 < low <= high")
        if self.pad_crop < 0:
            raise ValueError(
                f"pad_crop is {self.pad_crop}; give a number of pixels, or 0 for the resized crop"
            )

    def __call__(self, record: Record, rng: np.random.Generator) -> Row:
        picture = decode_picture(record["image"], record["name"])
        if self.pad_crop:
            picture = geometry.resize(picture, self.size, self.interpolation)
            picture = geometry.random_padded_crop(picture, self.pad_crop, rng)
        else:
            height, width = picture.shape[:2]
            box = geometry.random_resized_crop_box(height, width, self.scale, self.ratio, rng)
            picture = geometry.resize(geometry.crop(picture, box), self.size, self.interpolation)
        if record["label"] < 0:
            raise ValueError(f"{record['name']} has no label; training needs labelled pictures")
        return {"image": picture, "label": np.asarray(record["label"], np.int32)}


@dataclasses.dataclass(frozen=True)
class ClassificationEval:
    """The published evaluation preprocessing: image uint8 [*size,3], label int32 [] and the record's `accepted`.

    Attributes:
      size: (height, width) of the centre crop.
      resize: before it, the length of the shorter side (aspect kept), or (height, width) (aspect not kept), or
        None for none.
      interpolation: of that resize.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        _check_size("size", self.size)
        _check_interpolation(self.interpolation)
        if isinstance(self.resize, tuple):
            _check_size("resize", self.resize)
        elif self.resize is not None and self.resize < 1:
            raise ValueError(f"resize is {self.resize}; give a number of pixels, (height, width) or None")

    def __call__(self, record: Record, rng: np.random.Generator) -> Row:
        picture = decode_picture(record["image"], record["name"])
        if isinstance(self.resize, tuple):
            picture = geometry.resize(picture, self.resize, self.interpolation)
        elif self.resize is not None:
            picture = geometry.resize_shorter_side(picture, self.resize, self.interpolation)
        picture = geometry.center_crop(picture, self.size)
        row = {"image": picture, "label": np.asarray(record["label"], np.int32)}
        return row | ({"accepted": record["accepted"]} if "accepted" in record else {})


def _check_size(field: str, size: tuple[int, ...]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"{field} is {size}; give (height, width) in pixels")


def _check_interpolation(name: str) -> None:
    if name not in geometry.RESAMPLING:
        raise ValueError(f"interpolation is {name!r}; choose one of {', '.join(geometry.RESAMPLING)}")
