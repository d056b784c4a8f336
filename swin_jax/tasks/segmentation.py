"""Semantic segmentation: the class of every pixel; mean intersection over union from an exact confusion matrix."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from swin_jax.ops.augment import normalise
from swin_jax.ops.canvas import inside_only, resize_to_canvas
from swin_jax.ops.losses import IGNORE, segmentation_cross_entropy
from swin_jax.ops.photometric import photometric_distortion
from swin_jax.ops.resize import resize_bilinear
from swin_jax.tasks import pictures
from swin_jax.tasks.task import Aux, Batch, Predictions, Terms

MEANS = ("all", "valid")


@dataclasses.dataclass(frozen=True)
class Inference:
    """How a picture becomes a map of classes.

    Attributes:
      scales: at how many scales a batch holds each picture (`image`, `image_1`, ...).
      flip: whether each is seen mirrored, too; probabilities are averaged over all views.
      window: None sees a picture whole; (height, width) lets a window slide over it, a smaller picture's own size
        where that is smaller.
      stride: of the window, (rows, columns).
    """

    scales: int = 1
    flip: bool = False
    window: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if self.window is not None and not all(
            0 < step <= side for step, side in zip(self.stride, self.window, strict=True)
        ):
            raise ValueError(
                f"evaluation.stride is {self.stride} for a window of {self.window}; expected 1 to the window's sides"
            )


class Segmentation:
    """The task of naming the class of every pixel.

    Args:
        model: a segmenter, images `[B, H, W, 3]` -> (logits `[B, h, w, K]`, auxiliary logits or None).
        image_size: (H, W) of a training batch's pictures.
        class_names: K names, in the order of the class numbers.
        palette: RGB of each class.
        mean, std: of the normalisation, per channel, for pixels in 0..1.
        auxiliary_weight: of the auxiliary head's loss.
        loss_mean: "all" divides the loss by the number of all pixels, "valid" by that of pixels with a class. The
            published code has the former: its ignored pixels add nothing and still count.
        photometric: whether training distorts colours.
        inference: how pictures are predicted.
    """

    best_metric = "miou"
    sheet_rows = 6
    panels = pictures.SEGMENTATION_PANELS

    def __init__(
        self,
        *,
        model: nn.Module,
        image_size: tuple[int, int],
        class_names: tuple[str, ...],
        palette: Sequence[tuple[int, int, int]],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        auxiliary_weight: float = 0.4,
        loss_mean: str = "all",
        photometric: bool = True,
        inference: Inference | None = None,
    ) -> None:
        if loss_mean not in MEANS:
            raise ValueError(f"loss.mean is {loss_mean!r}; expected one of {', '.join(MEANS)}")
        if not auxiliary_weight >= 0:
            raise ValueError(f"loss.auxiliary_weight is {auxiliary_weight}; expected a number >= 0")
        self.model = model
        self.image_size = image_size
        self.class_names = class_names
        self.palette = np.asarray(palette, np.uint8)
        self.mean = mean
        self.std = std
        self.auxiliary_weight = auxiliary_weight
        self.loss_mean = loss_mean
        self.photometric = photometric
        self.inference = Inference() if inference is None else inference
        self.batch_fields = {
            "image": ((*image_size, 3), "uint8"),
            "semantic": (image_size, "uint8"),
            "size": ((2,), "int32"),
            "example_index": ((), "uint32"),
            "valid": ((), "bool"),
        }
        self.batch_shapes = (self.batch_fields,)

    @property
    def predict_fields(self) -> tuple[str, ...]:
        return (*self._images, "semantic", "size")

    @property
    def _images(self) -> tuple[str, ...]:
        return ("image", *(f"image_{index}" for index in range(1, self.inference.scales)))

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        images = jnp.zeros((1, *self.image_size, 3), jnp.float32)
        variables = dict(self.model.init(key, images, train=False))
        return variables.pop("params"), variables

    def augment(self, batch: Batch, key: jax.Array) -> Batch:
        if not self.photometric:
            return batch
        return {**batch, "image": photometric_distortion(batch["image"], key)}

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array) -> tuple[Terms, Aux]:
        (logits, auxiliary), state = self.model.apply(
            {"params": params, **model_state},
            self._normalised(batch["image"], batch["size"]),
            train=True,
            rngs={"dropout": key},
            mutable=list(model_state),
        )
        labels = jnp.where(batch["valid"][:, None, None], batch["semantic"], jnp.uint8(IGNORE))
        counted = labels != IGNORE
        decode, count, resized = self._head_loss(logits, labels)
        right = jnp.sum((jnp.argmax(resized, axis=-1) == labels) & counted, dtype=jnp.float32)
        metrics = {
            "train_pixel_accuracy": (right, jnp.sum(counted, dtype=jnp.float32)),
            "decode_loss": (decode, count),
        }
        total = decode
        if auxiliary is not None:
            of_auxiliary, count, _ = self._head_loss(auxiliary, labels)
            metrics["auxiliary_loss"] = (of_auxiliary, count)
            total += self.auxiliary_weight * of_auxiliary
        # One term, because both sums have one denominator: a single all-reduce then carries everything.
        return {"cross_entropy": (total, count)}, Aux(metrics, state)

    def _head_loss(self, logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Numerator and denominator of a head's loss, and its logits at the labels' size."""
        resized = resize_bilinear(logits, spatial(labels))
        non_ignore = self.loss_mean == "valid"
        return *segmentation_cross_entropy(resized, labels, avg_non_ignore=non_ignore), resized

    def _normalised(self, images: jax.Array, sizes: jax.Array) -> jax.Array:
        """Zero where a picture was filled up: the published order fills up behind the normalisation."""
        return inside_only(normalise(images, self.mean, self.std), sizes)

    def views(self, batch: Batch) -> Iterator[Batch]:
        """Each scale, plain and if so configured mirrored."""
        for field in self._images:
            for mirrored in (False, True) if self.inference.flip else (False,):
                image = batch[field]
                yield {
                    "image": image[:, :, ::-1] if mirrored else image,
                    "mirrored": jnp.full(image.shape[0], mirrored),
                    "semantic": batch["semantic"],
                    "size": batch["size"],
                }

    def predict(self, params: Any, model_state: Any, batch: Batch) -> Predictions:
        """`probabilities` f32 `[B, rows, columns, K]` of one view, at the size and in the corner of the label maps."""
        image = normalise(batch["image"], self.mean, self.std)
        variables = {"params": params, **model_state}
        logits = (
            self._whole(variables, image) if self.inference.window is None else self._slide(variables, image)
        )
        logits = jnp.where(batch["mirrored"][:, None, None, None], logits[:, :, ::-1], logits)
        canvas = spatial(batch["semantic"])
        logits = resize_to_canvas(logits, batch["size"], through=spatial(image), canvas=canvas)
        return {"probabilities": jax.nn.softmax(logits, axis=-1)}

    def _whole(self, variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
        logits, _ = self.model.apply(variables, images, train=False)
        return logits.astype(jnp.float32)

    def _slide(self, variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
        """The logits of all windows at the picture's size, averaged where they overlap."""
        size = spatial(images)
        sides = self.inference.window or size
        window = min(sides[0], size[0]), min(sides[1], size[1])
        corners = window_corners(size, window, self.inference.stride)
        places = [(slice(top, top + window[0]), slice(left, left + window[1])) for top, left in corners]
        # Windows follow one another within a row, so that rows stay on their devices.
        views = jnp.stack([images[:, rows, columns] for rows, columns in places], axis=1)
        logits = self._whole(variables, views.reshape(-1, *views.shape[2:]))
        found = resize_bilinear(logits, window).reshape(images.shape[0], len(places), *window, -1)
        total = jnp.zeros((images.shape[0], *size, found.shape[-1]), jnp.float32)
        seen = np.zeros((1, *size, 1), np.float32)
        for index, (rows, columns) in enumerate(places):
            around = (rows.start, size[0] - rows.stop), (columns.start, size[1] - columns.stop)
            total += jnp.pad(found[:, index], ((0, 0), *around, (0, 0)))
            seen[:, rows, columns] += 1
        return total / jnp.asarray(np.broadcast_to(seen, (1, *size, 1)))

    def merge(self, predictions: Iterable[Predictions]) -> Predictions:
        """`classes` uint8 `[B, rows, columns]`: the most probable class by the mean of the views' probabilities."""
        views = [view["probabilities"] for view in predictions]
        mean = sum(views[1:], start=views[0])
        return {"classes": jnp.argmax(mean, axis=-1).astype(jnp.uint8)}

    def scorer(self, truth: Any = None) -> "SegmentationScorer":
        return SegmentationScorer(self.class_names)

    def draw(
        self, batch: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], truth: Any = None
    ) -> dict[str, np.ndarray]:
        """The batch's first pictures, each beside its labels and its prediction, with a legend."""
        rows = []
        for row in np.flatnonzero(batch["valid"])[: self.sheet_rows]:
            height, width = batch["size"][row]
            rows.append(
                (
                    batch["image"][row],
                    batch["semantic"][row, :height, :width],
                    predictions["classes"][row, :height, :width],
                )
            )
        return {"predictions": pictures.map_sheet(rows, self.class_names, self.palette)}


def spatial(array: Any) -> tuple[int, int]:
    """(height, width) of `[B, H, W, ...]`."""
    return array.shape[1], array.shape[2]


def window_corners(
    size: Sequence[int], window: Sequence[int], stride: Sequence[int]
) -> list[tuple[int, int]]:
    """(top, left) of each place of a sliding window, row by row; the last ones are shifted back into the picture."""

    def starts(length: int, side: int, step: int) -> list[int]:
        count = -(-max(length - side, 0) // step) + 1
        return [min(index * step, length - side) for index in range(count)]

    tops, lefts = (starts(*numbers) for numbers in zip(size, window, stride, strict=True))
    return [(top, left) for top in tops for left in lefts]


class SegmentationScorer:
    """Pixels by true and predicted class, in whole numbers: hosts and batches add up exactly.

    `examples` counts the pictures that have a pixel with a class.
    """

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names
        self.confusion = np.zeros((len(class_names),) * 2, np.int64)
        self.examples = 0

    def add(self, batch: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]) -> None:
        for row in np.flatnonzero(batch["valid"]):
            self.add_map(batch["semantic"][row], predictions["classes"][row])

    def add_map(self, labels: np.ndarray, guesses: np.ndarray) -> None:
        """Counts the pixels of one picture: class numbers uint8 `[H, W]`, ignored where the label is 255.

        Raises:
            ValueError: a guess is no class.
        """
        count = len(self.class_names)
        known = labels != IGNORE
        guessed = guesses[known].astype(np.int64)
        if guessed.size and guessed.max() >= count:
            raise ValueError(f"a prediction has the class number {guessed.max()}; there are {count} classes")
        pairs = labels[known].astype(np.int64) * count + guessed
        self.confusion += np.bincount(pairs, minlength=count**2).reshape(count, count)
        self.examples += bool(guessed.size)

    def merge(self, other: "SegmentationScorer") -> None:
        self.confusion += other.confusion
        self.examples += other.examples

    def iou(self) -> np.ndarray:
        """Intersection over union of each class, f64 [K]; NaN for a class that is neither there nor predicted."""
        right = np.diagonal(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - right
        return np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)

    def accuracy(self) -> np.ndarray:
        """The share of each class's pixels that are found, f64 [K]; NaN for a class that is not there."""
        seen = self.confusion.sum(1)
        return np.divide(np.diagonal(self.confusion), seen, out=np.full(len(seen), np.nan), where=seen > 0)

    def by_class(self) -> dict[str, dict[str, float]]:
        return {
            "iou": dict(zip(self.class_names, self.iou().tolist(), strict=True)),
            "accuracy": dict(zip(self.class_names, self.accuracy().tolist(), strict=True)),
        }

    def result(self) -> dict[str, float]:
        pixels = int(self.confusion.sum())
        if not pixels:
            return {"pixels": 0.0, "examples": float(self.examples)}
        return {
            "miou": float(np.nanmean(self.iou())),
            "pixel_accuracy": float(np.trace(self.confusion) / pixels),
            "mean_class_accuracy": float(np.nanmean(self.accuracy())),
            "classes": float(np.count_nonzero(~np.isnan(self.iou()))),
            "pixels": float(pixels),
            "examples": float(self.examples),
        }

    def draw(self) -> dict[str, np.ndarray]:
        """The IoU of each class."""
        bars = pictures.class_bars(self.iou(), self.class_names, title="IoU by class", label="IoU")
        return {"iou": bars}
