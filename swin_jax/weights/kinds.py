"""How the arrays of one of our parameters become those of a PyTorch layer, and back, without changing a value."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

Arrays = Sequence[np.ndarray]
Shape = tuple[int, ...]

UNFOLD_QUARTERS = [0, 2, 1, 3]
"""Ours counts the quarters of a 2x2 square down the columns, `torch.nn.Unfold` along the rows; its own inverse."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A pair of inverse rearrangements.

    Attributes:
      ndims: how many axes the foreign arrays may have.
      to_ours: the foreign arrays of a parameter, and the shape wanted if it is known, to ours.
      to_theirs: the inverse; as many arrays as the foreign layout keeps for the parameter.
    """

    ndims: tuple[int, ...]
    to_ours: Callable[[Arrays, Shape | None], np.ndarray]
    to_theirs: Callable[[np.ndarray, int], Arrays]


def one(ndims: tuple[int, ...], to_ours: Callable, to_theirs: Callable) -> Kind:
    """A parameter that both sides keep as one array."""
    return Kind(ndims, lambda arrays, _: to_ours(arrays[0]), lambda array, _: (to_theirs(array),))


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _transposed(array: np.ndarray) -> np.ndarray:
    return array.T


SAME = one((1, 2), _same, _same)
LINEAR = one((2,), _transposed, _transposed)  # [out, in] <-> [in, out]
CONVOLUTION = one((4,), lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1))  # OIHW <-> HWIO


def _joined(arrays: Arrays, _: Shape | None) -> np.ndarray:
    return np.concatenate(arrays).T


def _split(array: np.ndarray, parts: int) -> Arrays:
    return np.split(array.T, parts)


# Several layers with the same input, kept as one of ours: outputs side by side, [out, in] each.
JOINED_LINEAR = Kind((2,), _joined, _split)
JOINED_VECTOR = Kind((1,), lambda arrays, _: np.concatenate(arrays), np.split)


def _from_unfold(array: np.ndarray) -> np.ndarray:
    """[..., C * 4 + quarter] of `torch.nn.Unfold` to [..., quarter * C + c] of ours."""
    quarters = array.reshape(*array.shape[:-1], -1, 4).swapaxes(-1, -2)
    return quarters[..., UNFOLD_QUARTERS, :].reshape(array.shape)


def _to_unfold(array: np.ndarray) -> np.ndarray:
    quarters = array.reshape(*array.shape[:-1], 4, -1)[..., UNFOLD_QUARTERS, :]
    return quarters.swapaxes(-1, -2).reshape(array.shape)


# Patch merging where the four pixels of a channel are neighbours (OpenMMLab): the inputs change places.
UNFOLD_VECTOR = one((1,), _from_unfold, _to_unfold)
UNFOLD_LINEAR = one((2,), lambda w: _from_unfold(w).T, lambda w: _to_unfold(w.T))


def _position(arrays: Arrays, wanted: Shape | None) -> np.ndarray:
    """[1, tokens, C] of a classifier, or [1, C, rows, columns] of a dense backbone, to [rows, columns, C]."""
    (array,) = arrays
    if array.ndim == 4:
        return array[0].transpose(1, 2, 0)
    tokens, channels = array.shape[1:]
    side = math.isqrt(tokens)
    if wanted is not None and wanted[0] * wanted[1] == tokens:
        return array.reshape(wanted[0], wanted[1], channels)
    if side * side != tokens:
        raise ValueError(f"{tokens} positions are no square grid")
    return array.reshape(side, side, channels)


POSITION_TOKENS = Kind((3, 4), _position, lambda p, _: (p.reshape(1, -1, p.shape[-1]),))
POSITION_MAP = Kind((3, 4), _position, lambda p, _: (p.transpose(2, 0, 1)[None],))

ROI_CELLS = 49
"""Cells of the RoI features that a detector's first linear layer takes: 7 x 7."""


def _from_roi(array: np.ndarray) -> np.ndarray:
    """[out, C * 49] to [49 * C, out]: features are flattened by channels there, by cells here."""
    return array.reshape(array.shape[0], -1, ROI_CELLS).transpose(2, 1, 0).reshape(-1, array.shape[0])


def _to_roi(array: np.ndarray) -> np.ndarray:
    return array.reshape(ROI_CELLS, -1, array.shape[1]).transpose(2, 1, 0).reshape(array.shape[1], -1)


ROI_LINEAR = one((2,), _from_roi, _to_roi)
# [in, out, kh, kw] <-> [kh, kw, in, out]
DECONVOLUTION = one((4,), lambda w: w.transpose(2, 3, 0, 1), lambda w: w.transpose(2, 3, 0, 1))
