"""Single files as a source, and parts of a source."""

import dataclasses
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.sources.archive import ZipFiles
from swin_jax.data.sources.base import Record, Source, digest, spread

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""In lower case; what a folder is searched for."""
SIZED = 1000  # files whose sizes enter a fingerprint


def read_file(path: str) -> bytes:
    """Its bytes. Raises UnreadablePicture naming it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadablePicture(path, error.strerror or type(error).__name__) from error


class Strings:
    """A sequence of texts in two arrays: a list of millions would be copied page by page into every worker."""

    def __init__(self, texts: Iterable[str]):
        joined, ends = bytearray(), array("q")
        for text in texts:
            joined += os.fsencode(text)
            ends.append(len(joined))
        self.ends = np.frombuffer(ends, np.int64)
        self.joined = np.frombuffer(joined, np.uint8)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.joined[start : self.ends[index]].tobytes())


def listing_fingerprint(
    class_names: tuple[str, ...], labels: np.ndarray, paths: Strings, directory: str, packed: ZipFiles | None
) -> str:
    """The fingerprint of listed pictures: all paths, labels and classes, and the sizes in bytes of some files.

    The files are those of `packed`, or lie below `directory`; both give the same fingerprint.
    Asking a file server for the sizes of millions of files would take longer than opening them all.
    """
    some = spread(SIZED, len(paths))
    if packed is None:
        sizes = [file_size(os.path.join(directory, paths[index])) for index in some]
    else:
        sizes = packed.unpacked_sizes[some]
    return digest(class_names, labels, paths.ends, paths.joined, np.asarray(sizes, np.int64))


def file_size(path: str) -> int:
    """In bytes; -1 where it cannot be told: reading the file says why."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


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
