"""The training loop: the same for every task.

Order of one turn, fixed: take the batch, dispatch the step, look at the report of the step before, and where due
evaluate, then checkpoint. The report is fetched one step late so that the device always has work; whatever reads
the state on the host settles it first.
"""

import json
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from swin_jax.training.checkpoint import Checkpoints
from swin_jax.training.sharding import path_name, put_batch
from swin_jax.training.state import TrainState, TrainStep

log = logging.getLogger(__name__)


class NotFinite(RuntimeError):
    """Loss or gradient of a step was not a finite number; the evidence is on disk."""


@runtime_checkable
class Recorder(Protocol):
    """What the loop tells the record of a run."""

    def train(self, step: int, scalars: Mapping[str, float], *, data_wait: float) -> None: ...
    def evaluation(self, step: int, scalars: Mapping[str, float]) -> None: ...


class Turn(NamedTuple):
    """A dispatched step whose report has not been looked at."""

    step: int
    report: Mapping[str, Any]
    batch: Mapping[str, np.ndarray]
    data_wait: float


def run(
    state: TrainState,
    *,
    train_step: TrainStep,
    batches: Iterator[Mapping[str, np.ndarray]],
    batch_fields: Mapping[str, Any],
    mesh: Mesh,
    total_steps: int,
    evaluate: Callable[[TrainState, int], Mapping[str, float]],
    evaluate_every: int,
    checkpoints: Checkpoints,
    recorder: Recorder,
    evidence: epath.Path,
    max_not_finite: int = 0,
    stop_asked: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Trains from `state.step` to `total_steps`, or until `stop_asked`; returns the state it saved last.

    Args:
        batches: this host's rows, from the batch of step `state.step` on.
        evaluate: scores the state; its metrics rank the checkpoint that is saved with them.
        evidence: the directory in which a step that is not finite leaves its examples and norms.
        max_not_finite: how many steps of the run, its former lives included, may be skipped for not being finite.

    Raises:
        NotFinite: more than `max_not_finite` steps were not finite. The last checkpoint stays as it is.
    """
    start = int(state.step)
    replaced = 0
    waiting: Turn | None = None

    def settle() -> None:
        nonlocal waiting, replaced
        if waiting is None:
            return
        turn, waiting = waiting, None
        scalars = {name: float(value) for name, value in _scalars(turn.report).items()}
        if not scalars.pop("finite"):
            not_finite = int(scalars["skipped_steps"])
            where = keep_evidence(evidence, turn, state.params)
            message = f"step {turn.step} is not finite (loss {scalars['loss']}, gradient norm {scalars['grad_norm']})"
            if not_finite > max_not_finite:
                raise NotFinite(f"{message}: its examples and the norms of every layer are in {where}")
            log.warning("%s and was skipped, %d of at most %d", message, not_finite, max_not_finite)
        replaced += int(np.sum(turn.batch["replaced"]))
        recorder.train(turn.step, scalars | {"replaced_pictures": float(replaced)}, data_wait=turn.data_wait)

    for step in range(start + 1, total_steps + 1):
        asked = time.perf_counter()
        batch = next(batches)
        data_wait = time.perf_counter() - asked
        state, report = train_step(state, put_batch({name: batch[name] for name in batch_fields}, mesh))
        settle()
        waiting = Turn(step, report, batch, data_wait)

        stopping = stop_asked()
        last = step == total_steps
        scored = last or step % evaluate_every == 0
        if not (stopping or scored or checkpoints.due(step)):
            continue
        settle()
        metrics = evaluate(state, step) if scored else None
        if metrics:
            recorder.evaluation(step, metrics)
        checkpoints.save(step, state, metrics, force=stopping or scored)
        if stopping:
            break
    checkpoints.wait()
    return state


def _scalars(report: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return jax.device_get({name: value for name, value in report.items() if value.ndim == 0})


def keep_evidence(directory: epath.Path, turn: Turn, params: Any) -> epath.Path:
    """Writes which examples this host fed to the step and the norm of every gradient and parameter before it."""
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    norms = jax.device_get((turn.report["grad_norms"], turn.report["param_norms"]))
    found = {
        "step": turn.step,
        "loss": float(turn.report["loss"]),
        "learning_rate": float(turn.report["learning_rate"]),
        "example_index": turn.batch["example_index"].tolist(),
        "layers": {
            name: {"gradient_norm": float(gradient), "parameter_norm": float(parameter)}
            for name, gradient, parameter in zip(names, *norms, strict=True)
        },
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step_{turn.step}_host_{jax.process_index()}.json"
    path.write_text(json.dumps(found, indent=1))
    return path


class StopOnSignal:
    """SIGTERM and Ctrl-C ask the loop to save and leave; a second one ends the process at once."""

    def __init__(self) -> None:
        self.asked: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.asked = signal.Signals(number).name
        signal.signal(number, self._before[number])

    def __call__(self) -> bool:
        return self.asked is not None
