"""One pass over an evaluation split: every example once, scored on the host while the device goes on."""

import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from swin_jax.ops.target import for_mesh
from swin_jax.tasks import pictures
from swin_jax.tasks.task import Batch, Predictions, Scorer, Task
from swin_jax.training.run_directory import write_atomically
from swin_jax.training.sharding import batch_sharding, local_rows, put_batch

PIECE = 2**20  # bytes that every host adds to one exchange of what it has counted
PredictStep = Callable[[Any, Any, Batch], Predictions]


class Evaluation(NamedTuple):
    """What a pass leaves behind: the counts of all hosts, some of this host's rows to draw, and what it was scored
    against beyond its batches."""

    scorer: Scorer
    batch: Mapping[str, np.ndarray]
    predictions: Mapping[str, np.ndarray]
    truth: Any = None


def make_predict_step(task: Task, mesh: Mesh) -> PredictStep:
    """The jitted prediction of a batch: all views of it, merged."""

    def predict(params: Any, model_state: Any, batch: Batch) -> Predictions:
        return task.merge([task.predict(params, model_state, view) for view in task.views(batch)])

    return jax.jit(for_mesh(mesh, predict), out_shardings=batch_sharding(mesh))


def evaluate(
    task: Task,
    predict_step: PredictStep,
    params: Any,
    model_state: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
    truth: Any = None,
) -> Evaluation:
    """Predicts and scores `batches` (this host's rows of each; the same number on every host).

    `truth` is what the split knows beyond its batches, for the task's scorer.

    Raises:
        ValueError: there is no batch.
    """
    return evaluate_each(task, predict_step, {"": (params, model_state)}, batches, mesh, truth)[""]


def evaluate_each(
    task: Task,
    predict_step: PredictStep,
    variables: Mapping[str, tuple[Any, Any]],
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
    truth: Any = None,
) -> dict[str, Evaluation]:
    """As `evaluate`, of several `(params, model_state)` by name: each batch is read once."""
    scorers = {name: task.scorer(truth) for name in variables}
    samples = {name: Sample(task.sheet_rows) for name in variables}
    waiting: tuple[Mapping[str, np.ndarray], dict[str, Predictions]] | None = None

    def score(batch: Mapping[str, np.ndarray], predictions: Mapping[str, Predictions]) -> None:
        for name, found in predictions.items():
            on_host = {field: local_rows(array) for field, array in found.items()}
            scorers[name].add(batch, on_host)
            samples[name].add(batch, on_host)

    for batch in batches:
        rows = put_batch({field: batch[field] for field in task.predict_fields}, mesh)
        predictions = {name: predict_step(*given, rows) for name, given in variables.items()}
        if waiting is not None:
            score(*waiting)
        waiting = (batch, predictions)
    if waiting is None:
        raise ValueError("the evaluation split has no examples")
    score(*waiting)
    return {
        name: Evaluation(
            merge_over_hosts(scorers[name], task.scorer(truth)), *samples[name].rows(), truth=truth
        )
        for name in variables
    }


class Sample:
    """Rows drawn evenly from all batches of the first one's shapes: data often lie in the order of their classes.

    Those with the smallest hash of their example index, so that every pass over the same data keeps the same ones.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: tuple[dict[str, np.ndarray], ...] = ()

    def add(self, batch: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]) -> None:
        new = (batch, predictions)
        if not self._kept:
            self._kept = tuple({name: rows[:0] for name, rows in part.items()} for part in new)
        for kept, part in zip(self._kept, new, strict=True):
            if any(part[name].shape[1:] != rows.shape[1:] for name, rows in kept.items()):
                return
        rank, largest = _hashes(batch["example_index"]), np.iinfo(np.uint32).max
        if len(before := _hashes(self._kept[0]["example_index"])) == self.size:
            largest = before.max()
        taken = batch["valid"] & (rank < largest)
        joined = np.concatenate([before, rank[taken]])
        order = np.argsort(joined, kind="stable")[: self.size]
        self._kept = tuple(
            {name: np.concatenate([rows, part[name][taken]])[order] for name, rows in kept.items()}
            for kept, part in zip(self._kept, new, strict=True)
        )

    def rows(self) -> tuple[Mapping[str, np.ndarray], ...]:
        """The kept rows of the batches and of the predictions."""
        return self._kept


def _hashes(indices: np.ndarray) -> np.ndarray:
    """uint32 [N]: multiplicative hashing, which spreads what is consecutive."""
    return (indices.astype(np.uint64) * 2654435761 % 2**32).astype(np.uint32)


def save_pictures(directory: epath.Path, task: Task, found: Evaluation) -> None:
    """Writes what the task and its scorer draw of an evaluation, replacing older pictures of the same name."""
    drawn = {**found.scorer.draw(), **task.draw(found.batch, found.predictions, found.truth)}
    for name, picture in drawn.items():
        write_atomically(directory / f"{name}.png", pictures.png(picture))


def merge_over_hosts(scorer: Scorer, merged: Scorer) -> Scorer:
    """The counts of all hosts, on every host and in their order, in the fresh scorer `merged`. With one host the scorer
    itself."""
    if jax.process_count() == 1:
        return scorer
    for text in gather(pickle.dumps(scorer)):
        merged.merge(pickle.loads(text))
    return merged


def gather(own: bytes) -> list[bytes]:
    """The bytes of all hosts, on every host and in their order. They pass through the devices in small pieces:
    what a scorer of masks has counted may be larger than what a device has left."""
    pieces = -(-len(own) // PIECE)
    told = np.asarray([pieces, len(own) - PIECE * (pieces - 1)], np.int32)  # lengths may exceed 32 bits
    shapes = np.asarray(multihost_utils.process_allgather(told)).reshape(-1, 2)
    found = [bytearray() for _ in shapes]
    for number in range(int(shapes[:, 0].max())):
        piece = np.zeros(PIECE, np.uint8)
        part = np.frombuffer(own, np.uint8)[number * PIECE : (number + 1) * PIECE]
        piece[: part.size] = part
        everyone = np.asarray(multihost_utils.process_allgather(piece)).reshape(len(shapes), PIECE)
        for whole, row, (count, rest) in zip(found, everyone, shapes, strict=True):
            if number < count:
                whole += row[: rest if number == count - 1 else PIECE].tobytes()
    return [bytes(whole) for whole in found]
