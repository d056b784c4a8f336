"""Pictures named by a list file: beside it, or in a zip beside it. The released code's forms of ImageNet-1K and -22K.

The list of a split is, in the root, `<split>.txt`, `<split>_map.txt` (the only one with a zip, `<split>.zip`) or
`ILSVRC2011fall_whole_map_<split>.txt`. It is a JSON list of [path, label], or has a path and a label on each line,
with a tab or spaces between. Labels are numbered from 0.
"""

import functools
import json
import logging
import os
from array import array
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np

from swin_jax.data.sources.archive import ZipFiles, open_zip
from swin_jax.data.sources.base import Record, spread
from swin_jax.data.sources.files import Strings, listing_fingerprint, read_file

log = logging.getLogger(__name__)

TRAIN = "train"
IMAGENET_22K = "ILSVRC2011fall_whole_map_{}.txt"
IMAGENET_22K_CLASSES = 21841
FOLDED = {21841: 9205, 21842: 15027}
"""Two numbers of the ImageNet-22K lists that mean a class for a second time (released code)."""
LISTS = ("{}.txt", "{}_map.txt", IMAGENET_22K)
ZIP_LISTS = ("{}_map.txt",)
CHECKED = 16  # files that are looked for when a source is opened
JSON_PIECE = 1 << 20  # characters
SEPARATORS = " \t\r\n,"
LARGEST = 10**9 - 1  # label


class Listing(NamedTuple):
    """A list that was read; `folders` has for each label the folder of its pictures, None where they lie in several."""

    paths: Strings
    labels: np.ndarray
    folders: dict[int, str | None]


class Listed:
    """The pictures of one list.

    The training list decides the classes, whatever the split. They are called as the folders that its pictures lie in
    (ImageNet's wnids) where labels and folders agree one to one, else by their number. Paths are relative to the root
    or, where the first listed file is found there, to the split's folder in it; in a zip they are its names.
    """

    def __init__(self, root: str, split: str, *, zipped: bool):
        """
        Args:
          root: the directory of the lists.
          split: "train", "val" or what else there is a list of.
          zipped: whether the pictures are in `<split>.zip`.

        Raises:
          ValueError: a list is missing or malformed, a label is out of range, or a listed file is missing (in a zip
            any, otherwise one of some that are looked for).
        """
        if not os.path.isdir(root):
            raise ValueError(
                f"the data root {root!r} is not a directory; give the one in which the lists lie"
            )
        path, train = (_find_list(root, name, zipped) for name in (split, TRAIN))
        listing = _read(path)
        self.class_names = _class_names(train, _read(train))
        _check_labels(path, listing, len(self.class_names))
        self._root, self._split, self._kind = root, split, "zip_map" if zipped else "list"
        self._paths, self._labels = listing.paths, listing.labels
        self._zip = _zip_files(os.path.join(root, f"{split}.zip"), path, listing.paths) if zipped else None
        self._place = f"{split}.zip" if zipped else _place(root, split, path, listing.paths)

    @property
    def identity(self) -> str:
        name = os.path.basename(os.path.abspath(self._root))
        return f"{self._kind}:{name}:{self._split}:{len(self.class_names)} classes:{len(self)}"

    @property
    def fingerprint(self) -> str:
        directory = os.path.join(self._root, self._place)
        return listing_fingerprint(self.class_names, self._labels, self._paths, directory, self._zip)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Record:
        name = os.path.join(self._root, self._place, self._paths[index])
        image = read_file(name) if self._zip is None else self._zip.read(index, name)
        return {"image": image, "label": int(self._labels[index]), "name": name}


def _find_list(root: str, split: str, zipped: bool) -> str:
    names = [name.format(split) for name in (ZIP_LISTS if zipped else LISTS)]
    found = [name for name in names if os.path.isfile(os.path.join(root, name))]
    if len(found) == 1:
        return os.path.join(root, found[0])
    if found:
        raise ValueError(
            f"{root} has several lists of the split {split!r}: {', '.join(found)}; keep one of them there"
        )
    there = sorted(name for name in os.listdir(root) if name.endswith(".txt"))
    seen = (
        f"its .txt files are {', '.join(there[:5])}{', ...' * (len(there) > 5)}"
        if there
        else "it has no .txt files"
    )
    raise ValueError(f"{root} has no list of the split {split!r}: expected {' or '.join(names)}; {seen}")


def _read(path: str) -> Listing:
    status = os.stat(path)
    return _read_once(path, status.st_mtime_ns, status.st_size)


# Remembered because the training list is asked for with every split; the arrays are the sources' own.
@functools.lru_cache(maxsize=2)
def _read_once(path: str, _modified: int, _size: int) -> Listing:
    labels, folders = array("i"), dict[int, str | None]()
    folded = FOLDED if _is_imagenet_22k(path) else {}

    def paths() -> Iterator[str]:
        # One pass for all three, and nothing is kept of an entry but its bytes.
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            is_json = file.read(1) == "["
            file.seek(0)
            for name, label in (_json_pairs if is_json else _lines)(file, path):
                labels.append(folded.get(label, label))
                folder = name.rpartition("/")[0].rpartition("/")[2]
                if label not in folded and folders.setdefault(label, folder) != folder:
                    folders[label] = None
                yield name

    names = Strings(paths())
    if not labels:
        raise ValueError(f"{path} lists no pictures; expected a path and a label on each line")
    return Listing(names, np.frombuffer(labels, np.int32), folders)


def _lines(file: IO[str], path: str) -> Iterator[tuple[str, int]]:
    for number, line in enumerate(file, start=1):
        line = line.strip()
        if not line:
            continue
        name, _, label = line.rpartition("\t" if "\t" in line else " ")
        name, label = name.strip(), label.strip()
        if not name or not label.isdecimal() or int(label) > LARGEST:
            raise ValueError(
                f"line {number} of {path} is {line[:80]!r}; expected a path, a tab or space, and a label from 0 on"
            )
        yield name, int(label)


def _json_pairs(file: IO[str], path: str) -> Iterator[tuple[str, int]]:
    """The pairs of a JSON list, piece by piece: that of ImageNet-22K would take gigabytes at once."""
    decoder, text, at, number = json.JSONDecoder(), "", 0, 1
    file.read(1)  # the opening bracket
    while True:
        while text[at : at + 1] in SEPARATORS and at < len(text):
            at += 1
        if text.startswith("]", at):
            return
        try:
            pair, end = decoder.raw_decode(text, at)
        except ValueError:
            rest = text[at:]
            piece = file.read(JSON_PIECE) if len(rest) < JSON_PIECE else ""
            if not piece:
                raise ValueError(_no_pair(path, number, rest[:80])) from None
            text, at = rest + piece, 0
            continue
        match pair:
            case [str(name), int(label)] if name and 0 <= label <= LARGEST:
                yield name, label
            case _:
                raise ValueError(_no_pair(path, number, text[at:end][:80]))
        at, number = end, number + 1


def _no_pair(path: str, number: int, got: str) -> str:
    return f"entry {number} of {path} is {got!r}; expected [path, label] with a label from 0 on"


def _class_names(path: str, listing: Listing) -> tuple[str, ...]:
    """Of the training list at `path`, in the order of the labels."""
    count = IMAGENET_22K_CLASSES if _is_imagenet_22k(path) else int(listing.labels.max()) + 1
    if not _is_imagenet_22k(path) and count > len(listing.paths):
        raise ValueError(
            f"{path} has the label {count - 1}, but names only {len(listing.paths)} pictures; number the classes from 0"
        )
    _check_labels(path, listing, count)
    folders = listing.folders
    one_to_one = all(folders.values()) and len(set(folders.values())) == len(folders)
    names = tuple((folders.get(label) if one_to_one else None) or str(label) for label in range(count))
    return names if len(set(names)) == count else tuple(map(str, range(count)))


def _check_labels(path: str, listing: Listing, num_classes: int) -> None:
    wrong = np.flatnonzero(listing.labels >= num_classes)
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(
            f"{path} gives {listing.paths[first]!r} (entry {first + 1}) the label {listing.labels[first]}; there are "
            f"{num_classes} classes, 0 to {num_classes - 1} ({len(wrong)} such entries in all)"
        )
    missing = np.flatnonzero(np.bincount(listing.labels, minlength=num_classes) == 0)
    if len(missing):
        log.warning("%s has no pictures of %d classes, e.g. number %d", path, len(missing), missing[0])


def _zip_files(path: str, list_path: str, names: Strings) -> ZipFiles:
    if not os.path.isfile(path):
        raise ValueError(f"{path} is missing: it should hold the pictures of {list_path}")
    entries = open_zip(path)
    missing = [(number, name) for number, name in enumerate(names, start=1) if name not in entries]
    if missing:
        number, name = missing[0]
        raise ValueError(
            f"{list_path} names {name!r} (entry {number}), which is not in {path} ({len(missing)} such in all)"
        )
    return ZipFiles(path, [entries[name] for name in names])


def _place(root: str, split: str, path: str, names: Strings) -> str:
    """Where in the root the listed paths begin: at the root itself, or at the split's folder."""
    place = "" if os.path.isfile(os.path.join(root, names[0])) else split
    # Looking for each of millions would take hours; one that is missing later is reported when it is read.
    for index in spread(CHECKED, len(names)):
        if not os.path.isfile(os.path.join(root, place, names[index])):
            raise ValueError(
                f"{path} names {names[index]!r} (entry {index + 1}), but no such file is in {root} or in its "
                f"folder {split}"
            )
    return place


def _is_imagenet_22k(path: str) -> bool:
    prefix = IMAGENET_22K.partition("{")[0]
    return os.path.basename(path).startswith(prefix)
