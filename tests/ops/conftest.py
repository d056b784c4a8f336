"""Stored numbers of other implementations."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

GOLDENS = Path(__file__).parents[1] / "goldens"


@cache
def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDENS / f"{name}.npz") as file:
        return dict(file)


@pytest.fixture
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """The arrays of `tests/goldens/<name>.npz`.

    `openmmlab_boxes`, `openmmlab_rois`: single operations of mmcv 2.1.0 and mmdet 3.3.0 on the CPU (torch 2.13);
    `rle/*` of pycocotools 2.0.11. `openmmlab_selection`: what two narrow detectors of mmdet 3.3.0 chose.
    """
    return load
