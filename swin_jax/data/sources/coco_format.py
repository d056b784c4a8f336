"""Annotations in COCO's JSON: checked once, kept in flat arrays.

Every breach of the format is one sentence that names the file and the id. Annotations that are merely of no use in
training (no area, no part in the picture) are not breaches: evaluation counts them as the reference does.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as pycocotools_mask

from swin_jax.data.instances import LEAST_SIDE, Instances, Outline
from swin_jax.data.sources.files import Strings

coco_masks: Any = pycocotools_mask  # its stubs know fewer types than it takes
LEAST_CORNERS = 3
LEAST_TRAINING_SIDE = 32  # pixels; smaller pictures are not trained on, as published


class Annotations:
    """The pictures of a file and their objects.

    Attributes:
      names: of the picture files.
      image_ids, sizes: of the pictures, int64 [n] and (height, width) int32 [n, 2].
      class_names, category_ids: in the order of the ids: classes are numbered through.
      has_masks: whether all objects have outlines; False if none has.
    """

    def __init__(self, text: bytes | str, source: str):
        """
        Args:
          text: the JSON.
          source: its file, for messages.

        Raises:
          ValueError: it is no such JSON.
        """
        content = _loaded(text, source)
        self._source = source
        self.category_ids, self.class_names = _categories(content["categories"], source)
        images = content["images"]
        self.image_ids = _ids(images, "image", source)
        self.names = Strings(_field(image, "file_name", str, "image", source) for image in images)
        self.sizes = np.array([_size(image, source) for image in images], np.int32).reshape(-1, 2)
        self._read(content["annotations"])

    def _read(self, annotations: Sequence[Mapping[str, Any]]) -> None:
        source = self._source
        ids = _ids(annotations, "annotation", source)
        places = {number: place for place, number in enumerate(self.image_ids.tolist())}
        classes = {number: place for place, number in enumerate(self.category_ids)}
        of_image, labels, boxes = [], [], []
        for annotation in annotations:
            of_image.append(_known(annotation, "image_id", places, "an image", source))
            labels.append(_known(annotation, "category_id", classes, "a category", source))
            boxes.append(_box(annotation, source))
        order = np.argsort(np.array(of_image, np.int64), kind="stable")
        self._first = np.searchsorted(np.array(of_image, np.int64)[order], np.arange(len(self.image_ids) + 1))
        ordered = [annotations[place] for place in order]
        self._ids = ids[order]
        self._labels = np.array(labels, np.int64)[order]
        self._boxes = np.array(boxes, np.float64).reshape(-1, 4)[order]  # x, y, width, height
        self._crowd = np.array([_flag(annotation, source) for annotation in ordered], bool)
        self._areas = np.array([_area(annotation, source) for annotation in ordered], np.float64)
        self._read_outlines(ordered, np.array(of_image, np.int64)[order])

    def _read_outlines(self, annotations: Sequence[Mapping[str, Any]], of_image: np.ndarray) -> None:
        source = self._source
        lacking = [one["id"] for one in annotations if not one.get("segmentation")]
        self.has_masks = len(lacking) < len(annotations)
        if lacking and self.has_masks:
            raise ValueError(
                f"{source}: annotation {lacking[0]} has no segmentation ({len(lacking)} of {len(annotations)} have "
                "none); give all of them one, or none"
            )
        corners, rings, first_ring = [], [0], [0]
        self._runs: dict[int, dict[str, Any]] = {}
        for place, (annotation, image) in enumerate(zip(annotations, of_image, strict=True)):
            if self.has_masks:
                shape = annotation["segmentation"]
                if isinstance(shape, Mapping):
                    self._runs[place] = _runs(shape, self.sizes[image], annotation["id"], source)
                else:
                    for ring in _polygons(shape, annotation["id"], source):
                        corners.append(ring)
                        rings.append(rings[-1] + len(ring))
            first_ring.append(len(rings) - 1)
        self._corners = np.concatenate(corners) if corners else np.zeros((0, 2), np.float32)
        self._rings, self._first_ring = np.array(rings, np.int64), np.array(first_ring, np.int64)

    def __len__(self) -> int:
        return len(self.image_ids)

    def of_picture(self, index: int) -> Instances:
        """The objects of a picture; those of no use are left out, crowds are among them."""
        places = np.arange(self._first[index], self._first[index + 1])
        places = places[self.useful[places]]
        x, y, width, height = self._boxes[places].T
        return Instances(
            boxes=np.stack([x, y, x + width, y + height], axis=1).astype(np.float32),
            labels=self._labels[places],
            areas=self._areas[places].astype(np.float32),
            crowd=self._crowd[places],
            ids=self._ids[places],
            outlines=tuple(self._outline(place) for place in places.tolist()) if self.has_masks else None,
        )

    @property
    def useful(self) -> np.ndarray:
        """Of each annotation whether it has an area, a side of a pixel and a part in its picture: bool [annotations].

        The published filter of training data (OpenMMLab's).
        """
        x, y, width, height = self._boxes.T
        of_image = np.repeat(np.arange(len(self)), np.diff(self._first))
        rows, columns = self.sizes[of_image].T
        inside_x = np.minimum(x + width, columns) - np.maximum(x, 0)
        inside_y = np.minimum(y + height, rows) - np.maximum(y, 0)
        return (
            (self._areas > 0)
            & (np.minimum(width, height) >= LEAST_SIDE)
            & (np.maximum(inside_x, 0) * np.maximum(inside_y, 0) > 0)
        )

    def useless(self) -> tuple[int, int | None]:
        """How many annotations are of no use, and the first one's id."""
        ids = self._ids[~self.useful]
        return len(ids), int(ids[0]) if len(ids) else None

    def trainable(self) -> np.ndarray:
        """Which pictures are large enough and have a useful object that is no crowd: bool [pictures]."""
        kept = np.concatenate([[0], np.cumsum(self.useful & ~self._crowd)])
        return (np.diff(kept[self._first]) > 0) & (self.sizes.min(axis=1) >= LEAST_TRAINING_SIDE)

    def parts(self) -> tuple[np.ndarray, ...]:
        """Arrays that tell these annotations apart from others."""
        return self.image_ids, self.sizes, self._first, self._boxes, self._labels, self._crowd, self._corners

    def _outline(self, place: int) -> Outline:
        if place in self._runs:
            return self._runs[place]
        rings = range(self._first_ring[place], self._first_ring[place + 1])
        return tuple(self._corners[self._rings[ring] : self._rings[ring + 1]] for ring in rings)

    def truth(self, chosen: Sequence[int]) -> dict[str, Any]:
        """What the COCO tools are given for some pictures, in this order: everything, of use or not."""
        images, annotations = [], []
        for index in chosen:
            number, (height, width) = int(self.image_ids[index]), self.sizes[index].tolist()
            images.append({"id": number, "file_name": self.names[index], "height": height, "width": width})
            for place in range(self._first[index], self._first[index + 1]):
                annotations.append(self._as_annotation(place, number))
        categories = [
            {"id": number, "name": name}
            for number, name in zip(self.category_ids, self.class_names, strict=True)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _as_annotation(self, place: int, image_id: int) -> dict[str, Any]:
        found: dict[str, Any] = {
            "id": int(self._ids[place]),
            "image_id": image_id,
            "category_id": self.category_ids[self._labels[place]],
            "bbox": self._boxes[place].tolist(),
            "area": float(self._areas[place]),
            "iscrowd": int(self._crowd[place]),
        }
        if self.has_masks:
            outline = self._outline(place)
            found["segmentation"] = (
                dict(outline) if isinstance(outline, Mapping) else [ring.ravel().tolist() for ring in outline]
            )
        return found


def _loaded(text: bytes | str, source: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{source} is no JSON: {error}") from error
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise ValueError(
                f"{source} is no COCO annotation file: it has no list {name!r}; expected lists of images, annotations "
                "and categories"
            )
        if not all(isinstance(one, dict) for one in content[name]):
            raise ValueError(f"{source}: {name} must be a list of objects")
    return content


def _categories(
    categories: Sequence[Mapping[str, Any]], source: str
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    ids = _ids(categories, "category", source).tolist()
    names = [_field(category, "name", str, "category", source) for category in categories]
    if not ids:
        raise ValueError(f"{source} has no categories; name at least one")
    double = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if double is not None:
        raise ValueError(f"{source}: two categories are called {double!r}; each needs a name of its own")
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return tuple(ids[place] for place in order), tuple(names[place] for place in order)


def _ids(entries: Sequence[Mapping[str, Any]], what: str, source: str) -> np.ndarray:
    found: set[int] = set()
    for place, entry in enumerate(entries):
        number = entry.get("id")
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"{source}: {what} number {place} has the id {number!r}; expected an integer")
        if number in found:
            raise ValueError(f"{source}: two {_plural(what)} have the id {number}; each needs one of its own")
        found.add(number)
    return np.array([entry["id"] for entry in entries], np.int64)


def _plural(what: str) -> str:
    return "categories" if what == "category" else what + "s"


def _field(entry: Mapping[str, Any], field: str, kind: Any, what: str, source: str) -> Any:
    value = entry.get(field)
    if not isinstance(value, kind) or isinstance(value, bool):
        name = "text" if kind is str else "integer"
        raise ValueError(f"{source}: {what} {entry.get('id')} has the {field} {value!r}; expected {name}")
    return value


def _size(image: Mapping[str, Any], source: str) -> tuple[int, int]:
    height, width = (_field(image, side, int, "image", source) for side in ("height", "width"))
    if min(height, width) < 1:
        raise ValueError(f"{source}: image {image['id']} is {height} x {width}; expected sides of 1 or more")
    return height, width


def _known(
    annotation: Mapping[str, Any], field: str, known: Mapping[int, int], what: str, source: str
) -> int:
    value = annotation.get(field)
    if not isinstance(value, int) or value not in known:
        raise ValueError(
            f"{source}: annotation {annotation['id']} has the {field} {value!r}, which is not {what} of the file"
        )
    return known[value]


def _box(annotation: Mapping[str, Any], source: str) -> list[Any]:
    box = annotation.get("bbox")
    right = isinstance(box, list) and len(box) == 4 and all(_finite(value) for value in box)
    if not right or min(box[2:]) < 0:  # type: ignore[index]
        raise ValueError(
            f"{source}: annotation {annotation['id']} has the bbox {box!r}; expected [x, y, width, height] in pixels"
        )
    return box  # type: ignore[return-value]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _flag(annotation: Mapping[str, Any], source: str) -> bool:
    value = annotation.get("iscrowd", 0)
    if value not in (0, 1):
        raise ValueError(
            f"{source}: annotation {annotation['id']} has the iscrowd {value!r}; expected 0 or 1"
        )
    return bool(value)


def _area(annotation: Mapping[str, Any], source: str) -> float:
    """As annotated; of the box where a file leaves it out."""
    value = annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3])
    if not _finite(value) or value < 0:
        raise ValueError(f"{source}: annotation {annotation['id']} has the area {value!r}; expected pixels")
    return float(value)


def _polygons(shape: Any, number: int, source: str) -> list[np.ndarray]:
    if not isinstance(shape, list):
        raise ValueError(
            f"{source}: annotation {number} has the segmentation {shape!r}; expected polygons or run lengths"
        )
    rings = []
    for ring in shape:
        if not isinstance(ring, list) or len(ring) % 2 or len(ring) < 2 * LEAST_CORNERS:
            count = len(ring) if isinstance(ring, list) else repr(ring)
            raise ValueError(
                f"{source}: annotation {number} has a polygon of {count} coordinates; expected x and y of at least "
                f"{LEAST_CORNERS} corners"
            )
        if not all(_finite(value) for value in ring):
            raise ValueError(
                f"{source}: annotation {number} has a polygon with coordinates that are no numbers"
            )
        rings.append(np.array(ring, np.float32).reshape(-1, 2))
    return rings


def _runs(shape: Mapping[str, Any], size: np.ndarray, number: int, source: str) -> dict[str, Any]:
    """Run lengths, compressed. Theirs may be a list of counts, or COCO's text."""
    told, counts = shape.get("size"), shape.get("counts")
    height, width = size.tolist()
    if told != [height, width]:
        raise ValueError(
            f"{source}: annotation {number} has run lengths of size {told!r}, its image is {height} x {width}"
        )
    if isinstance(counts, list):
        whole = all(isinstance(count, int) and count >= 0 for count in counts)
        if not whole or sum(counts) != height * width:
            raise ValueError(
                f"{source}: annotation {number} has run lengths that do not add up to {height} x {width} pixels"
            )
        return coco_masks.frPyObjects({"size": told, "counts": counts}, height, width)
    if not isinstance(counts, str | bytes):
        raise ValueError(f"{source}: annotation {number} has run lengths without counts")
    runs = {"size": told, "counts": counts.encode() if isinstance(counts, str) else counts}
    if sum(_counts(runs["counts"])) != height * width:
        raise ValueError(
            f"{source}: annotation {number} has run lengths that do not add up to {height} x {width} pixels"
        )
    return runs


def _counts(text: bytes) -> list[int]:
    """The run lengths in COCO's text: numbers of 5 bits a character, from the third on as differences to the one two
    before."""
    found: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            found.append(value + (found[-2] if len(found) > 2 else 0))
            value = shift = 0
    return found
