"""Files of a zip by number, without zipfile's handle: that has one position, and an index too large for workers."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from swin_jax.data.decode import UnreadablePicture

HEADER = struct.Struct(
    "<4s22xHH"
)  # of a file inside a zip: signature, ..., lengths of its name and extra field
SIGNATURE = b"PK\x03\x04"
ENCRYPTED = 0x1


class ZipFiles:
    """Chosen files of a zip, read at their offsets: by any number of threads, and picklable.

    `unpacked_sizes` are their sizes in bytes, int64 [number of files].
    """

    def __init__(self, path: str, entries: Sequence[zipfile.ZipInfo]):
        """
        Raises:
          ValueError: an entry is encrypted, or compressed otherwise than by deflate.
        """
        for entry in entries:
            if entry.flag_bits & ENCRYPTED or entry.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise ValueError(
                    f"{path} holds {entry.filename} encrypted or in a rare compression; "
                    "pack it with deflate or uncompressed, without a password"
                )
        self._path = path
        self._offsets = np.array([entry.header_offset for entry in entries], np.int64)
        self._sizes = np.array([entry.compress_size for entry in entries], np.int64)
        self._checks = np.array([entry.CRC for entry in entries], np.uint32)
        self._deflated = np.array([entry.compress_type == zipfile.ZIP_DEFLATED for entry in entries], bool)
        self.unpacked_sizes = np.array([entry.file_size for entry in entries], np.int64)
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound now: `os` may be gone by then
        if hasattr(self, "_file"):
            close(self._file)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._file = os.open(self._path, os.O_RDONLY)

    def read(self, index: int, name: str) -> bytes:
        """The file's bytes. Raises UnreadablePicture naming it."""
        try:
            data = self._read(int(self._offsets[index]), int(self._sizes[index]))
            data = zlib.decompress(data, -zlib.MAX_WBITS) if self._deflated[index] else data
        except (OSError, zlib.error, struct.error) as error:
            raise UnreadablePicture(name, f"the zip is damaged there ({error})") from error
        if zlib.crc32(data) != self._checks[index]:
            raise UnreadablePicture(name, "the zip is damaged there (wrong checksum)")
        return data

    def _read(self, offset: int, size: int) -> bytes:
        signature, name_length, extra_length = HEADER.unpack(os.pread(self._file, HEADER.size, offset))
        if signature != SIGNATURE:
            raise OSError("no file begins where the directory says")
        return os.pread(self._file, size, offset + HEADER.size + name_length + extra_length)


def open_zip(path: str) -> dict[str, zipfile.ZipInfo]:
    """The entries of a zip by name.

    Raises:
      ValueError: it is no zip, or cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"the data root {path!r} is neither a directory nor a zip ({error})") from error


def below(names: Iterable[str], folder: str) -> Iterator[str]:
    """Names below a folder of the zip, relative to it; those of folders end with "/"."""
    prefix = folder + "/"
    return (name[len(prefix) :] for name in names if name.startswith(prefix) and name != prefix)


def all_files(root: str) -> list[str]:
    """Paths below `root`, with "/"; links are followed, hidden folders are not."""
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = os.path.relpath(folder, root).replace(os.sep, "/")
        found += [name if prefix == "." else f"{prefix}/{name}" for name in files]
    return found


def top_folder(names: Iterable[str]) -> str:
    """The one folder that holds everything, as zips have it; else ""."""
    tops = {
        name.partition("/")[0] if "/" in name else ""
        for name in names
        if not name.startswith((".", "__MACOSX"))
    }
    return next(iter(tops)) if len(tops) == 1 else ""
