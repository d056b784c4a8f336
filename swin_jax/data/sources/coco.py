"""COCO (Lin et al., 2014) and whatever else is annotated in its format: a directory or a zip."""

import dataclasses
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.sources.archive import ZipFiles, all_files, open_zip, top_folder
from swin_jax.data.sources.base import Record, digest, spread
from swin_jax.data.sources.coco_format import Annotations
from swin_jax.data.sources.files import read_file

log = logging.getLogger(__name__)
CHECKED = 4  # pictures that enter the fingerprint whole
SLICED = re.compile(r"(?P<name>[\w.-]+)(\[(?P<first>\d*):(?P<last>\d*)\])?")
YEARS = {"train": "train2017", "val": "val2017"}
"""COCO's splits by their short names."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a split's annotations and pictures lie; "{split}" stands for its name."""

    annotations: str
    pictures: str


OFFICIAL = Layout("annotations/instances_{split}.json", "{split}")
LAYOUTS = (
    OFFICIAL,
    Layout("annotations/instances_{split}.json", "images/{split}"),
    Layout("annotations/instances_{split}.json", "images"),
    Layout("annotations/{split}.json", "{split}"),
    Layout("annotations/{split}.json", "images/{split}"),
    Layout("annotations/{split}.json", "images"),
    Layout("{split}.json", "{split}"),
    Layout("{split}.json", "images/{split}"),
    Layout("{split}.json", "images"),
    Layout("{split}/_annotations.coco.json", "{split}"),
)
"""The official layout, and what annotation tools export."""


class CocoPictures:
    """The pictures of one split with their instances. A record's `instances` is an `Instances`, `label` is -1."""

    def __init__(self, root: str, split: str, *, kind: str, layouts: Sequence[Layout], training: bool):
        """
        Args:
          root: a directory, or the path of a zip; one folder around everything is looked through.
          split: as the files call it; "train" and "val" are COCO's of 2017 where there are no others, and
            "val2017[:500]" is the first 500 pictures of it.
          kind: how the source is called in `identity`.
          layouts: to look for, in this order.
          training: whether pictures without a countable object, or with a side below 32 pixels, are left out.

        Raises:
          ValueError: files are missing, or the annotations are not what they should be.
        """
        if not os.path.exists(root):
            raise ValueError(f"the data root {root!r} does not exist; give {_expected(layouts, split)}")
        sliced = SLICED.fullmatch(split)
        if sliced is None:
            raise ValueError(f"the split {split!r} is no name, nor a part of one such as 'val2017[:500]'")
        self._root, self._split, self._kind = root, split, kind
        entries = None if os.path.isdir(root) else open_zip(root)
        names = all_files(root) if entries is None else [name for name in entries if not name.endswith("/")]
        top = top_folder(names)
        place, folder = _find(root, sliced["name"], set(names), top, layouts)
        self._annotations = Annotations(self._text(place, entries), os.path.join(root, place))
        self._paths = [f"{folder}/{name}" for name in self._annotations.names]
        self._check_pictures(names, os.path.join(root, place))
        self._chosen = self._choose(sliced, training)
        if not len(self._chosen):
            raise ValueError(
                f"{os.path.join(root, place)} has no pictures with objects in the split {split!r}"
            )
        self._packed = None if entries is None else ZipFiles(root, [entries[path] for path in self._paths])
        self.class_names = self._annotations.class_names
        self.category_ids = self._annotations.category_ids
        self.has_masks = self._annotations.has_masks
        self._report()

    def _text(self, place: str, entries: Any) -> bytes:
        if entries is None:
            return read_file(os.path.join(self._root, place))
        return ZipFiles(self._root, [entries[place]]).read(0, os.path.join(self._root, place))

    def _check_pictures(self, names: Sequence[str], source: str) -> None:
        known = set(names)
        missing = [path for path in self._paths if path not in known]
        if missing:
            number = int(self._annotations.image_ids[self._paths.index(missing[0])])
            raise ValueError(
                f"{os.path.join(self._root, missing[0])} is missing: image {number} of {source}"
                + (f"; so are {len(missing) - 1} others" if len(missing) > 1 else "")
            )

    def _choose(self, sliced: re.Match[str], training: bool) -> np.ndarray:
        """Indices of the annotation file's pictures, int64."""
        kept = self._annotations.trainable() if training else np.ones(len(self._annotations), bool)
        first, last = (int(number) if number else None for number in (sliced["first"], sliced["last"]))
        return np.flatnonzero(kept)[slice(first, last)]

    def _report(self) -> None:
        count, first = self._annotations.useless()
        if count:
            log.info(
                "%s: %d annotations have no area, no side of a pixel or no part in their picture: not trained on (the "
                "first has the id %d)",
                self.identity,
                count,
                first,
            )

    @property
    def identity(self) -> str:
        name = os.path.basename(os.path.abspath(self._root))
        return f"{self._kind}:{name}:{self._split}:{len(self.class_names)} classes:{len(self)}"

    @property
    def fingerprint(self) -> str:
        """Of all annotations, the names of the files, and a few whole pictures."""
        some = [self[index]["image"] for index in spread(CHECKED, len(self))]
        names = self._annotations.names
        return digest(
            self.class_names, names.ends, names.joined, self._chosen, *self._annotations.parts(), *some
        )

    @property
    def sizes(self) -> np.ndarray:
        """(height, width) of the pictures, int32 [n, 2]."""
        return self._annotations.sizes[self._chosen]

    def truth(self) -> dict[str, Any]:
        """All of the split's annotations, as the COCO tools take them."""
        return self.truth_of(range(len(self)))

    def truth_of(self, indices: Iterable[int]) -> dict[str, Any]:
        """The same of some pictures."""
        return self._annotations.truth([int(self._chosen[index]) for index in indices])

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Record:
        place = int(self._chosen[index])
        name = os.path.join(self._root, self._paths[place])
        return {
            "image": read_file(name) if self._packed is None else self._packed.read(place, name),
            "instances": self._annotations.of_picture(place),
            "image_id": int(self._annotations.image_ids[place]),
            "size": self._annotations.sizes[place],
            "label": -1,
            "name": name,
        }


def check_size(record: Mapping[str, Any], height: int, width: int) -> None:
    """Raises UnreadablePicture unless a decoded picture is as large as its annotations say."""
    told = record.get("size")
    if told is not None and (height, width) != tuple(np.asarray(told).tolist()):
        raise UnreadablePicture(
            record["name"], f"it is {height} x {width} pixels, annotated as {told[0]} x {told[1]}"
        )


def open_coco(root: str, split: str, *, training: bool) -> CocoPictures:
    """COCO in its official layout: `annotations/instances_{split}.json` and the pictures in `{split}/`."""
    return CocoPictures(root, split, kind="coco", layouts=(OFFICIAL,), training=training)


def open_coco_format(root: str, split: str, *, training: bool) -> CocoPictures:
    """Any folder or zip with annotations in COCO's format, see `LAYOUTS`."""
    return CocoPictures(root, split, kind="instances", layouts=LAYOUTS, training=training)


def _find(root: str, split: str, names: set[str], top: str, layouts: Sequence[Layout]) -> tuple[str, str]:
    """The annotation file of a split and the folder of its pictures."""
    folders = {name.rpartition("/")[0] for name in names}
    prefix = f"{top}/" if top else ""
    for name in (split, YEARS.get(split, split)):
        for before in ("", prefix):
            for layout in layouts:
                place = before + layout.annotations.format(split=name)
                folder = before + layout.pictures.format(split=name)
                within = any(one == folder or one.startswith(folder + "/") for one in folders)
                if place in names and within:
                    return place, folder
    known = sorted(name for name in names if name.endswith(".json"))
    found = f"; it has {', '.join(known[:6])}" if known else "; it has no JSON file"
    raise ValueError(f"{root!r} has no split {split!r}: expected {_expected(layouts, split)}{found}")


def _expected(layouts: Sequence[Layout], split: str) -> str:
    ways = [
        f"{layout.annotations.format(split=split)} with {layout.pictures.format(split=split)}/"
        for layout in layouts
    ]
    return " or ".join(ways[:4])
