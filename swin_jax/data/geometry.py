"""Crops and resizes on the host, to the pixel what the published preprocessing does.

Resizing is Pillow's, which averages over the source when it shrinks (antialiasing): scores of published weights
depend on it. Random draws take a NumPy generator and are the same on every machine.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
ATTEMPTS = 10

Box = tuple[int, int, int, int]
"""(top, left, height, width) in pixels."""


def random_resized_crop_box(
    height: int,
    width: int,
    scale: Sequence[float],
    ratio: Sequence[float],
    rng: np.random.Generator,
) -> Box:
    """A box of random area and aspect inside a picture (Szegedy et al., 2015; torchvision's rounding).

    Area is uniform in `scale` times the picture's, width over height log-uniform in `ratio`. After ten draws that
    do not fit, the largest central box whose aspect is within `ratio`.
    """
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(scale[0], scale[1])
        aspect = math.exp(rng.uniform(*log_ratio))
        box_width = round(math.sqrt(area * aspect))
        box_height = round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(0, height - box_height, endpoint=True))
            left = int(rng.integers(0, width - box_width, endpoint=True))
            return top, left, box_height, box_width
    return central_box(height, width, ratio)


def central_box(height: int, width: int, ratio: Sequence[float]) -> Box:
    """The largest central box whose width over height is within `ratio`."""
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    # An aspect this far off rounds to nothing.
    box_height, box_width = max(box_height, 1), max(box_width, 1)
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def crop(picture: np.ndarray, box: Box) -> np.ndarray:
    top, left, height, width = box
    return picture[top : top + height, left : left + width]


def resize(picture: np.ndarray, size: Sequence[int], interpolation: str) -> np.ndarray:
    """uint8 [H,W,3] to uint8 [*size,3], size = (height, width); aspect is not kept."""
    height, width = size
    if picture.shape[:2] == (height, width):
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((width, height), RESAMPLING[interpolation]))


def resize_shorter_side(picture: np.ndarray, side: int, interpolation: str) -> np.ndarray:
    """Scales so that the shorter side is `side` and the longer one int(side * long / short)."""
    height, width = picture.shape[:2]
    if width <= height:
        return resize(picture, (int(side * height / width), side), interpolation)
    return resize(picture, (side, int(side * width / height)), interpolation)


def center_crop(picture: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The central (height, width); a smaller picture is first padded with black on both sides."""
    height, width = picture.shape[:2]
    rows, columns = max(size[0] - height, 0), max(size[1] - width, 0)
    if rows or columns:
        before, after = (rows // 2, columns // 2), ((rows + 1) // 2, (columns + 1) // 2)
        picture = np.pad(picture, ((before[0], after[0]), (before[1], after[1]), (0, 0)))
        height, width = picture.shape[:2]
    top, left = round((height - size[0]) / 2.0), round((width - size[1]) / 2.0)
    return crop(picture, (top, left, size[0], size[1]))


def random_padded_crop(picture: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
    """A crop of the picture's own size from the picture with `padding` black pixels on every side."""
    height, width = picture.shape[:2]
    top = int(rng.integers(0, 2 * padding, endpoint=True))
    left = int(rng.integers(0, 2 * padding, endpoint=True))
    padded = np.pad(picture, ((padding, padding), (padding, padding), (0, 0)))
    return crop(padded, (top, left, height, width))
