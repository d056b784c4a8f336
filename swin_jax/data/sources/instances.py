"""Data sets for detection and instance segmentation by name."""

from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from swin_jax.data.instances import Instances, runs_of
from swin_jax.data.labels import LabelMap
from swin_jax.data.sources.base import Record, Source, digest
from swin_jax.data.sources.coco import open_coco, open_coco_format
from swin_jax.data.sources.outlines import CLASSES
from swin_jax.data.sources.scenes import SIZE
from swin_jax.data.sources.semantic import scene_coding
from swin_jax.data.sources.shapes import open_shapes

KINDS = ("shapes/easy", "shapes/hard", "coco", "instances", "tfds:<name>")


@runtime_checkable
class InstanceSource(Source, Protocol):
    """A source whose records hold `instances` (an `Instances` in the picture's pixels), `image_id` and `size` (height,
    width); their `label` is -1. `category_ids` are the numbers by which the data set's own files call the classes.

    Where `semantic_classes` is not 0, records hold `semantic`, too: a `LabelMap` of so many classes, things and stuff,
    which are not those of the objects.
    """

    @property
    def category_ids(self) -> tuple[int, ...]: ...

    @property
    def has_masks(self) -> bool: ...

    @property
    def semantic_classes(self) -> int: ...

    @property
    def sizes(self) -> np.ndarray: ...  # (height, width), int32 [n, 2]

    def truth(self) -> dict[str, Any]:
        """What the COCO tools score against: images in the order of the source, annotations, categories."""
        ...


def open_instances(
    kind: str, split: str, *, root: str | None = None, training: bool = False, semantic: bool = False
) -> InstanceSource:
    """The examples of one split.

    Args:
      kind: "shapes/easy" or "shapes/hard" (drawn on first use); "coco", as distributed; "instances", any folder in
        COCO's format; "tfds:<name>", what `swin_jax.prepare` made.
      split: as the set calls it; "train[:200]" is its first 200 pictures.
      root: directory or zip of the files; tfds data directory of the others (None: the usual place).
      training: leaves out pictures without a countable object.
      semantic: reads label maps along, where the data have them: `semantic_classes` tells.

    Raises:
      ValueError: kind or split is unknown, or the data are missing or not as expected.
    """
    if kind.startswith("shapes/"):
        scenes = open_shapes(kind.removeprefix("shapes/"), split, root=root)
        return SceneInstances(scenes, semantic=semantic)
    if kind.startswith("tfds:"):
        from swin_jax.data.sources.coco_records import open_records

        name = kind.removeprefix("tfds:")
        return open_records(name, split, root=root, training=training, semantic=semantic)
    openers = {"coco": open_coco, "instances": open_coco_format}
    if kind not in openers:
        raise ValueError(
            f"the data source {kind!r} has no instances or is unknown; known: {', '.join(KINDS)}"
        )
    if not root:
        raise ValueError(f"the data source {kind!r} needs its root: a directory or zip in COCO's format")
    return openers[kind](root, split, training=training, semantic=semantic)


class SceneInstances:
    """The embedded data set's scenes: what is visible of each object. Categories are numbered from 1."""

    class_names = CLASSES
    category_ids = tuple(range(1, len(CLASSES) + 1))
    has_masks = True

    def __init__(self, scenes: Source, *, semantic: bool = False):
        """`semantic`: whether records hold the scenes' label maps, in which 0 is the background."""
        self._scenes = scenes
        self._coding = scene_coding() if semantic else None

    @property
    def identity(self) -> str:
        return f"{self._scenes.identity}:instances"

    @property
    def fingerprint(self) -> str:
        return digest(self.identity, self.class_names, self._scenes.fingerprint)

    @property
    def semantic_classes(self) -> int:
        return 0 if self._coding is None else len(self._coding.class_names)

    @property
    def sizes(self) -> np.ndarray:
        return np.full((len(self), 2), SIZE, np.int32)

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Record:
        scene = self._scenes[index]
        record = {
            "image": scene["image"],
            "instances": self._instances(index, scene),
            "image_id": index + 1,
            "size": np.array([SIZE, SIZE], np.int32),
            "label": -1,
            "name": scene["name"],
        }
        if self._coding is not None:
            record["semantic"] = LabelMap(scene["semantic"], self._coding, scene["name"])
        return record

    def _instances(self, index: int, record: Record) -> Instances:
        numbers = cv2.imdecode(np.frombuffer(record["instances"], np.uint8), cv2.IMREAD_GRAYSCALE)
        count = len(record["classes"])
        masks = np.asarray(numbers)[None] == np.arange(1, count + 1)[:, None, None]
        return Instances(
            boxes=record["boxes"].astype(np.float32),
            labels=record["classes"].astype(np.int64),
            areas=masks.sum(axis=(1, 2)).astype(np.float32),
            crowd=np.zeros(count, bool),
            ids=1 + 100 * index + np.arange(count, dtype=np.int64),
            outlines=tuple(runs_of(mask) for mask in masks),
        )

    def truth(self) -> dict[str, Any]:
        records = [self[index] for index in range(len(self))]
        return truth_of(records, self.class_names, self.category_ids)


def truth_of(
    records: list[Record], class_names: tuple[str, ...], category_ids: tuple[int, ...]
) -> dict[str, Any]:
    """What the COCO tools are given for these records."""
    images, annotations = [], []
    for record in records:
        height, width = (int(side) for side in record["size"])
        number, found = int(record["image_id"]), record["instances"]
        images.append({"id": number, "file_name": record["name"], "height": height, "width": width})
        for place in range(len(found)):
            annotations.append(as_annotation(found, place, number, category_ids))
    categories = [
        {"id": number, "name": name} for number, name in zip(category_ids, class_names, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def as_annotation(
    found: Instances, place: int, image_id: int, category_ids: tuple[int, ...]
) -> dict[str, Any]:
    """One object as COCO's files have it."""
    x1, y1, x2, y2 = found.boxes[place].astype(np.float64).tolist()
    annotation: dict[str, Any] = {
        "id": int(found.ids[place]),
        "image_id": image_id,
        "category_id": category_ids[int(found.labels[place])],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": float(found.areas[place]),
        "iscrowd": int(found.crowd[place]),
    }
    if found.outlines is not None:
        outline = found.outlines[place]
        if isinstance(outline, tuple):
            annotation["segmentation"] = [ring.ravel().tolist() for ring in outline]
        else:
            annotation["segmentation"] = dict(outline)
    return annotation
