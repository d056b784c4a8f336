"""Pictures with label maps in files: a directory or a zip, laid out as common data sets are."""

import dataclasses
import os
import posixpath
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

from swin_jax.data.labels import LabelCoding, LabelMap, parse_classes
from swin_jax.data.sources.archive import ZipFiles, all_files, open_zip, top_folder
from swin_jax.data.sources.base import Record, digest, spread
from swin_jax.data.sources.files import PICTURE_SUFFIXES, Strings, read_file

LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".gif")
CLASS_LISTS = ("classes.txt", "class_dict.csv", "label_colors.txt")
CHECKED = 16  # label maps that are decoded when a source is opened

# Cityscapes' 19 classes (Cordts et al., 2016): the name, its colour, and its value in files named labelIds.
CITYSCAPES = """road 128 64 128 7|sidewalk 244 35 232 8|building 70 70 70 11|wall 102 102 156 12|fence 190 153 153 13
pole 153 153 153 17|traffic light 250 170 30 19|traffic sign 220 220 0 20|vegetation 107 142 35 21
terrain 152 251 152 22|sky 70 130 180 23|person 220 20 60 24|rider 255 0 0 25|car 0 0 142 26|truck 0 0 70 27
bus 0 60 100 28|train 0 80 100 31|motorcycle 0 0 230 32|bicycle 119 11 32 33"""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the files of a split lie.

    Attributes:
      pictures: the folder of the pictures; "{split}" stands for the split's name.
      labels: folders that their label maps may be in, at the same place below.
      picture_ending: of a picture's name before its suffix, which its label map's name does not have.
      label_endings: which that may have instead.
    """

    pictures: str
    labels: tuple[str, ...]
    picture_ending: str = ""
    label_endings: tuple[str, ...] = ("",)


ADE20K = Layout("images/{split}", ("annotations/{split}",))
LAYOUTS = (
    Layout("images/{split}", ("annotations/{split}", "labels/{split}", "masks/{split}")),
    Layout(
        "leftImg8bit/{split}",
        ("gtFine/{split}", "gtCoarse/{split}"),
        "_leftImg8bit",
        ("_gtFine_labelTrainIds", "_gtFine_labelIds", "_gtCoarse_labelTrainIds", "_gtCoarse_labelIds"),
    ),
    Layout("{split}", ("{split}_labels", "{split}annot"), "", ("_L", "")),  # CamVid
)


class LabelPairs:
    """The pictures of one split, each with its label map. A record's `semantic` is a `LabelMap`."""

    def __init__(
        self, root: str, split: str, *, kind: str, layouts: Sequence[Layout], coding: LabelCoding | None
    ):
        """
        Args:
          root: a directory, or the path of a zip; one folder around everything is looked through.
          split: "train", "training", "val", ... as the folders are called.
          kind: how the source is called in `identity`.
          layouts: to look for, in this order.
          coding: of the label files; None reads the list of classes in the root (`CLASS_LISTS`).

        Raises:
          ValueError: the data are missing, or a picture or a label map has no partner.
        """
        if not os.path.exists(root):
            raise ValueError(f"the data root {root!r} does not exist; give {_expected(layouts, split)}")
        self._root, self._split, self._kind = root, split, kind
        entries = None if os.path.isdir(root) else open_zip(root)
        names = all_files(root) if entries is None else [name for name in entries if not name.endswith("/")]
        top = top_folder(names)
        pictures, labels = _pairs(root, split, names, top, layouts)
        self.coding = coding if coding is not None else _coding(root, names, top, entries, labels)
        self._pictures, self._labels = Strings(pictures), Strings(labels)
        self._zips = None
        if entries is not None:
            self._zips = tuple(
                ZipFiles(root, [entries[path] for path in paths]) for paths in (pictures, labels)
            )
        some = [self[index] for index in spread(CHECKED, len(self))]
        maps = [self.coding.decode(record["semantic"].data, record["semantic"].name) for record in some]
        self._fingerprint = digest(
            self.class_names, pictures, labels, *(record["image"] for record in some), *maps
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.coding.class_names

    @property
    def identity(self) -> str:
        name = os.path.basename(os.path.abspath(self._root))
        return f"{self._kind}:{name}:{self._split}:{len(self.class_names)} classes:{len(self)}"

    @property
    def fingerprint(self) -> str:
        """Of the classes, the names of all files, and a few whole examples."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Record:
        names = tuple(os.path.join(self._root, paths[index]) for paths in (self._pictures, self._labels))
        if self._zips is None:
            image, labels = (read_file(name) for name in names)
        else:
            image, labels = (files.read(index, name) for files, name in zip(self._zips, names, strict=True))
        return {
            "image": image,
            "semantic": LabelMap(labels, self.coding, names[1]),
            "label": -1,
            "name": names[0],
        }


def open_ade20k(root: str, split: str) -> LabelPairs:
    """ADE20K's scene parsing benchmark as distributed (ADEChallengeData2016): "training" or "validation"."""
    return LabelPairs(root, split, kind="ade20k", layouts=(ADE20K,), coding=ade20k_coding())


def open_label_pairs(root: str, split: str) -> LabelPairs:
    """Any folder or zip of pictures and label maps, see `LAYOUTS` and `labels.parse_classes`."""
    return LabelPairs(root, split, kind="label_pairs", layouts=LAYOUTS, coding=None)


def ade20k_coding() -> LabelCoding:
    """150 classes; the value 0 ("other") is ignored."""
    name = "ade20k_classes.txt"
    text = resources.files("swin_jax.data.sources").joinpath(name).read_text()
    return parse_classes(text, name)


def cityscapes_coding(*, label_ids: bool) -> LabelCoding:
    """The 19 classes that count: by number (labelTrainIds), or by their values among 34 (labelIds)."""
    rows = [entry.rsplit(" ", 4) for line in CITYSCAPES.splitlines() for entry in line.split("|")]
    return LabelCoding(
        class_names=tuple(row[0] for row in rows),
        palette=tuple((int(row[1]), int(row[2]), int(row[3])) for row in rows),
        values=tuple(int(row[4]) if label_ids else number for number, row in enumerate(rows)),
        rest_ignored=label_ids,
    )


def _pairs(
    root: str, split: str, names: Iterable[str], top: str, layouts: Sequence[Layout]
) -> tuple[list[str], list[str]]:
    """The paths of pictures and of their label maps, in the order of the pictures' names."""
    for layout in layouts:
        folder = posixpath.join(top, layout.pictures.format(split=split))
        pictures = _below(names, folder, PICTURE_SUFFIXES, layout.picture_ending)
        if not pictures:
            continue
        folders = [posixpath.join(top, place.format(split=split)) for place in layout.labels]
        labels = [_below(names, place, LABEL_SUFFIXES, "") for place in folders]
        if any(labels):
            chosen = next(found for found in labels if found)
            return _matched(root, layout, pictures, chosen)
    raise ValueError(
        f"{root} has no pictures with label maps of the split {split!r}; expected {_expected(layouts, split)}"
    )


def _matched(
    root: str, layout: Layout, pictures: Mapping[str, str], labels: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    ending = next(
        (ending for ending in layout.label_endings if any(key.endswith(ending) for key in labels)), ""
    )
    of_picture = {key.removesuffix(ending): path for key, path in labels.items() if key.endswith(ending)}
    for one, other, what in ((pictures, of_picture, "label map"), (of_picture, pictures, "picture")):
        alone = sorted(path for key, path in one.items() if key not in other)
        if alone:
            more = f" ({len(alone)} such in all)" if len(alone) > 1 else ""
            raise ValueError(
                f"{os.path.join(root, alone[0])} has no {what}{more}; add it, or remove the file"
            )
    keys = sorted(pictures)
    return [pictures[key] for key in keys], [of_picture[key] for key in keys]


def _below(names: Iterable[str], folder: str, suffixes: tuple[str, ...], ending: str) -> dict[str, str]:
    """Path below `folder` without suffix and `ending` -> whole path, of files that are pictures by their suffix."""
    found: dict[str, str] = {}
    for name in names:
        if not name.startswith(folder + "/") or not name.lower().endswith(suffixes):
            continue
        inside = name[len(folder) + 1 :]
        stem = posixpath.splitext(inside)[0]
        if not stem.endswith(ending) or any(part.startswith(".") for part in inside.split("/")):
            continue
        key = stem.removesuffix(ending)
        if key in found:
            raise ValueError(f"{found[key]} and {name} differ in nothing but their suffix; remove one")
        found[key] = name
    return found


def _coding(
    root: str,
    names: Iterable[str],
    top: str,
    entries: Mapping[str, zipfile.ZipInfo] | None,
    labels: Sequence[str],
) -> LabelCoding:
    """What the list of classes in the root says; without one, Cityscapes' where the files are called so."""
    present = set(names)
    for name in CLASS_LISTS:
        path = posixpath.join(top, name)
        if path in present:
            where = os.path.join(root, path)
            data = read_file(where) if entries is None else ZipFiles(root, [entries[path]]).read(0, where)
            return parse_classes(data.decode("utf-8-sig"), where)
    if posixpath.splitext(labels[0])[0].endswith(("_labelTrainIds", "_labelIds")):
        return cityscapes_coding(label_ids=posixpath.splitext(labels[0])[0].endswith("_labelIds"))
    raise ValueError(
        f"{root} has no list of classes; write classes.txt with the name of a class on each line, in the order of "
        "the label values from 0"
    )


def _expected(layouts: Sequence[Layout], split: str) -> str:
    ways = [
        f"{layout.pictures.format(split=split)}/*{layout.picture_ending} with "
        f"{layout.labels[0].format(split=split)}/*{layout.label_endings[0]}.png"
        for layout in layouts
    ]
    return "a directory or zip with " + ", or ".join(ways)
