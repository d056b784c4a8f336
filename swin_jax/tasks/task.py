"""What a task is: the only thing in which classification, segmentation and detection differ."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from swin_jax.tasks.pictures import Panel

Batch = Mapping[str, jax.Array]
Predictions = Mapping[str, jax.Array]
# A loss term or metric is a pair (numerator, denominator), both f32 scalars summed over rows: sums over
# micro-batches and devices stay exact where means of means would not.
Terms = dict[str, tuple[jax.Array, jax.Array]]


class Aux(NamedTuple):
    """What a loss returns besides its terms."""

    metrics: Terms
    model_state: Any


@runtime_checkable
class Scorer(Protocol):
    """Counts on the host. One per evaluation and process; `merge` joins those of several processes."""

    def add(self, batch: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]) -> None: ...
    def merge(self, other: Any) -> None: ...  # another one of the same kind
    def result(self) -> dict[str, float]: ...
    def by_class(
        self,
    ) -> dict[str, dict[str, float]]: ...  # measure -> class -> value, NaN where there is none
    def draw(self) -> dict[str, np.ndarray]: ...  # name -> uint8 [H, W, 3]


@runtime_checkable
class Task(Protocol):
    """Everything the training loop and the evaluator ask of a task."""

    @property
    def model(self) -> Any:
        """The module whose parameters it trains; it says of a path `frozen(path)` and `layer_of(path)`."""
        ...

    @property
    def batch_fields(self) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """The fields of a training batch that it reads: name -> (shape of a row, dtype)."""
        ...

    @property
    def batch_shapes(self) -> Sequence[Mapping[str, tuple[tuple[int, ...], str]]]:
        """All that `batch_fields` may be: one, or one for each canvas; that property is the first."""
        ...

    @property
    def predict_fields(self) -> Sequence[str]:
        """The fields of an evaluation batch that `views` and `predict` read."""
        ...

    @property
    def best_metric(self) -> str:
        """What an evaluation ranks checkpoints by; higher is better."""
        ...

    @property
    def sheet_rows(self) -> int:
        """How many rows of an evaluation `draw` has use for."""
        ...

    @property
    def panels(self) -> Sequence[Panel]:
        """What the curves of a run show."""
        ...

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """Fresh `(params, model_state)`."""
        ...

    def augment(self, batch: Batch, key: jax.Array) -> Batch:
        """On device, once per global batch and before it is cut into micro-batches: whatever mixes rows."""
        ...

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array) -> tuple[Terms, Aux]:
        """On device, in training mode."""
        ...

    def views(self, batch: Batch) -> Iterable[Batch]:
        """The batches whose predictions are merged into one: test-time augmentation; plainly one view."""
        ...

    def predict(self, params: Any, model_state: Any, batch: Batch) -> Predictions:
        """On device, in evaluation mode, fixed shapes."""
        ...

    def merge(self, predictions: Iterable[Predictions]) -> Predictions:
        """The predictions of all views as one."""
        ...

    def scorer(self, truth: Any = None) -> Scorer:
        """A fresh one. `truth` is what the evaluation split knows beyond its batches, where it has that."""
        ...

    def draw(
        self, batch: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], truth: Any = None
    ) -> dict[str, np.ndarray]:
        """Pictures for a person: name -> uint8 [H, W, 3]."""
        ...
