"""Pictures sorted into one folder per class: a directory or a zip of `<split>/<class>/**/*`."""

import logging
import os
import zipfile
from collections.abc import Iterable, Iterator

import numpy as np

from swin_jax.data.sources.archive import ZipFiles, below, open_zip
from swin_jax.data.sources.base import Record
from swin_jax.data.sources.files import PICTURE_SUFFIXES, Strings, listing_fingerprint, read_file

log = logging.getLogger(__name__)

TRAIN = "train"
Listing = dict[str, list[str]]
"""class name -> paths of its pictures below the class folder, sorted."""


class Folder:
    """The pictures of one split.

    Classes are the folders of the training split sorted by name, whatever the split: a label means the same
    everywhere. Pictures may lie in folders below their class; hidden files and files that are no pictures by their
    suffix are left out.
    """

    def __init__(self, root: str, split: str):
        """
        Args:
          root: a directory, or the path of a zip, with one folder per split.
          split: name of the split's folder, e.g. "train", "val" or "test".

        Raises:
          ValueError: root, split or pictures are missing, or the split has a class that the training split lacks.
        """
        if not os.path.exists(root):
            raise ValueError(
                f"the data root {root!r} does not exist; give a directory or zip with {TRAIN}/<class>/*"
            )
        entries = None if os.path.isdir(root) else open_zip(root)
        listing = _list(root, split, entries)
        classes = sorted(listing if split == TRAIN else _class_folders(root, TRAIN, entries))
        _check_classes(root, split, listing, classes)
        counts = [len(listing.get(name, ())) for name in classes]
        paths = [f"{split}/{name}/{path}" for name in classes for path in listing.get(name, ())]
        self._root, self._split = root, split
        self.class_names = tuple(classes)
        self._labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
        self._paths = Strings(paths)
        self._zip = None if entries is None else ZipFiles(root, [entries[path] for path in paths])

    @property
    def identity(self) -> str:
        name = os.path.basename(os.path.abspath(self._root))
        return f"folder:{name}:{self._split}:{len(self.class_names)} classes:{len(self)}"

    @property
    def fingerprint(self) -> str:
        """As `listing_fingerprint` has it; alike for a directory and a zip of it."""
        return listing_fingerprint(self.class_names, self._labels, self._paths, self._root, self._zip)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Record:
        name = os.path.join(self._root, self._paths[index])
        image = read_file(name) if self._zip is None else self._zip.read(index, name)
        return {"image": image, "label": int(self._labels[index]), "name": name}


def _list(root: str, split: str, entries: dict[str, zipfile.ZipInfo] | None) -> Listing:
    classes = _class_folders(root, split, entries)
    paths = _walk(os.path.join(root, split), classes) if entries is None else below(entries, split)
    listing = _group(paths, classes)
    if not any(listing.values()):
        raise ValueError(
            f"{root} has no pictures in the class folders of {split}/: expected files ending in "
            f"{', '.join(PICTURE_SUFFIXES)}"
        )
    return listing


def _class_folders(root: str, split: str, entries: dict[str, zipfile.ZipInfo] | None) -> list[str]:
    """Names of the folders of a split, hidden ones excluded. Raises ValueError where there are none."""
    if entries is None:
        top, place = _folders(root), os.path.join(root, split)
        names = _folders(place) if os.path.isdir(place) else []
    else:
        top = sorted({name.partition("/")[0] for name in entries if "/" in name})
        names = sorted({name.partition("/")[0] for name in below(entries, split) if "/" in name})
    names = [name for name in names if not name.startswith(".")]
    if not names:
        seen = f"found the folders {', '.join(top[:5])}{', ...' * (len(top) > 5)}" if top else "found none"
        raise ValueError(
            f"{root} has no class folders in {split}/: expected {split}/<class>/<pictures>, {seen}"
        )
    return names


def _folders(directory: str) -> list[str]:
    return sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())


def _walk(directory: str, classes: Iterable[str]) -> Iterator[str]:
    """Paths, relative and with "/", of all files in and below the class folders; links are followed."""
    for name in classes:
        for folder, folders, files in os.walk(os.path.join(directory, name), followlinks=True):
            folders[:] = [below for below in folders if not _leads_back(folder, below)]
            prefix = folder[len(directory) + 1 :].replace(os.sep, "/")
            yield from (f"{prefix}/{file}" for file in files)


def _leads_back(folder: str, name: str) -> bool:
    """Whether this is a link to a folder that it lies in."""
    path = os.path.join(folder, name)
    return os.path.islink(path) and os.path.commonpath(
        [os.path.realpath(path), os.path.realpath(folder)]
    ) == os.path.realpath(path)


def _group(paths: Iterable[str], classes: Iterable[str]) -> Listing:
    """Pictures by class; what is hidden, or no picture by its suffix, is left out."""
    listing: Listing = {name: [] for name in classes}
    for path in paths:
        name, _, rest = path.partition("/")
        hidden = rest.startswith(".") or "/." in rest
        if name in listing and rest.lower().endswith(PICTURE_SUFFIXES) and not hidden:
            listing[name].append(rest)
    return {name: sorted(pictures) for name, pictures in listing.items()}


def _check_classes(root: str, split: str, listing: Listing, classes: list[str]) -> None:
    unknown = sorted(set(listing) - set(classes))
    if unknown:
        raise ValueError(
            f"{root} has the class folder {unknown[0]!r} in {split}/ but not in {TRAIN}/ "
            f"({len(unknown)} such in all); add it to {TRAIN}/ or remove it from {split}/"
        )
    missing = [name for name in classes if not listing.get(name)]
    if missing:
        log.warning("%s: %s/ has no pictures of %d classes, e.g. %s", root, split, len(missing), missing[0])
