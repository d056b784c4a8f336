"""A run that averages its parameters: resumed exactly, both scored, the average handed on."""

import contextlib
import json
import os
import shutil
import signal
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
from tests.runs.conftest import STEPS, run

pytestmark = [pytest.mark.xdist_group("ema"), pytest.mark.long]  # one worker, one averaged run
AVERAGED: dict[str, Any] = {"ema__decay": 0.9, "ema__warmup": "ratio"}


@pytest.fixture(scope="module")
def averaged(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, with a profiler trace of its steps 2 and 3."""
    from experiments import own_images
    from tests.runs.conftest import OVERRIDES

    config = own_images.get_config("micro_32")
    config.update_from_flattened_dict(OVERRIDES | {"data.root": str(folder), "profile_steps": "2:4"})
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in AVERAGED.items()})
    workdir = tmp_path_factory.mktemp("averaged")
    train.train(train.prepare(config.lock(), str(workdir)))
    return workdir


def parameters(workdir: Path, kind: str = "", checkpoint: str = "newest") -> Any:
    return jax.tree.map(np.asarray, open_run(str(workdir), checkpoint=checkpoint, parameters=kind).load()[0])


def same(one: Any, other: Any) -> bool:
    assert jax.tree.leaves(one)
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))  # raises where the trees differ


def scored(workdir: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(workdir) if "eval/loss" in line]


def test_both_are_scored_and_a_trace_is_left(averaged: Path) -> None:
    for line in scored(averaged):
        assert line["eval/ema/examples"] == line["eval/examples"] == 21
        assert line["eval/ema/loss"] != line["eval/loss"]
    assert len(list(averaged.glob("profile/plugins/profile/*/*.xplane.pb"))) == 1


def test_stopped_and_resumed_the_average_is_bit_for_bit_the_same(
    averaged: Path, micro: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Data.train_batches

    def stopping(self: Data, *arguments: int) -> Iterator[dict[str, np.ndarray]]:
        for count, batch in enumerate(batches(self, *arguments), start=1):
            if count == 7:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(Data, "train_batches", stopping)
        train.train(train.prepare(micro(**AVERAGED), str(tmp_path)))
    assert open_run(str(tmp_path), checkpoint="newest").step == 7
    train.train(train.prepare(micro(**AVERAGED), str(tmp_path)))
    for kind in ("ema", "plain"):
        assert same(parameters(tmp_path, kind), parameters(averaged, kind))
    assert scored(tmp_path) == scored(averaged)


def test_the_average_is_what_is_used_unless_asked_otherwise(averaged: Path) -> None:
    average, plain = parameters(averaged, "ema"), parameters(averaged, "plain")
    assert not same(average, plain)
    assert same(parameters(averaged), average)
    best = max(scored(averaged), key=lambda line: (line["eval/ema/top1"], line["step"]))
    assert open_run(str(averaged)).step == best["step"]
    done = run("evaluate", f"--workdir={averaged}", "--checkpoint=newest")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["parameters"] == "ema"
    assert found["loss"] == pytest.approx(scored(averaged)[-1]["eval/ema/loss"], rel=1e-5)
    written = json.loads((averaged / f"evaluation_val_{STEPS}_ema.json").read_text())
    assert {**found, "by_class": written["by_class"]} == written
    done = run("evaluate", f"--workdir={averaged}", "--checkpoint=newest", "--parameters=plain")
    found = json.loads(done.stdout)
    assert found["parameters"] == "plain"
    assert found["loss"] == pytest.approx(scored(averaged)[-1]["eval/loss"], rel=1e-5)


def test_a_run_begun_from_it_begins_with_the_average(
    averaged: Path, micro: Callable[..., Config], tmp_path: Path
) -> None:
    plan = train.prepare(micro(init_from=str(averaged), **AVERAGED), str(tmp_path))
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as none_yet:
        state = train.first_state(plan, none_yet)
    begun = parameters(averaged, "ema", "best")
    assert same(state.params, begun)
    assert same(state.ema_params, begun)


def test_a_directory_of_a_run_without(averaged: Path, micro: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"another config: ema.decay: 0.9 -> 0.0; ema.warmup: \"ratio\" -> \"\""
    ):
        train.prepare(micro(), str(averaged))
    run_directory = shutil.copytree(averaged, tmp_path / "run")
    document = json.loads((run_directory / "config.json").read_text())
    # As a version without averages and switches wrote it: what it holds besides is read as it always was.
    del document["config"]["ema"], document["config"]["deterministic"], document["config"]["data_fingerprint"]
    (run_directory / "config.json").write_text(json.dumps(document))
    assert same(parameters(run_directory), parameters(averaged, "plain"))
    with pytest.raises(ValueError, match="the run keeps no average"):
        open_run(str(run_directory), parameters="ema")
    with pytest.raises(ValueError, match=r"--parameters is 'mean'; choose ema or plain"):
        open_run(str(run_directory), parameters="mean")
    with pytest.raises(
        ValueError, match=r"another version of swin_jax .*data_fingerprint.evaluation: absent"
    ):
        train.prepare(micro(), str(run_directory))
