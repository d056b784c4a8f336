"""One pass over an evaluation split: every example once, scored on the host while the device goes on."""

import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from swin_jax.tasks import pictures
from swin_jax.tasks.task import Batch, Predictions, Scorer, Task
from swin_jax.training.run_directory import write_atomically
from swin_jax.training.sharding import batch_sharding, local_rows, put_batch

PredictStep = Callable[[Any, Any, Batch], Predictions]


class Evaluation(NamedTuple):
    """What a pass leaves behind: the counts of all hosts, and this host's first batch to draw."""

    scorer: Scorer
    batch: Mapping[str, np.ndarray]
    predictions: Mapping[str, np.ndarray]


def make_predict_step(task: Task, mesh: Mesh) -> PredictStep:
    """The jitted prediction of a batch: all views of it, merged."""

    def predict(params: Any, model_state: Any, batch: Batch) -> Predictions:
        return task.merge([task.predict(params, model_state, view) for view in task.views(batch)])

    return jax.jit(predict, out_shardings=batch_sharding(mesh))


def evaluate(
    task: Task,
    predict_step: PredictStep,
    params: Any,
    model_state: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
) -> Evaluation:
    """Predicts and scores `batches` (this host's rows of each; the same number on every host).

    Raises:
        ValueError: there is no batch.
    """
    scorer = task.scorer()
    first: list[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]] = []
    waiting: tuple[Mapping[str, np.ndarray], Predictions] | None = None

    def score(batch: Mapping[str, np.ndarray], predictions: Predictions) -> None:
        on_host = {name: local_rows(array) for name, array in predictions.items()}
        scorer.add(batch, on_host)
        if not first:
            first.append((batch, on_host))

    for batch in batches:
        fields = {name: batch[name] for name in task.batch_fields}
        predictions = predict_step(params, model_state, put_batch(fields, mesh))
        if waiting is not None:
            score(*waiting)
        waiting = (batch, predictions)
    if waiting is None:
        raise ValueError("the evaluation split has no examples")
    score(*waiting)
    return Evaluation(merge_over_hosts(scorer), *first[0])


def save_pictures(directory: epath.Path, task: Task, found: Evaluation) -> None:
    """Writes what the task and its scorer draw of an evaluation, replacing older pictures of the same name."""
    drawn = {**found.scorer.draw(), **task.draw(found.batch, found.predictions)}
    for name, picture in drawn.items():
        write_atomically(directory / f"{name}.png", pictures.png(picture))


def merge_over_hosts(scorer: Scorer) -> Scorer:
    """The counts of all hosts, on every host. With one host the scorer itself."""
    if jax.process_count() == 1:
        return scorer
    own = np.frombuffer(pickle.dumps(scorer), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int64(own.size))).ravel()
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: own.size] = own
    everyone = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    merged, *others = (pickle.loads(row[:size].tobytes()) for row, size in zip(everyone, sizes, strict=True))
    for other in others:
        merged.merge(other)
    return merged
