"""Geometry of pictures with label maps, to the pixel what the published segmentation code does.

Resizing is OpenCV's there: bilinear without averaging for pictures, nearest for labels, which never mix. (The
classifiers' is Pillow's, see `geometry`.)
"""

from collections.abc import Sequence

import cv2
import numpy as np

from swin_jax.data.geometry import Box, crop
from swin_jax.data.labels import IGNORE

CROP_DRAWS = 10


def fitted_size(height: int, width: int, scale: Sequence[int]) -> tuple[int, int]:
    """The size of a picture made as large as fits into `scale` (long and short side, in any order), aspect kept."""
    return times(height, width, min(max(scale) / max(height, width), min(scale) / min(height, width)))


def times(height: int, width: int, factor: float) -> tuple[int, int]:
    """Both sides times `factor`, rounded as the published code does: halves up."""
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def scaled(scale: Sequence[int], ratio: float) -> tuple[int, int]:
    """`scale` times `ratio` in whole pixels, cut off as the published code does."""
    return int(scale[0] * ratio), int(scale[1] * ratio)


def rounded_up(size: Sequence[int], multiple: int) -> tuple[int, int]:
    """The smallest size from `size` on whose sides are multiples."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def resize_picture(picture: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """uint8 [H,W,3] to [*size,3], bilinear."""
    return _resize(picture, size, cv2.INTER_LINEAR)


def resize_labels(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """uint8 [H,W] to [*size], nearest: no value arises that was not there."""
    return _resize(labels, size, cv2.INTER_NEAREST)


def _resize(array: np.ndarray, size: Sequence[int], interpolation: int) -> np.ndarray:
    if array.shape[:2] == tuple(size):
        return array
    return np.asarray(cv2.resize(array, (size[1], size[0]), interpolation=interpolation), np.uint8)


def random_crop_box(height: int, width: int, size: Sequence[int], rng: np.random.Generator) -> Box:
    """A box of `size`, or of the whole side where that is shorter, anywhere in the picture."""
    top = int(rng.integers(0, max(height - size[0], 0), endpoint=True))
    left = int(rng.integers(0, max(width - size[1], 0), endpoint=True))
    return top, left, min(size[0], height), min(size[1], width)


def balanced_crop_box(
    labels: np.ndarray, size: Sequence[int], largest_share: float, rng: np.random.Generator
) -> Box:
    """A random box in which more than one class occurs and none has `largest_share` of the pixels with a class.

    Of ten boxes the first that does; after that an eleventh as it comes. With a share of 1 the first of all.
    """
    height, width = labels.shape
    box = random_crop_box(height, width, size, rng)
    if largest_share >= 1:
        return box
    for _ in range(CROP_DRAWS):
        if is_balanced(crop(labels, box), largest_share):
            return box
        box = random_crop_box(height, width, size, rng)
    return box


def is_balanced(labels: np.ndarray, largest_share: float) -> bool:
    """Whether more than one class occurs, none with `largest_share` of the pixels that have a class or more."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < largest_share * counts.sum())


def padded(array: np.ndarray, size: Sequence[int], value: int) -> np.ndarray:
    """Filled up with `value` below and on the right to `size`."""
    rows, columns = size[0] - array.shape[0], size[1] - array.shape[1]
    if not rows and not columns:
        return array
    return np.pad(array, ((0, rows), (0, columns)) + ((0, 0),) * (array.ndim - 2), constant_values=value)
