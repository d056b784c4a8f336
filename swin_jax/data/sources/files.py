"""Single files as a source, and parts of a source."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.sources.base import Record, Source, digest

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""In lower case; what a folder is searched for."""


def read_file(path: str) -> bytes:
    """Its bytes. Raises UnreadablePicture naming it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadablePicture(path, error.strerror or type(error).__name__) from error


class Files:
    """Pictures by path, without labels (-1) and classes."""

    class_names: tuple[str, ...] = ()

    def __init__(self, paths: Sequence[str]):
        self._paths = tuple(paths)

    @property
    def identity(self) -> str:
        return f"files:{len(self)}"

    @property
    def fingerprint(self) -> str:
        return digest(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Record:
        path = self._paths[index]
        return {"image": read_file(path), "label": -1, "name": path}


@dataclasses.dataclass(frozen=True)
class Subset:
    """The examples of `source` at `indices`, in their order."""

    source: Source
    indices: tuple[int, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @property
    def identity(self) -> str:
        return f"{self.source.identity}:subset of {len(self)}"

    @property
    def fingerprint(self) -> str:
        return digest(self.source.fingerprint, np.asarray(self.indices, np.int64))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self.source[self.indices[index]]
