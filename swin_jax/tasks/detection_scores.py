"""Average precision of boxes and masks, by the reference implementation (pycocotools)."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as pycocotools_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from swin_jax.ops.pasting import paste
from swin_jax.tasks import pictures

coco_masks: Any = pycocotools_mask  # its stubs know fewer types than it takes
Truth = Mapping[str, Any]
"""What COCO's files hold: images in the order of the data, annotations, categories in the order of the classes."""
KINDS: dict[str, Any] = {"box": "bbox", "mask": "segm"}
# The names of what the reference implementation summarises, in its order.
SUMMARY = ("ap", "ap50", "ap75", "aps", "apm", "apl", "ar1", "ar10", "ar100", "ars", "arm", "arl")
AP50, AP75 = 0, 5  # among the thresholds .5, .55, ... .95
ALL_AREAS, MOST_DETECTIONS = 0, -1
PASTERS = 4  # threads that paste masks
SHOWN_SCORE, MATCHED_IOU = 0.5, 0.5


class Found(NamedTuple):
    """The detections of one picture: boxes f32 [n, 4] in its pixels, scores, classes, and run lengths or None."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    runs: tuple[dict[str, Any], ...] | None


class DetectionScorer:
    """Collects detections by picture and scores them when all are there.

    Args:
      truth: of the split.
      masks: whether masks are scored, too.
    """

    def __init__(self, truth: Truth, *, masks: bool) -> None:
        self.truth = truth
        self.masks = masks
        self.image_ids = [image["id"] for image in truth["images"]]
        self.category_ids = [category["id"] for category in truth["categories"]]
        self.class_names = tuple(category["name"] for category in truth["categories"])
        self.found: dict[int, Found] = {}
        self.incomplete = 0
        self._evaluated: dict[str, COCOeval] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What other hosts need: the truth they have themselves."""
        return {"found": self.found, "incomplete": self.incomplete}

    def add(self, batch: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]) -> None:
        rows = np.flatnonzero(batch["valid"]).tolist()
        with ThreadPoolExecutor(PASTERS) as pool:
            found = list(pool.map(lambda row: detections_of(batch, predictions, row), rows))
        for row, one in zip(rows, found, strict=True):
            self.add_picture(self.image_ids[int(batch["example_index"][row])], one)
        if "complete" in predictions:
            self.incomplete += int(np.sum(~predictions["complete"][rows]))

    def add_picture(self, image_id: int, found: Found) -> None:
        """Raises ValueError for a picture that is no part of the split, or had its detections before."""
        if image_id in self.found:
            raise ValueError(f"image {image_id} is scored twice")
        if self.masks and found.runs is None:
            raise ValueError(f"image {image_id} has detections without masks, and masks are scored")
        self.found[image_id] = found
        self._evaluated = {}

    def merge(self, other: Any) -> None:
        for image_id, found in other.found.items():
            self.add_picture(image_id, found)
        self.incomplete += other.incomplete

    def results(self) -> list[dict[str, Any]]:
        """All detections as COCO's result files have them, in the order of the pictures."""
        results = []
        for image_id in self.image_ids:
            if image_id in self.found:
                results += coco_results(image_id, self.found[image_id], self.category_ids)
        return results

    def add_results(self, results: Sequence[Mapping[str, Any]], source: str) -> None:
        """The detections of a COCO result file; pictures it does not name have none.

        Raises:
          ValueError: an entry names an unknown picture or category, or lacks what is scored.
        """
        classes = {number: place for place, number in enumerate(self.category_ids)}
        of_image: dict[int, list[Mapping[str, Any]]] = {number: [] for number in self.image_ids}
        for place, result in enumerate(results):
            needed = ("image_id", "category_id", "bbox", "score", *(("segmentation",) if self.masks else ()))
            lacking = [name for name in needed if name not in result]
            if lacking:
                raise ValueError(f"{source}: detection number {place} has no {lacking[0]}")
            for field, known in (("image_id", of_image), ("category_id", classes)):
                if result[field] not in known:
                    raise ValueError(
                        f"{source}: detection number {place} has the {field} {result[field]!r}, which the split does "
                        "not have"
                    )
            of_image[result["image_id"]].append(result)
        for image_id, entries in of_image.items():
            boxes = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            self.add_picture(
                image_id,
                Found(
                    boxes.astype(np.float32),
                    np.array([entry["score"] for entry in entries], np.float32),
                    np.array([classes[entry["category_id"]] for entry in entries], np.int64),
                    tuple(_with_bytes(entry["segmentation"]) for entry in entries) if self.masks else None,
                ),
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("box", "mask") if self.masks else ("box",)

    def evaluated(self, kind: str) -> COCOeval:
        """The reference implementation's evaluation, "box" or "mask", with its precisions and its summary."""
        if kind not in self._evaluated:
            with contextlib.redirect_stdout(io.StringIO()):  # it talks; stdout is for results
                run: Any = COCOeval(_indexed(self.truth), self._detections(kind), KINDS[kind])
                run.params.imgIds = sorted(self.image_ids)
                run.evaluate()
                run.accumulate()
                run.summarize()
            self._evaluated[kind] = run
        return self._evaluated[kind]

    def _detections(self, kind: str) -> COCO:
        """As the reference implementation loads a result file, with areas of the kind that is scored."""
        annotations = []
        for number, result in enumerate(self.results(), start=1):
            _, _, width, height = result["bbox"]
            area = width * height if kind == "box" else float(coco_masks.area(result["segmentation"]))
            annotations.append({**result, "id": number, "area": area, "iscrowd": 0})
        return _indexed(
            {
                "images": self.truth["images"],
                "categories": self.truth["categories"],
                "annotations": annotations,
            }
        )

    def result(self) -> dict[str, float]:
        """`box_ap`, `box_ap50`, ..., and the same of masks; what the split has nothing of (small objects, say) is left
        out. Pictures whose detections are missing count as empty; `examples` says how many are there."""
        found = {"examples": float(len(self.found))}
        if not self.found:
            return found
        if self.incomplete:
            found["incomplete"] = float(self.incomplete)
        for kind in self.kinds:
            values = zip(SUMMARY, self.evaluated(kind).stats.tolist(), strict=True)
            found |= {f"{kind}_{name}": value for name, value in values if value >= 0}
        return found

    def by_class(self) -> dict[str, dict[str, float]]:
        measures = {}
        for kind in self.kinds:
            whole, at_half = self._per_class(kind, slice(None)), self._per_class(kind, slice(AP50, AP50 + 1))
            for name, values in ((f"{kind}_ap", whole), (f"{kind}_ap50", at_half)):
                measures[name] = dict(zip(self.class_names, values.tolist(), strict=True))
        return measures

    def _per_class(self, kind: str, thresholds: slice) -> np.ndarray:
        """AP of each class, NaN where the split has none of it."""
        precision = self.evaluated(kind).eval["precision"][thresholds, :, :, ALL_AREAS, MOST_DETECTIONS]
        known = np.where(precision > -1, precision, np.nan)
        present = ~np.isnan(known).all(axis=(0, 1))
        values = np.full(precision.shape[2], np.nan)
        values[present] = np.nanmean(known[:, :, present], axis=(0, 1))
        return values

    def draw(self) -> dict[str, np.ndarray]:
        """AP by class, and precision over recall."""
        drawn, curves = {}, {}
        for kind in self.kinds:
            drawn[f"{kind}_ap"] = pictures.class_bars(
                self._per_class(kind, slice(None)), self.class_names, title=f"{kind} AP by class", label="AP"
            )
            precision = self.evaluated(kind).eval["precision"][:, :, :, ALL_AREAS, MOST_DETECTIONS]
            known = np.where(precision > -1, precision, np.nan)
            present = ~np.isnan(known).all(axis=(0, 1))
            if present.any():
                mean = np.nanmean(known[:, :, present], axis=2)
                curves[kind] = {
                    "IoU .5": mean[AP50],
                    "IoU .75": mean[AP75],
                    "IoU .5 to .95": mean.mean(axis=0),
                }
        if curves:
            drawn["precision_recall"] = pictures.precision_recall(curves)
        return drawn


def detections_of(batch: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], row: int) -> Found:
    """A row's detections, masks pasted into the original picture."""
    kept = np.flatnonzero(predictions["box_valid"][row])
    boxes = predictions["boxes"][row][kept]
    runs = None
    if "masks" in predictions:
        height, width = batch["original_size"][row].tolist()
        probabilities = predictions["masks"][row][kept].astype(np.float32) / 255
        runs = tuple(
            coco_masks.encode(np.asfortranarray(paste(mask, box, height, width), np.uint8))
            for mask, box in zip(probabilities, boxes, strict=True)
        )
    return Found(boxes, predictions["scores"][row][kept], predictions["labels"][row][kept], runs)


def coco_results(image_id: int | str, found: Found, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """The detections of a picture as COCO's result files have them, run lengths as bytes."""
    results = []
    for place in range(len(found.boxes)):
        x1, y1, x2, y2 = found.boxes[place].astype(np.float64).tolist()
        result: dict[str, Any] = {
            "image_id": image_id,
            "category_id": int(category_ids[int(found.labels[place])]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(found.scores[place]),
        }
        if found.runs is not None:
            result["segmentation"] = found.runs[place]
        results.append(result)
    return results


class Matched(NamedTuple):
    """How a picture's detections of some confidence meet its objects: found, invented and missed ones."""

    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float:
        """2 right / (2 right + wrong + missed); 1 where there is nothing and nothing is found."""
        whole = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / whole if whole else 1.0


def matched(annotations: Sequence[Mapping[str, Any]], found: Found, category_ids: Sequence[int]) -> Matched:
    """Detections with a score of .5 and more, best first, each to the free object of its class that it overlaps most,
    from an IoU of .5 on. Those on crowds count as neither right nor wrong."""
    objects = [one for one in annotations if not one["iscrowd"]]
    crowds = [one for one in annotations if one["iscrowd"]]
    free = set(range(len(objects)))
    right = wrong = 0
    for place in np.argsort(-found.scores, kind="stable").tolist():
        if found.scores[place] < SHOWN_SCORE:
            break
        box, category = _xywh(found.boxes[place]), category_ids[int(found.labels[place])]
        best, overlap = -1, MATCHED_IOU
        for number in free:
            if objects[number]["category_id"] == category:
                shared = float(coco_masks.iou([box], [objects[number]["bbox"]], [0])[0, 0])
                if shared >= overlap:
                    best, overlap = number, shared
        if best >= 0:
            free.remove(best)
            right += 1
        elif not any(
            crowd["category_id"] == category
            and coco_masks.iou([box], [crowd["bbox"]], [1])[0, 0] >= MATCHED_IOU
            for crowd in crowds
        ):
            wrong += 1
    return Matched(right, wrong, len(free))


def _xywh(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = box.astype(np.float64).tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def _with_bytes(runs: Mapping[str, Any]) -> dict[str, Any]:
    counts = runs["counts"]
    return {"size": runs["size"], "counts": counts.encode() if isinstance(counts, str) else counts}


def _indexed(dataset: Mapping[str, Any]) -> COCO:
    coco: Any = COCO()
    # A copy: the reference implementation writes into annotations.
    coco.dataset = {**dataset, "annotations": [dict(one) for one in dataset["annotations"]]}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
