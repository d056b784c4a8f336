"""Pictures whose class no single window knows: two tiles beside each other, alike or different in colour.

Made to see what shifting windows is for (section 3.2 of the paper, table 4). The tiles touch at one of the two lines
that quarter the picture, each on its own side. A network whose windows never reach across these lines, say one of two
stages with patches of 4 pixels and windows of 4 tokens, sees the tiles in parts that meet only in the mean over the
last map: its evidence for a class is a sum of what each tile alone says, and by such a sum at most three pictures in
four can be told, however long it is trained. A window across the line sees both.
"""

import cv2
import numpy as np

from swin_jax.data.sources.base import Record, digest

SIDE = 64
TILE = 12
MARGIN = 4
COLOURS = np.array([(208, 64, 56), (64, 96, 208)], np.int64)  # with four, one seed of three learnt it
CLASSES = ("alike", "different")
SPLITS = {"train": 4000, "val": 1000}
MOST_BY_PARTS = 0.75
"""The largest expected accuracy of a classifier whose logits are a sum over the tiles: with n colours it can say
"alike" of m pairs of one colour only together with m (m - 1) / 2 mixed ones, which are each 1 / (n - 1) as frequent.
3 in 4 for any n."""


class Pairs:
    """One split; a picture is drawn when it is asked for, by split and index alone."""

    class_names = CLASSES

    def __init__(self, split: str):
        """Raises ValueError for an unknown split."""
        if split not in SPLITS:
            raise ValueError(f"pairs has no split {split!r}; it has {', '.join(SPLITS)}")
        self._split = split

    @property
    def identity(self) -> str:
        return f"pairs:{self._split}:{len(CLASSES)} classes:{len(self)}"

    @property
    def fingerprint(self) -> str:
        return digest(self.identity, CLASSES, draw_pair(self._split, 0)[0])

    def __len__(self) -> int:
        return SPLITS[self._split]

    def __getitem__(self, index: int) -> Record:
        image, label = draw_pair(self._split, index)
        return {"image": image, "label": label, "name": f"pairs, split {self._split}, record {index}"}


def draw_pair(split: str, index: int) -> tuple[np.ndarray, int]:
    """Picture `index` of a split: uint8 [64, 64, 3] RGB, and its class."""
    rng = np.random.Generator(np.random.Philox(key=np.array([list(SPLITS).index(split), index], np.uint64)))
    label = index % 2
    first = int(rng.integers(len(COLOURS)))
    second = (first + label * int(rng.integers(1, len(COLOURS)))) % len(COLOURS)
    image = _ground(rng)
    half = SIDE // 2
    along = int(rng.integers(MARGIN, half - TILE - MARGIN, endpoint=True)) + half * int(rng.integers(2))
    for colour, start in ((first, half - TILE), (second, half)):
        image[along : along + TILE, start : start + TILE] = _tile(COLOURS[colour], rng)
    if rng.integers(2):  # the tiles above each other
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image), label


def _ground(rng: np.random.Generator) -> np.ndarray:
    """A soft grey pattern."""
    coarse = rng.integers(70, 130, (5, 5), dtype=np.uint8)
    grey = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return np.repeat(grey[..., None], 3, axis=2)


def _tile(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour at its own brightness, with noise: pixels of two alike tiles differ."""
    noise = rng.integers(-12, 12, (TILE, TILE, 3), endpoint=True)
    return np.clip(colour + int(rng.integers(-24, 24, endpoint=True)) + noise, 0, 255).astype(np.uint8)
