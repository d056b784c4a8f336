"""Data sets for semantic segmentation by name."""

from typing import Any, Protocol, runtime_checkable

import tensorflow_datasets as tfds

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.labels import IGNORED_NAMES, LabelCoding, LabelMap, default_palette
from swin_jax.data.sources.base import Record, Source, digest, spread
from swin_jax.data.sources.label_pairs import ade20k_coding, open_ade20k, open_label_pairs
from swin_jax.data.sources.outlines import CLASSES
from swin_jax.data.sources.shapes import open_shapes
from swin_jax.data.sources.tfds_source import CHECKED, TfdsRecords, open_builder

KINDS = ("shapes/easy", "shapes/hard", "ade20k", "label_pairs", "tfds:<name>")
BACKGROUND = "background"
# What a label map may be called in a tfds set, the first that is there.
LABEL_FIELDS = ("semantic", "segmentation_label", "segmentation_mask", "annotation", "label", "mask")


@runtime_checkable
class SemanticSource(Source, Protocol):
    """A source whose records hold `semantic`, a `LabelMap`; their `label` is -1."""

    @property
    def coding(self) -> LabelCoding: ...


def open_semantic(kind: str, split: str, *, root: str | None = None) -> SemanticSource:
    """The examples of one split.

    Args:
      kind: "shapes/easy" or "shapes/hard" (drawn on first use); "ade20k", as distributed; "label_pairs", any folder
        of pictures and label maps; "tfds:<name>", a prepared set with a picture and a `LabeledImage`.
      split: as the set calls it.
      root: directory or zip of the files; tfds data directory of the others (None: the usual place).

    Raises:
      ValueError: kind or split is unknown, or the data are missing or not as expected.
    """
    if kind.startswith("shapes/"):
        return SemanticScenes(open_shapes(kind.removeprefix("shapes/"), split, root=root))
    if kind.startswith("tfds:"):
        builder, name = open_builder(kind.removeprefix("tfds:"), root=root)
        return TfdsLabelMaps(builder, split, name)
    openers = {"ade20k": open_ade20k, "label_pairs": open_label_pairs}
    if kind not in openers:
        raise ValueError(
            f"the data source {kind!r} has no label maps or is unknown; known: {', '.join(KINDS)}"
        )
    if not root:
        raise ValueError(
            f"the data source {kind!r} needs its root: a directory or zip with pictures and label maps"
        )
    return openers[kind](root, split)


class SemanticScenes:
    """The embedded data set's scenes with their semantic maps: the background is the first class."""

    def __init__(self, scenes: Source):
        self._scenes = scenes
        self.coding = scene_coding()
        self.class_names = self.coding.class_names

    @property
    def identity(self) -> str:
        return f"{self._scenes.identity}:semantic"

    @property
    def fingerprint(self) -> str:
        return digest(self.identity, self.class_names, self._scenes.fingerprint)

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Record:
        record = self._scenes[index]
        return {
            "image": record["image"],
            "semantic": LabelMap(record["semantic"], self.coding, record["name"]),
            "label": -1,
            "name": record["name"],
        }


def scene_coding() -> LabelCoding:
    """Of the embedded data set's semantic maps."""
    palette = ((60, 60, 60), *default_palette(len(CLASSES)))
    return LabelCoding((BACKGROUND, *CLASSES), palette, values=tuple(range(len(palette))))


class TfdsLabelMaps(TfdsRecords):
    """A tfds set with one picture and one label map whose classes have names.

    What is called "ignore", "void" or "unlabeled" is no class, as in `labels.parse_classes`.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, kind: str):
        """Arguments and errors as `TfdsRecords`.

        Raises:
          ValueError: the set has no label map with class names.
        """
        super().__init__(builder, split, kind)
        features: Any = builder.info.features
        self._map = _label_map(features, kind)
        self.coding = _coding_of(features[self._map].names)
        self.class_names = self.coding.class_names
        some = [self[index] for index in spread(CHECKED, len(self))]
        maps = [self.coding.decode(record["semantic"].data, record["semantic"].name) for record in some]
        self._sample = digest(
            [record["name"] for record in some], *(record["image"] for record in some), *maps
        )

    @property
    def fingerprint(self) -> str:
        """Of the set's full name, split, classes and count, and of a few whole examples."""
        return digest(self.identity, self.class_names, self._sample)

    def __getitem__(self, index: int) -> Record:
        stored = self.features(index)
        name = self.name(index, stored)
        image, labels = stored["image"].bytes_list.value, stored[self._map].bytes_list.value
        if len(image) != 1 or len(labels) != 1:
            raise UnreadablePicture(
                name, f"it holds {len(image)} pictures and {len(labels)} label maps, expected one each"
            )
        return {
            "image": image[0],
            "semantic": LabelMap(labels[0], self.coding, name),
            "label": -1,
            "name": name,
        }


def _label_map(features: Any, kind: str) -> str:
    """The feature with the label map; the picture is "image"."""
    named = [
        name
        for name in LABEL_FIELDS
        if name in features
        and isinstance(features[name], tfds.features.LabeledImage)
        and features[name].names
    ]
    if "image" not in features or not named:
        raise ValueError(
            f"{kind} has no label maps for us: expected the features image and one of {', '.join(LABEL_FIELDS)} of "
            f"the type LabeledImage with class names, got {', '.join(features)}"
        )
    return named[0]


def _coding_of(names: list[str]) -> LabelCoding:
    kept = [value for value, name in enumerate(names) if name.lower() not in IGNORED_NAMES]
    classes = tuple(names[value] for value in kept)
    ade20k = ade20k_coding()
    palette = ade20k.palette if classes == ade20k.class_names else default_palette(len(kept))
    ignored = tuple(value for value in range(len(names)) if value not in kept)
    return LabelCoding(classes, palette, tuple(kept), ignored)
