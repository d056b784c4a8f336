"""Object detection and instance segmentation; average precision by the reference implementation."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.models.cascade import HybridTaskCascade
from swin_jax.models.detection_heads import SEMANTIC_LEVEL
from swin_jax.models.mask_rcnn import STRIDES, MaskRCNN
from swin_jax.ops.augment import normalise
from swin_jax.ops.canvas import inside_only, mirrored_within
from swin_jax.ops.pasting import paste
from swin_jax.tasks import pictures
from swin_jax.tasks.detection_scores import DetectionScorer, Truth
from swin_jax.tasks.task import Aux, Batch, Predictions, Terms
from swin_jax.tasks.two_stage_inference import View, find
from swin_jax.tasks.two_stage_settings import TwoStage, published_settings
from swin_jax.tasks.two_stage_training import training_terms

SHEET_SCORE = 0.3  # what is less certain is not drawn


@dataclasses.dataclass(frozen=True)
class Seen:
    """How a picture is looked at.

    Attributes:
      scales: at how many scales a batch holds each picture (`image`, `image_1`, ...).
      flip: whether each is seen mirrored, too.
    """

    scales: int = 1
    flip: bool = False

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What the fields of the scales end in."""
        return ("", *(f"_{index}" for index in range(1, self.scales)))


class Detection:
    """The task of finding objects, with their masks where the model has a head for them.

    Args:
        model: a detector.
        canvases: (H, W) of the pictures of a training batch, all that occur.
        max_boxes: rows of ground truth of a picture.
        mask_size: side of its masks' crops; unused without masks.
        class_names: K names, in the order of the class numbers.
        palette: RGB of each class.
        mean, std: of the normalisation, per channel, for pixels in 0..1.
        settings: of the detector.
        seen: how pictures are predicted.
    """

    sheet_rows = 6
    panels = pictures.DETECTION_PANELS

    def __init__(
        self,
        *,
        model: MaskRCNN,
        canvases: Sequence[tuple[int, int]],
        max_boxes: int,
        mask_size: int,
        class_names: tuple[str, ...],
        palette: Sequence[tuple[int, int, int]],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        settings: TwoStage | None = None,
        seen: Seen | None = None,
    ) -> None:
        self.model = model
        self.canvases = tuple(canvases)
        self.class_names = class_names
        self.palette = np.asarray(palette, np.uint8)
        self.mean = mean
        self.std = std
        self.settings = published_settings(model) if settings is None else settings
        self.seen = Seen() if seen is None else seen
        if self.settings.anchors_per_cell != model.anchors_per_cell:
            raise ValueError(
                f"the model has {model.anchors_per_cell} anchors a cell, detection.anchor_scales and anchor_ratios "
                f"make {self.settings.anchors_per_cell}"
            )
        if len(self.settings.stages) != model.STAGES:
            raise ValueError(
                f"the model has {model.STAGES} stages, the settings have {len(self.settings.stages)}"
            )
        masks = {"masks": ((max_boxes, mask_size, mask_size), "bool")} if model.with_masks else {}
        self._row = {
            "size": ((2,), "int32"),
            "boxes": ((max_boxes, 4), "float32"),
            "labels": ((max_boxes,), "int32"),
            "box_valid": ((max_boxes,), "bool"),
            **masks,
            "example_index": ((), "uint32"),
            "valid": ((), "bool"),
        }

    @property
    def best_metric(self) -> str:
        return metric(masks=self.model.with_masks)

    @property
    def batch_fields(self) -> Mapping[str, tuple[tuple[int, ...], str]]:
        return self.batch_shapes[0]

    @property
    def batch_shapes(self) -> Sequence[Mapping[str, tuple[tuple[int, ...], str]]]:
        """The fields of a batch on each of the canvases."""
        return [
            {"image": ((*canvas, 3), "uint8"), **self._semantic(canvas), **self._row}
            for canvas in self.canvases
        ]

    def _semantic(self, canvas: tuple[int, int]) -> dict[str, tuple[tuple[int, int], str]]:
        """The label map of the canvas, where the model has a branch that learns it."""
        if not isinstance(self.model, HybridTaskCascade):
            return {}
        stride = STRIDES[SEMANTIC_LEVEL]
        return {"semantic": ((canvas[0] // stride, canvas[1] // stride), "uint8")}

    @property
    def predict_fields(self) -> tuple[str, ...]:
        views = [f"{field}{suffix}" for suffix in self.seen.suffixes for field in ("image", "size")]
        return (*views, "original_size", "valid")

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        images = jnp.zeros((1, 64, 64, 3), jnp.float32)
        variables = dict(self.model.init(key, images, train=False))
        return variables.pop("params"), variables

    def augment(self, batch: Batch, key: jax.Array) -> Batch:
        del key  # geometry is the host's: it decides on the canvas
        return batch

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array) -> tuple[Terms, Aux]:
        images = self._normalised(batch["image"], batch["size"])
        variables = {"params": params, **model_state}
        terms, metrics, state = training_terms(self.model, variables, images, batch, key, self.settings)
        return terms, Aux(metrics, state)

    def _normalised(self, images: jax.Array, sizes: jax.Array) -> jax.Array:
        """Zero beyond the picture: the published order fills up behind the normalisation."""
        return inside_only(normalise(images, self.mean, self.std), sizes)

    def views(self, batch: Batch) -> Iterator[Batch]:
        """One: what is seen in several ways has to be merged between the two stages, and so within `predict`."""
        yield batch

    def predict(self, params: Any, model_state: Any, batch: Batch) -> Predictions:
        """As `two_stage_inference.find`."""
        views = []
        for suffix in self.seen.suffixes:
            size = batch[f"size{suffix}"]
            image = self._normalised(batch[f"image{suffix}"], size)
            views.append(View(image, size, mirrored=False))
            if self.seen.flip:
                views.append(View(mirrored_within(image, size), size, mirrored=True))
        variables = {"params": params, **model_state}
        return find(self.model, variables, views, batch["original_size"], batch["valid"], self.settings)

    def merge(self, predictions: Iterable[Predictions]) -> Predictions:
        (only,) = predictions
        return only

    def scorer(self, truth: Truth | None = None) -> DetectionScorer:
        """Raises ValueError without ground truth."""
        if truth is None:
            raise ValueError("these data have no annotations to score detections against")
        return DetectionScorer(truth, masks=self.model.with_masks)

    def draw(
        self,
        batch: Mapping[str, np.ndarray],
        predictions: Mapping[str, np.ndarray],
        truth: Truth | None = None,
    ) -> dict[str, np.ndarray]:
        """The batch's first pictures with their annotated boxes beside what was found."""
        rows = []
        for row in np.flatnonzero(batch["valid"])[: self.sheet_rows].tolist():
            height, width = batch["size"][row].tolist()
            scale = batch["size"][row] / batch["original_size"][row]
            found = found_in_row(predictions, row, (height, width), scale, least_score=SHEET_SCORE)
            annotated = None
            if truth is not None:
                annotated = annotated_boxes(truth, int(batch["example_index"][row]), scale)
            rows.append((batch["image"][row, :height, :width], annotated, found))
        return {"predictions": pictures.instance_sheet(rows, self.class_names, self.palette)}


def metric(*, masks: bool) -> str:
    """What ranks checkpoints."""
    return "mask_ap" if masks else "box_ap"


def found_in_row(
    predictions: Mapping[str, np.ndarray],
    row: int,
    size: tuple[int, int],
    scale: np.ndarray,
    *,
    least_score: float,
) -> pictures.Shown:
    """A row's detections to be drawn on its picture of `size`, `scale` (y, x) times the original one."""
    kept = np.flatnonzero(predictions["box_valid"][row] & (predictions["scores"][row] >= least_score))
    boxes = predictions["boxes"][row][kept] * np.tile(scale[::-1], 2).astype(np.float32)
    masks = None
    if "masks" in predictions:
        probabilities = predictions["masks"][row][kept].astype(np.float32) / 255
        pasted = [paste(mask, box, *size) for mask, box in zip(probabilities, boxes, strict=True)]
        masks = np.array(pasted, bool).reshape(-1, *size)
    return pictures.Shown(boxes, predictions["labels"][row][kept], predictions["scores"][row][kept], masks)


def annotated_boxes(truth: Truth, index: int, scale: np.ndarray) -> pictures.Shown:
    """The annotated objects of a picture, crowds left out, at `scale` (y, x)."""
    image_id = truth["images"][index]["id"]
    classes = {category["id"]: place for place, category in enumerate(truth["categories"])}
    mine = [one for one in truth["annotations"] if one["image_id"] == image_id and not one["iscrowd"]]
    boxes = np.array([one["bbox"] for one in mine], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([classes[one["category_id"]] for one in mine], np.int64)
    return pictures.Shown(boxes * np.tile(scale[::-1], 2).astype(np.float32), labels)
