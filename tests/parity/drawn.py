"""Weights and pictures that both sides of a comparison draw for themselves, so that no file has to hold them.

Every value comes from numpy's frozen `RandomState`, seeded by the tensor's name: the same on every machine.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from swin_jax.weights import sort_state, unflatten

CLASSIFICATION_SIZES = ((224, 224), (448, 448), (224, 448), (256, 320), (200, 264))
DENSE_SIZES = (*CLASSIFICATION_SIZES, (97, 131))


def _normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.RandomState(zlib.crc32(name.encode()))
    return generator.standard_normal(shape).astype(np.float32)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A value for every name of a PyTorch state dict; nothing, biases and tables included, is at its default."""
    return {name: _weight(name, tuple(shape)) for name, shape in shapes.items()}


def tree(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A PyTorch state dict, in any layout, as our parameter tree."""
    arrays = {name: np.asarray(value, np.float32) for name, value in state.items()}
    return unflatten(sort_state(arrays, "reference").params)


def _weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    value = _normal(name, shape)
    if name.endswith("relative_position_bias_table"):
        return 0.5 * value
    if name.endswith("bias"):
        return 0.2 * value
    if len(shape) == 1:
        return 1.0 + 0.2 * value
    return value / np.float32(np.sqrt(np.prod(shape[1:])))


def pictures(height: int, width: int, batch: int = 2) -> np.ndarray:
    """Noise `[batch, height, width, 3]` of unit scale."""
    return _normal(f"picture {height}x{width}", (batch, height, width, 3))


def cotangent(stage: int, shape: tuple[int, ...]) -> np.ndarray:
    """What a map `[batch, height, width, channels]` is multiplied by to make a scalar; its mean is the loss."""
    return _normal(f"cotangent {stage}", shape)


def labels(batch: int, classes: int) -> np.ndarray:
    """One label per picture."""
    return np.arange(batch) % classes


def sample(values: np.ndarray, most: int = 160) -> np.ndarray:
    """At most `most` entries, evenly spaced over the flattened array."""
    flat = np.asarray(values).reshape(-1)
    return flat[:: -(-flat.size // most)]


def grid(values: np.ndarray, most: int = 7) -> np.ndarray:
    """A map `[batch, height, width, channels]` at up to `most` rows and columns, the first and last among them."""
    rows, columns = (np.unique(np.linspace(0, size - 1, most).astype(int)) for size in values.shape[1:3])
    return np.asarray(values)[:, rows][:, :, columns]
