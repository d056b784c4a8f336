"""Killed, stopped, moved to other devices: the run ends as if nothing had happened."""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from swin_jax import train
from swin_jax.config import Config
from swin_jax.inputs import Data
from swin_jax.restore import open_run
from swin_jax.training.checkpoint import Checkpoints
from swin_jax.training.run_directory import read_metrics
from tests.runs.conftest import STEPS, flags, run, start

pytestmark = [pytest.mark.xdist_group("resume"), pytest.mark.long]  # one worker, one uninterrupted run


def final_params(workdir: Path) -> Any:
    opened = open_run(str(workdir), checkpoint="newest")
    assert opened.step == STEPS
    return jax.tree.map(np.asarray, opened.load()[0])


def assert_same_run(found: Path, expected: Path) -> None:
    """Bit-identical parameters, and the same curve without gaps or repetitions."""
    jax.tree.map(np.testing.assert_array_equal, final_params(found), final_params(expected))
    curves = [
        [
            (line["step"], line["loss"], line["learning_rate"])
            for line in read_metrics(workdir)
            if "loss" in line
        ]
        for workdir in (found, expected)
    ]
    assert curves[0] == curves[1]
    assert [step for step, *_ in curves[0]] == list(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    done = run("train", *flags(folder), f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def steps_recorded(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b'"loss"') if path.exists() else 0


def wait_for_steps(workdir: Path, steps: int, process: Any) -> None:
    while steps_recorded(workdir) < steps and process.poll() is None:
        time.sleep(0.005)


def test_killed_at_five_random_moments(
    folder: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # jax writes its compile cache in place: a kill would leave half an entry for all other tests to read.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    generator = random.Random(0)
    kills = 0
    for steps in sorted(generator.sample(range(0, STEPS), 5)):
        process = start("train", *flags(folder), f"--workdir={tmp_path}")
        if steps:
            wait_for_steps(tmp_path, steps, process)
        time.sleep(generator.random() * (0.05 if steps else 2.0))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills == 5
    done = run("train", *flags(folder), f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path, uninterrupted)


def test_sigterm_loses_no_step(folder: Path, uninterrupted: Path, tmp_path: Path) -> None:
    process = start("train", *flags(folder), f"--workdir={tmp_path}")
    wait_for_steps(tmp_path, 4, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "stopped by SIGTERM at step " in out
    step = int(out.split("at step ")[1].split()[0])
    assert 4 <= step < STEPS
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps()[-1] == step
    assert steps_recorded(tmp_path) == step
    done = run("train", *flags(folder), f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert f"resuming at step {step} of {STEPS}" in done.stderr
    assert_same_run(tmp_path, uninterrupted)


def test_a_finished_run_says_so(folder: Path, uninterrupted: Path) -> None:
    before = final_params(uninterrupted)
    done = run("train", *flags(folder), f"--workdir={uninterrupted}")
    assert done.returncode == 0, done.stderr
    assert f"is finished: step {STEPS} of {STEPS}" in done.stdout
    jax.tree.map(np.testing.assert_array_equal, before, final_params(uninterrupted))


def test_begun_on_one_device_and_finished_on_eight(
    micro: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every example is seen as planned, and the curve is that of one device."""
    seen: dict[str, list[list[int]]] = {}
    batches = Data.train_batches

    def watched(name: str, stop_after: int | None) -> Callable[..., Iterator[dict[str, np.ndarray]]]:
        def wrapped(self: Data, *arguments: int) -> Iterator[dict[str, np.ndarray]]:
            for count, batch in enumerate(batches(self, *arguments), start=1):
                if count == stop_after:
                    os.kill(os.getpid(), signal.SIGTERM)
                seen.setdefault(name, []).append(batch["example_index"].tolist())
                yield batch

        return wrapped

    def life(workdir: Path, name: str, devices: int, stop_after: int | None) -> None:
        monkeypatch.setattr(Data, "train_batches", watched(name, stop_after))
        monkeypatch.setattr("swin_jax.training.sharding.select_devices", lambda _: jax.devices()[:devices])
        train.train(train.prepare(micro(), str(workdir)))

    life(tmp_path / "moved", "moved", 1, 5)
    assert Checkpoints(tmp_path / "moved" / "checkpoints", read_only=True).steps()[-1] == 5
    life(tmp_path / "moved", "moved", 8, None)
    life(tmp_path / "whole", "whole", 1, None)
    assert seen["moved"] == seen["whole"]
    assert len(seen["whole"]) == STEPS
    first_epoch = [index for batch in seen["whole"] for index in batch][:27]
    assert sorted(first_epoch) == list(range(27))
    losses = [
        [line["loss"] for line in read_metrics(tmp_path / name) if "loss" in line]
        for name in ("moved", "whole")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert json.loads((tmp_path / "moved" / "config.json").read_text())["config"]["mesh"]["fsdp"] == 1
