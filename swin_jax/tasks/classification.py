"""Image classification: cross-entropy on device, top-1, top-5 and a confusion matrix on the host."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from swin_jax.ops.augment import FLIP_ONLY, Augmentation, mix, normalise
from swin_jax.ops.losses import mixed_cross_entropy, smoothed_cross_entropy
from swin_jax.tasks import pictures
from swin_jax.tasks.task import Aux, Batch, Predictions, Terms

LARGEST_CONFUSION = 2000  # classes; a dense matrix of 21,841 would take gigabytes


class Classification:
    """The task of naming each picture's class.

    Args:
        model: a classifier, images `[B, H, W, 3]` -> logits `[B, K]`.
        image_size: (H, W) of a batch's pictures.
        class_names: K names, in the order of the labels.
        mean, std: of the normalisation, per channel, for pixels in 0..1.
        label_smoothing: share of the target spread over all classes (paper, A2.1: 0.1).
        augmentation: what training pictures undergo.
    """

    predict_fields = ("image",)
    best_metric = "top1"
    sheet_rows = 24
    panels = pictures.CLASSIFICATION_PANELS

    def __init__(
        self,
        *,
        model: nn.Module,
        image_size: tuple[int, int],
        class_names: tuple[str, ...],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        label_smoothing: float = 0.0,
        augmentation: Augmentation = FLIP_ONLY,
    ) -> None:
        self.model = model
        self.image_size = image_size
        self.class_names = class_names
        self.mean = mean
        self.std = std
        self.label_smoothing = label_smoothing
        self.augmentation = augmentation
        self.candidates: tuple[int, ...] | None = None  # classes that predictions choose among; None: all
        self.batch_fields = {
            "image": ((*image_size, 3), "uint8"),
            "label": ((), "int32"),
            "example_index": ((), "uint32"),
            "valid": ((), "bool"),
        }
        self.batch_shapes = (self.batch_fields,)

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        images = jnp.zeros((1, *self.image_size, 3), jnp.float32)
        variables = dict(self.model.init(key, images, train=False))
        return variables.pop("params"), variables

    def augment(self, batch: Batch, key: jax.Array) -> Batch:
        """`image` becomes normalised f32. Where rows are mixed there are two fields more: `partner` int32 [B], the
        label of the other picture in the row, and `share` f32 [B], that of the row's own label."""
        picture_key, mix_key = jax.random.split(key)
        images = self.augmentation.pictures(batch["image"], picture_key, self.mean, self.std)
        if self.augmentation.mixing is None:
            return {**batch, "image": images}
        images, partner, share = mix(images, batch["label"], mix_key, self.augmentation.mixing)
        return {**batch, "image": images, "partner": partner, "share": share}

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array) -> tuple[Terms, Aux]:
        """Of an augmented batch. `train_top1` counts for a guess the share of its class in the row's target (before
        smoothing), so that under mixing not even a perfect model reaches 1."""
        logits, model_state = self.model.apply(
            {"params": params, **model_state},
            batch["image"],
            train=True,
            rngs={"dropout": key},
            mutable=list(model_state),
        )
        logits = cast(jax.Array, logits).astype(jnp.float32)
        valid = batch["valid"].astype(jnp.float32)
        guess = jnp.argmax(logits, axis=-1)
        right = (guess == batch["label"]).astype(jnp.float32)
        if self.augmentation.mixing is None:
            losses = smoothed_cross_entropy(logits, batch["label"], smoothing=self.label_smoothing)
        else:
            pair = batch["label"], batch["partner"], batch["share"]
            losses = mixed_cross_entropy(logits, *pair, smoothing=self.label_smoothing)
            right = batch["share"] * right + (1.0 - batch["share"]) * (guess == batch["partner"])
        count = jnp.sum(valid)
        terms = {"cross_entropy": (jnp.sum(losses * valid), count)}
        return terms, Aux({"train_top1": (jnp.sum(right * valid), count)}, model_state)

    def among(self, classes: Iterable[int]) -> "Classification":
        """The same task, whose predictions choose among `classes` alone: the others have probability 0."""
        restricted = copy.copy(self)
        restricted.candidates = tuple(classes)
        return restricted

    def views(self, batch: Batch) -> Iterable[Batch]:
        return (batch,)

    def predict(self, params: Any, model_state: Any, batch: Batch) -> Predictions:
        """`log_probabilities` f32 [B, K]; -inf for classes that are no candidates."""
        images = normalise(batch["image"], self.mean, self.std)
        logits = cast(jax.Array, self.model.apply({"params": params, **model_state}, images, train=False))
        logits = logits.astype(jnp.float32)
        if self.candidates is not None:
            excluded = np.ones((1, len(self.class_names)), bool)
            excluded[0, list(self.candidates)] = False
            logits = jnp.where(excluded, -jnp.inf, logits)
        return {"log_probabilities": jax.nn.log_softmax(logits, axis=-1)}

    def merge(self, predictions: Iterable[Predictions]) -> Predictions:
        """Averages the probabilities of the views."""
        views = [view["log_probabilities"] for view in predictions]
        stacked = jnp.stack(views)
        return {"log_probabilities": jax.nn.logsumexp(stacked, axis=0) - jnp.log(jnp.float32(len(views)))}

    def scorer(self, truth: Any = None) -> "ClassificationScorer":
        return ClassificationScorer(self.class_names)

    def draw(
        self, batch: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], truth: Any = None
    ) -> dict[str, np.ndarray]:
        """A contact sheet of the batch's first pictures; wrong ones carry their true class too."""
        rows = np.flatnonzero(_counted(batch))[: self.sheet_rows]
        if not len(rows):
            return {}
        log_probabilities = predictions["log_probabilities"][rows]
        best = log_probabilities.argmax(axis=-1)
        labels = batch["label"][rows]
        right = batch["accepted"][rows, best] if "accepted" in batch else best == labels
        captions = []
        for row, (guess, label) in enumerate(zip(best, labels, strict=True)):
            confidence = float(np.exp(log_probabilities[row, guess]))
            caption = f"{self.class_names[guess]} {confidence:.0%}"
            captions.append(caption if right[row] else f"{caption}\n(is {self.class_names[label]})")
        sheet = pictures.contact_sheet(batch["image"][rows], captions, correct=right.tolist())
        return {"predictions": sheet}


def _counted(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows that are no padding and whose class is known."""
    return batch["valid"] & (batch["label"] >= 0)


class ClassificationScorer:
    """One row per valid example with a label: its index, label, guess, the label's rank and its loss.

    Of several right labels (`accepted` in the batch) the one that the model finds most probable counts: a guess is
    right if it is among them.

    Rows and not sums, so that hosts join by concatenation, 21,841 classes need no dense confusion matrix, and
    whoever looks for the worst pictures finds them.
    """

    FIELDS = ("example_index", "label", "guess", "rank", "loss")

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names
        self.num_classes = len(class_names)
        self._parts: dict[str, list[np.ndarray]] = {field: [] for field in self.FIELDS}

    def add(self, batch: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]) -> None:
        counted = _counted(batch)
        labels = batch["label"][counted]
        log_probabilities = predictions["log_probabilities"][counted]
        if "accepted" in batch:
            labels = np.where(batch["accepted"][counted], log_probabilities, -np.inf).argmax(axis=-1)
        of_label = np.take_along_axis(log_probabilities, labels[:, None], axis=-1)
        # Of equal scores the lower class index counts as ahead, as arg-max has it.
        lower = np.arange(self.num_classes)[None, :] < labels[:, None]
        ahead = (log_probabilities > of_label) | ((log_probabilities == of_label) & lower)
        rows = {
            "example_index": batch["example_index"][counted],
            "label": labels,
            "guess": log_probabilities.argmax(axis=-1),
            "rank": ahead.sum(axis=-1),
            "loss": -of_label[:, 0],
        }
        for field in self.FIELDS:
            self._parts[field].append(rows[field])

    def merge(self, other: "ClassificationScorer") -> None:
        for field in self.FIELDS:
            self._parts[field] += other._parts[field]

    def rows(self, field: str) -> np.ndarray:
        """One of `FIELDS` for all examples so far, in the order of `example_index`."""
        order = np.argsort(self._joined("example_index"), kind="stable")
        return self._joined(field)[order]

    def _joined(self, field: str) -> np.ndarray:
        return np.concatenate(self._parts[field]) if self._parts[field] else np.zeros((0,))

    def confusion(self) -> np.ndarray:
        """Counts int64 [true class, guessed class]."""
        pairs = self.rows("label").astype(np.int64) * self.num_classes + self.rows("guess").astype(np.int64)
        return np.bincount(pairs, minlength=self.num_classes**2).reshape(self.num_classes, self.num_classes)

    def per_class(self) -> np.ndarray:
        """Accuracy of each class, f64 [K]; NaN where there was no example."""
        labels = self.rows("label").astype(np.int64)
        seen = np.bincount(labels, minlength=self.num_classes)
        right = np.bincount(labels[self.rows("rank") == 0], minlength=self.num_classes)
        return np.divide(right, seen, out=np.full(self.num_classes, np.nan), where=seen > 0)

    def result(self) -> dict[str, float]:
        ranks = self.rows("rank")
        if not len(ranks):
            return {"examples": 0.0}
        return {
            "top1": float(np.mean(ranks == 0)),
            "top5": float(np.mean(ranks < 5)),
            "loss": float(np.mean(self.rows("loss"), dtype=np.float64)),
            "mean_class_accuracy": float(np.nanmean(self.per_class())),
            "examples": float(len(ranks)),
        }

    def by_class(self) -> dict[str, dict[str, float]]:
        return {"accuracy": dict(zip(self.class_names, self.per_class().tolist(), strict=True))}

    def draw(self) -> dict[str, np.ndarray]:
        """The accuracy of each class and, up to some thousand classes, the confusion matrix."""
        drawn = {
            "accuracy": pictures.class_bars(self.per_class(), self.class_names, title="accuracy by class")
        }
        if self.num_classes <= LARGEST_CONFUSION:
            drawn["confusion"] = pictures.confusion(self.confusion(), self.class_names, title="confusion")
        return drawn
