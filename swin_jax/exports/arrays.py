"""Parameters alone, for whoever writes the program themselves: names are our tree paths, values float32."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from swin_jax.weights import read_weights, write_weights

NPZ = "params.npz"
SAFETENSORS = "params.safetensors"


def write_npz(path: Path, params: Mapping[str, np.ndarray]) -> None:
    """Writes them as numpy's archive, and reads it back. Raises ValueError if one bit is another."""
    arrays: dict[str, Any] = dict(params)
    with path.open("wb") as file:
        np.savez(file, **arrays)
    with np.load(path, allow_pickle=False) as archive:
        check_bits(path, {name: archive[name] for name in archive.files}, params)


def write_safetensors(path: Path, params: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> None:
    """Writes them with the description in the header, and reads it back. Raises ValueError as `write_npz`."""
    write_weights(path, params, description=description)
    check_bits(path, read_weights(path).params, params)


def check_bits(file: Path, found: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError unless both have the same names and float32 values, bit for bit."""
    same = found.keys() == params.keys() and all(
        np.array_equal(value.view(np.uint32), np.asarray(params[path], np.float32).view(np.uint32))
        for path, value in found.items()
    )
    if not same:
        raise ValueError(f"{file} does not read back as it was written; the disk or a library is at fault")
