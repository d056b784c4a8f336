"""The geometry of detectors' training pictures, as published with Swin (and DETR's before it): sizes, crops, flips.

What is drawn for a picture follows from eight numbers in [0, 1) and its size alone, so that a plan knows the shape of
every row before a picture is read. Everything here takes arrays of pictures.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Size = tuple[int, int]
MULTIPLE = 32  # of which the sides of canvases are
DRAWS = 8
FLIP, BRANCH, SHORT, CROP_SHORT, CROP_HEIGHT, CROP_WIDTH, TOP, LEFT = range(DRAWS)


class Drawn(NamedTuple):
    """What becomes of n pictures: resized to `first`, cut to `crop`, resized to `last`, mirrored.

    Attributes:
      first: (height, width), int64 [n, 2].
      crop: (top, left, height, width) in the resized picture, int64 [n, 4]; the whole of it where nothing is cut.
      last: (height, width), int64 [n, 2].
      mirrored: bool [n].
    """

    first: np.ndarray
    crop: np.ndarray
    last: np.ndarray
    mirrored: np.ndarray


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The distribution of training pictures' geometry.

    Attributes:
      short_sides: one is drawn for the shorter side; the longer one is at most
      long_side: pixels, aspect kept.
      crop_probability: of the second branch: a resize to one of `crop_short_sides`, a crop, and a resize as above.
      crop_short_sides: pixels.
      crop_range: least and largest side of the crop, each drawn on its own; no larger than the picture.
      flip: probability of mirroring left and right.
    """

    short_sides: tuple[int, ...] = tuple(range(480, 801, 32))
    long_side: int = 1333
    crop_probability: float = 0.5
    crop_short_sides: tuple[int, ...] = (400, 500, 600)
    crop_range: tuple[int, int] = (384, 600)
    flip: float = 0.5

    def __post_init__(self) -> None:
        for field in ("short_sides", "crop_short_sides"):
            if not getattr(self, field) or min(getattr(self, field)) < 1:
                raise ValueError(f"data.{field} is {getattr(self, field)}; give pixels, such as (480, 800)")
        if self.long_side < max(self.short_sides):
            raise ValueError(
                f"data.scale allows a long side of {self.long_side}, less than the short side "
                f"{max(self.short_sides)} of data.short_sides"
            )
        if not 0 < self.crop_range[0] <= self.crop_range[1]:
            raise ValueError(f"data.crop_range is {self.crop_range}; give (least, largest) pixels")
        for field, value in (("data.crop_probability", self.crop_probability), ("augment.flip", self.flip)):
            if not 0 <= value <= 1:
                raise ValueError(f"{field} is {value}; give a probability")

    def draw(self, sizes: np.ndarray, uniforms: np.ndarray) -> Drawn:
        """The geometry of pictures of `sizes` (height, width) [n, 2] by their numbers in [0, 1), [n, DRAWS]."""
        sizes = sizes.astype(np.int64)
        short = _chosen(self.short_sides, uniforms[:, SHORT])
        cut = uniforms[:, BRANCH] < self.crop_probability
        before = _fitted(sizes, _chosen(self.crop_short_sides, uniforms[:, CROP_SHORT]), self.long_side)
        low, high = (np.minimum(before, side) for side in self.crop_range)
        sides = low + np.floor(uniforms[:, [CROP_HEIGHT, CROP_WIDTH]] * (high - low + 1)).astype(np.int64)
        corner = np.floor(uniforms[:, [TOP, LEFT]] * (before - sides + 1)).astype(np.int64)
        whole = _fitted(sizes, short, self.long_side)
        crop = np.where(
            cut[:, None],
            np.concatenate([corner, sides], axis=1),
            np.concatenate([np.zeros_like(whole), whole], axis=1),
        )
        last = np.where(cut[:, None], _fitted(sides, short, self.long_side), whole)
        return Drawn(
            first=np.where(cut[:, None], before, whole),
            crop=crop,
            last=last,
            mirrored=uniforms[:, FLIP] < self.flip,
        )


def _chosen(values: Sequence[int], uniforms: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.int64)[np.floor(uniforms * len(values)).astype(np.int64)]


def _fitted(sizes: np.ndarray, short: np.ndarray, long: int) -> np.ndarray:
    """As large as fits into `short` by `long` pixels, aspect kept, halves rounded up (`dense_geometry.fitted_size`)."""
    factor = np.minimum(long / sizes.max(axis=1), short / sizes.min(axis=1))
    return np.maximum(np.floor(sizes * factor[:, None] + 0.5).astype(np.int64), 1)


def canvases(short: int, long: int, multiple: int = MULTIPLE) -> tuple[Size, ...]:
    """The canvases on which every picture of at most `short` by `long` pixels finds room: lying and standing."""
    low, high = (-(-side // multiple) * multiple for side in (short, long))
    return ((low, high),) if low == high else ((low, high), (high, low))


def canvas_of(sizes: np.ndarray, known: Sequence[Size]) -> np.ndarray:
    """Which canvas pictures of `sizes` [n, 2] lie on: the first that has room, int64 [n].

    Raises:
      ValueError: one has room on none.
    """
    room = np.stack([(sizes <= np.asarray(canvas)).all(axis=1) for canvas in known], axis=1)
    if not room.any(axis=1).all():
        height, width = sizes[np.flatnonzero(~room.any(axis=1))[0]].tolist()
        raise ValueError(f"a picture of {height} x {width} has room on none of the canvases {tuple(known)}")
    return room.argmax(axis=1)
