"""COCO (Lin et al., 2014) and whatever else is annotated in its format: a directory or a zip."""

import dataclasses
import functools
import logging
import os
import posixpath
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.labels import LabelCoding, LabelMap, default_palette
from swin_jax.data.sources.archive import ZipFiles, all_files, open_zip, top_folder
from swin_jax.data.sources.base import Record, digest, spread
from swin_jax.data.sources.coco_format import Annotations
from swin_jax.data.sources.files import read_file

log = logging.getLogger(__name__)
CHECKED = 4  # pictures that enter the fingerprint whole, with their label maps
STUFF_CLASSES = 183  # values 0 to 182 of COCO-Stuff's maps; 255 is ignored
SLICED = re.compile(r"(?P<name>[\w.-]+)(\[(?P<first>\d*):(?P<last>\d*)\])?")
YEARS = {"train": "train2017", "val": "val2017"}
"""COCO's splits by their short names."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a split's annotations, pictures and, if there are any, label maps lie; "{split}" stands for its name."""

    annotations: str
    pictures: str
    semantic: str = "stuffthingmaps/{split}"

    def of(self, split: str, before: str) -> "Layout":
        """The same for one split, below `before`."""
        places = (self.annotations, self.pictures, self.semantic)
        return Layout(*(before + place.format(split=split) for place in places))


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
    """The pictures of one split with their instances. A record's `instances` is an `Instances`, `label` is -1; where
    `semantic_classes` is not 0, `semantic` is a `LabelMap`."""

    def __init__(
        self,
        root: str,
        split: str,
        *,
        kind: str,
        layouts: Sequence[Layout],
        training: bool,
        semantic: bool = False,
    ):
        """
        Args:
          root: a directory, or the path of a zip; one folder around everything is looked through.
          split: as the files call it; "train" and "val" are COCO's of 2017 where there are no others, and
            "val2017[:500]" is the first 500 pictures of it.
          kind: how the source is called in `identity`.
          layouts: to look for, in this order.
          training: whether pictures without a countable object, or with a side below 32 pixels, are left out.
          semantic: whether records hold the label maps of COCO-Stuff (Caesar et al., 2018), if the split has any:
            `stuffthingmaps/{split}/<name of the picture>.png`.

        Raises:
          ValueError: files are missing, some of the label maps among them, or the annotations are not what they should
            be.
        """
        if not os.path.exists(root):
            raise ValueError(f"the data root {root!r} does not exist; give {_expected(layouts, split)}")
        sliced = SLICED.fullmatch(split)
        if sliced is None:
            raise ValueError(f"the split {split!r} is no name, nor a part of one such as 'val2017[:500]'")
        self._root, self._split, self._kind = root, split, kind
        entries = None if os.path.isdir(root) else open_zip(root)
        names = all_files(root) if entries is None else [name for name in entries if not name.endswith("/")]
        known = set(names)
        places = _find(root, sliced["name"], known, top_folder(names), layouts)
        source = os.path.join(root, places.annotations)
        self._annotations = Annotations(self._text(places.annotations, entries), source)
        pictures = [f"{places.pictures}/{name}" for name in self._annotations.names]
        self._check_files(pictures, known, source)
        self._pictures = _Files(root, pictures, entries)
        self._maps = self._label_maps(places.semantic, known, entries, source) if semantic else None
        self._chosen = self._choose(sliced, training)
        if not len(self._chosen):
            raise ValueError(f"{source} has no pictures with objects in the split {split!r}")
        self.class_names = self._annotations.class_names
        self.category_ids = self._annotations.category_ids
        self.has_masks = self._annotations.has_masks
        self._report()

    def _text(self, place: str, entries: Any) -> bytes:
        if entries is None:
            return read_file(os.path.join(self._root, place))
        return ZipFiles(self._root, [entries[place]]).read(0, os.path.join(self._root, place))

    def _check_files(self, paths: Sequence[str], known: set[str], source: str, what: str = "") -> None:
        """Raises ValueError unless `paths`, one for each picture, are all there; `what` of the picture they are."""
        missing = [path for path in paths if path not in known]
        if missing:
            number = int(self._annotations.image_ids[paths.index(missing[0])])
            raise ValueError(
                f"{os.path.join(self._root, missing[0])} is missing: {what}image {number} of {source}"
                + (f"; so are {len(missing) - 1} others" if len(missing) > 1 else "")
            )

    def _label_maps(
        self, folder: str, known: set[str], entries: Mapping[str, zipfile.ZipInfo] | None, source: str
    ) -> "_Files | None":
        """One for each picture, or None where the folder is not there."""
        if not any(name.startswith(f"{folder}/") for name in known):
            return None
        stems = (posixpath.splitext(name)[0] for name in self._annotations.names)
        paths = [f"{folder}/{stem}.png" for stem in stems]
        self._check_files(paths, known, source, "the label map of ")
        return _Files(self._root, paths, entries)

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
        """Of all annotations, the names of the files, and a few whole pictures and label maps."""
        names = self._annotations.names
        some = encoded([self[index] for index in spread(CHECKED, len(self))])
        return digest(
            self.class_names, names.ends, names.joined, self._chosen, *self._annotations.parts(), *some
        )

    @property
    def semantic_classes(self) -> int:
        """How many classes the records' label maps have; 0 where records hold none."""
        return 0 if self._maps is None else STUFF_CLASSES

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
        record = {
            "image": self._pictures.read(place),
            "instances": self._annotations.of_picture(place),
            "image_id": int(self._annotations.image_ids[place]),
            "size": self._annotations.sizes[place],
            "label": -1,
            "name": self._pictures.name(place),
        }
        if self._maps is not None:
            record["semantic"] = LabelMap(self._maps.read(place), stuff_coding(), self._maps.name(place))
        return record


class _Files:
    """A file of each of a split's pictures, read by the picture's number."""

    def __init__(self, root: str, paths: Sequence[str], entries: Mapping[str, zipfile.ZipInfo] | None):
        self._root, self._paths = root, paths
        self._packed = None if entries is None else ZipFiles(root, [entries[path] for path in paths])

    def name(self, index: int) -> str:
        return os.path.join(self._root, self._paths[index])

    def read(self, index: int) -> bytes:
        name = self.name(index)
        return read_file(name) if self._packed is None else self._packed.read(index, name)


@functools.cache
def stuff_coding() -> LabelCoding:
    """Of COCO-Stuff's label maps: values are class numbers, and the classes go by them: nobody is shown these maps."""
    names = tuple(str(value) for value in range(STUFF_CLASSES))
    return LabelCoding(names, default_palette(STUFF_CLASSES), tuple(range(STUFF_CLASSES)))


def encoded(records: Sequence[Record]) -> list[bytes]:
    """Their pictures, and after these their label maps if they hold any."""
    maps = [record["semantic"].data for record in records if "semantic" in record]
    return [*(record["image"] for record in records), *maps]


def check_size(record: Mapping[str, Any], height: int, width: int) -> None:
    """Raises UnreadablePicture unless a decoded picture is as large as its annotations say."""
    told = record.get("size")
    if told is not None and (height, width) != tuple(np.asarray(told).tolist()):
        raise UnreadablePicture(
            record["name"], f"it is {height} x {width} pixels, annotated as {told[0]} x {told[1]}"
        )


def open_coco(root: str, split: str, *, training: bool, semantic: bool = False) -> CocoPictures:
    """COCO in its official layout: `annotations/instances_{split}.json` and the pictures in `{split}/`."""
    return CocoPictures(root, split, kind="coco", layouts=(OFFICIAL,), training=training, semantic=semantic)


def open_coco_format(root: str, split: str, *, training: bool, semantic: bool = False) -> CocoPictures:
    """Any folder or zip with annotations in COCO's format, see `LAYOUTS`."""
    return CocoPictures(root, split, kind="instances", layouts=LAYOUTS, training=training, semantic=semantic)


def _find(root: str, split: str, names: set[str], top: str, layouts: Sequence[Layout]) -> Layout:
    """The annotation file of a split, the folder of its pictures and the one that label maps would be in."""
    folders = {name.rpartition("/")[0] for name in names}
    prefix = f"{top}/" if top else ""
    for name in (split, YEARS.get(split, split)):
        for before in ("", prefix):
            for layout in layouts:
                places = layout.of(name, before)
                folder = places.pictures
                within = any(one == folder or one.startswith(folder + "/") for one in folders)
                if places.annotations in names and within:
                    return places
    known = sorted(name for name in names if name.endswith(".json"))
    found = f"; it has {', '.join(known[:6])}" if known else "; it has no JSON file"
    raise ValueError(f"{root!r} has no split {split!r}: expected {_expected(layouts, split)}{found}")


def _expected(layouts: Sequence[Layout], split: str) -> str:
    ways = [
        f"{layout.annotations.format(split=split)} with {layout.pictures.format(split=split)}/"
        for layout in layouts
    ]
    return " or ".join(ways[:4])
