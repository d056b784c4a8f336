"""The loop's order, what it saves when asked to stop, and the evidence of a step that is not finite."""

import itertools
import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from swin_jax.training import loop
from swin_jax.training.checkpoint import Checkpoints
from swin_jax.training.sharding import make_mesh, state_shardings
from swin_jax.training.state import TrainState


class Notes:
    """A recorder that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.scalars: dict[int, dict[str, float]] = {}

    def train(self, step: int, scalars: Mapping[str, float], *, data_wait: float) -> None:
        assert data_wait >= 0
        self.events.append(("train", step))
        self.scalars[step] = dict(scalars)

    def evaluation(self, step: int, scalars: Mapping[str, float]) -> None:
        self.events.append(("evaluation", step))


def fresh() -> TrainState:
    return TrainState(jnp.zeros((), jnp.int32), {"w": jnp.zeros((4,))}, {}, {})


def batches(start: int = 0) -> Iterator[dict[str, np.ndarray]]:
    for step in itertools.count(start):
        rows = np.arange(2, dtype=np.uint32) + 2 * step
        yield {"example_index": rows, "replaced": np.asarray([step == 1, False])}


def counting_step(bad_steps: tuple[int, ...] = ()) -> Any:
    """Adds the batch's first index to the weights; the named steps (counted from 1) are not finite."""

    def step(state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, dict[str, Any]]:
        done = int(state.step) + 1
        bad = done in bad_steps
        weights = state.params["w"] + (0 if bad else batch["example_index"][0].astype(jnp.float32))
        report = {
            "loss": jnp.float32(np.nan if bad else 1.0),
            "grad_norm": jnp.float32(1.0),
            "learning_rate": jnp.float32(0.5),
            "finite": jnp.asarray(not bad),
            "grad_norms": jnp.full((1,), np.nan if bad else 1.0),
            "param_norms": jnp.ones((1,)),
        }
        skipped = state.skipped + bad
        report["skipped_steps"] = skipped
        return TrainState(jnp.asarray(done, jnp.int32), {"w": weights}, {}, {}, skipped=skipped), report

    return step


def run(tmp_path: Path, state: TrainState, notes: Notes, **options: Any) -> TrainState:
    checkpoints = Checkpoints(tmp_path / "checkpoints", every=4, keep=3, metric="top1")
    settings: dict[str, Any] = {
        "train_step": counting_step(),
        "batches": batches(int(state.step)),
        "batch_fields": {"example_index": ((), "uint32")},
        "mesh": make_mesh(devices=jax.devices()[:1]),
        "total_steps": 10,
        "evaluate": lambda state, step: {"top1": step / 10},
        "evaluate_every": 5,
        "checkpoints": checkpoints,
        "recorder": notes,
        "evidence": epath.Path(tmp_path / "not_finite"),
    }
    try:
        return loop.run(state, **(settings | options))
    finally:
        checkpoints.close()


def saved_steps(tmp_path: Path) -> list[int]:
    return Checkpoints(tmp_path / "checkpoints", read_only=True).steps()


def test_every_step_is_reported_once_and_evaluations_come_in_their_place(tmp_path: Path) -> None:
    notes = Notes()
    state = run(tmp_path, fresh(), notes)
    assert int(state.step) == 10
    assert float(state.params["w"][0]) == sum(2 * step for step in range(10))
    steps = [("train", step) for step in range(1, 11)]
    steps.insert(5, ("evaluation", 5))
    assert notes.events == [*steps, ("evaluation", 10)]
    assert saved_steps(tmp_path) == [5, 8, 10]  # 4 has made room, 10 is the best as well
    assert notes.scalars[2]["replaced_pictures"] == 1.0
    assert notes.scalars[1]["replaced_pictures"] == 0.0


def test_asked_to_stop_it_saves_the_step_it_is_at(tmp_path: Path) -> None:
    notes = Notes()
    asked = iter([False, False, True])
    state = run(tmp_path, fresh(), notes, stop_asked=lambda: next(asked))
    assert int(state.step) == 3
    assert saved_steps(tmp_path) == [3]
    assert notes.events == [("train", 1), ("train", 2), ("train", 3)]

    whole = run(tmp_path / "whole", fresh(), Notes())
    found = Checkpoints(tmp_path / "checkpoints", read_only=True).restore_newest(
        fresh(), state_shardings(fresh(), make_mesh(devices=jax.devices()[:1]))
    )
    assert found is not None
    resumed = run(tmp_path, found, Notes())
    np.testing.assert_array_equal(resumed.params["w"], whole.params["w"])


def test_not_finite_stops_with_evidence_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(loop.NotFinite, match=r"step 6 is not finite \(loss nan") as caught:
        run(tmp_path, fresh(), Notes(), train_step=counting_step((6,)))
    path = tmp_path / "not_finite" / "step_6_host_0.json"
    assert str(path) in str(caught.value)
    found = json.loads(path.read_text())
    assert found["step"] == 6
    assert found["example_index"] == [10, 11]
    assert list(found["layers"]) == ["w"]
    assert found["layers"]["w"]["parameter_norm"] == 1.0
    assert saved_steps(tmp_path) == [4, 5]


def test_not_finite_in_the_last_step_is_not_missed(tmp_path: Path) -> None:
    with pytest.raises(loop.NotFinite, match="step 10"):
        run(tmp_path, fresh(), Notes(), train_step=counting_step((10,)))
    assert saved_steps(tmp_path) == [4, 5, 8]


def test_as_many_steps_as_allowed_are_skipped_and_counted(tmp_path: Path) -> None:
    notes = Notes()
    run(tmp_path, fresh(), notes, train_step=counting_step((3, 6)), max_not_finite=2)
    assert notes.scalars[10]["skipped_steps"] == 2.0
    with pytest.raises(loop.NotFinite, match="step 7"):
        run(tmp_path / "b", fresh(), Notes(), train_step=counting_step((3, 6, 7)), max_not_finite=2)


def test_skipped_steps_are_those_of_the_run_over_a_resume(tmp_path: Path) -> None:
    """One before the stop, one after: together more than are allowed, though each life has but one."""
    asked = iter([False, False, False, True])
    bad = {"train_step": counting_step((3, 6)), "max_not_finite": 1}
    stopped = run(tmp_path, fresh(), Notes(), stop_asked=lambda: next(asked), **bad)
    assert int(stopped.skipped) == 1
    found = Checkpoints(tmp_path / "checkpoints", read_only=True).restore_newest(
        fresh(), state_shardings(fresh(), make_mesh(devices=jax.devices()[:1]))
    )
    assert found is not None
    with pytest.raises(loop.NotFinite, match="step 6"):
        run(tmp_path, found, Notes(), **bad)
    notes = Notes()
    run(tmp_path, found, notes, **(bad | {"max_not_finite": 2}))
    assert notes.scalars[5]["skipped_steps"] == 1.0
    assert notes.scalars[10]["skipped_steps"] == 2.0


def test_signals_are_noted_once_and_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with loop.StopOnSignal() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        assert stop.asked == "SIGTERM"
        assert signal.getsignal(signal.SIGTERM) == before  # a second one ends the process
    assert signal.getsignal(signal.SIGTERM) == before
