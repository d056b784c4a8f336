"""The runs of a study: a directory for each row, task and seed, a process for each run.

<study>/study.json                       what the study is
<study>/<row>/<task>/seed0/              a run directory, as `swin_jax.train` makes it
<study>/<row>/<task>/seed0.log           what it said
"""

import ctypes
import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swin_jax.config import FREE_FIELDS
from swin_jax.exports.card import CARD
from swin_jax.studies.table import MEASURES, Table
from swin_jax.training import provenance
from swin_jax.training.preflight import check_workdir
from swin_jax.training.run_directory import (
    differences,
    is_free,
    read_document,
    read_metrics,
    write_atomically,
)

STUDY = "study.json"
ROOT = Path(__file__).resolve().parents[2]
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclasses.dataclass(frozen=True)
class Study:
    """What all runs have in common.

    Attributes:
      table: of the rows.
      file: of the table.
      directory: of the study.
      scale, task: of the base config.
      overrides: config field=value of all rows.
    """

    table: Table
    file: Path
    directory: Path
    scale: str
    task: str
    overrides: tuple[str, ...] = ()

    def claim(self) -> None:
        """Makes the directory this study's. Raises ValueError if it is another's, or cannot be written."""
        mine = {"table": self.file.name, "scale": self.scale, "overrides": list(self.overrides)}
        path = self.directory / STUDY
        if path.exists():
            theirs = json.loads(path.read_text())
            if theirs != mine:
                field = next(name for name in mine if mine[name] != theirs.get(name))
                raise ValueError(
                    f"{self.directory} holds a study with {field} {theirs.get(field)}, not {mine[field]}; "
                    "name another --workdir"
                )
            return
        check_workdir(str(self.directory))
        if any(self.directory.iterdir()):
            raise ValueError(f"{self.directory} is not empty and holds no study; name another --workdir")
        write_atomically(path, json.dumps(mine, indent=1).encode() + b"\n")

    def run_directory(self, row: str, seed: int) -> Path:
        return self.directory / row / self.task / f"seed{seed}"

    def command(self, row: str, seed: int) -> list[str]:
        """What trains one run."""
        command = [sys.executable, "-m", "swin_jax.train"]
        command += [f"--config={self.file}:{row},{self.scale},{self.task}", f"--config.seed={seed}"]
        if begun := self.table.rows[row].begins_with:
            command.append(f"--config.init_from={self.run_directory(begun, seed)}")
        command += [f"--config.{override}" for override in self.overrides]
        return [*command, f"--workdir={self.run_directory(row, seed)}"]

    def seeds(self, row: str) -> tuple[int, ...]:
        """Of the finished runs of a row."""
        parent = self.directory / row / self.task
        numbers = [path.name.removeprefix("seed") for path in parent.glob("seed*") if path.is_dir()]
        return tuple(
            seed
            for seed in sorted(int(number) for number in numbers if number.isdigit())
            if self.finished(row, seed)
        )

    def finished(self, row: str, seed: int) -> bool:
        # A run leaves its card when it has taken its last step.
        return (self.run_directory(row, seed) / CARD).exists()

    def curve(self, row: str, seed: int) -> list[dict[str, Any]]:
        """The evaluations of a run: `step` and the measures of the task, as far as finite."""
        names = MEASURES[self.task]
        lines = read_metrics(self.run_directory(row, seed))
        return [
            {"step": line["step"], **{name: line.get(f"eval/{name}") for name in names}}
            for line in lines
            if f"eval/{names[0]}" in line
        ]


def train(study: Study, row: str, seed: int) -> str:
    """Trains one run to its end, on from where it stopped; nothing where it is finished.

    Returns:
      "" if the run is finished, else one sentence why not.
    """
    if study.finished(row, seed):
        return ""
    if (begun := study.table.rows[row].begins_with) and not study.finished(begun, seed):
        return f"it begins with row {begun!r}, seed {seed}, which is not finished"
    directory = study.run_directory(row, seed)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _alone(directory.with_suffix(".lock")) as lock:
        if lock is None:
            return "another process trains it"
        return _run(study, row, seed, directory.with_suffix(".log"), lock)


def _run(study: Study, row: str, seed: int, said: Path, lock: int) -> str:
    # Runs of one shape, all seeds of a row above all, share their compiled programs.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(study.directory / ".programs")}
    # Tables share their bases with other experiments: these are found from wherever the study is started.
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    with open(said, "a") as file:
        process = subprocess.Popen(
            study.command(row, seed),
            env={**cache, **os.environ, **paths},
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=(lock,),
            preexec_fn=_stop_with_parent,
        )
        with _forwarding(process):
            process.wait()
    if process.returncode == 0 and study.finished(row, seed):
        return ""
    lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it said nothing"])[-1] if process.returncode != 0 else lines[-1]


@contextmanager
def _alone(path: Path) -> Iterator[int | None]:
    """Holds a lock that lives as long as this process or the run it starts; None if another holds it."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
        else:
            yield file.fileno()


@contextmanager
def _forwarding(process: subprocess.Popen) -> Iterator[None]:
    """A signal that asks this process to stop asks the run, which keeps what it has, and then ends this process."""
    asked: list[int] = []

    def forward(number: int, _: object) -> None:
        asked.append(number)
        process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise SystemExit(f"stopped by {signal.Signals(asked[0]).name}; the same command goes on from there")


def _stop_with_parent() -> None:
    """A run whose study was killed stops as if asked to, instead of training on unseen. Linux alone knows how."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(DIES_WITH_PARENT, signal.SIGTERM)


def check_alike(study: Study, rows: Sequence[str]) -> None:
    """Whether the finished runs differ in nothing but what their rows change.

    Raises:
      ValueError: two runs have different data, lengths, other settings, code or libraries.
    """
    free = (*study.table.varying(), *FREE_FIELDS)
    documents = {
        (row, seed): read_document(study.run_directory(row, seed)) or {}
        for row in rows
        for seed in study.seeds(row)
    }
    (first, base), *others = documents.items() or [(("", 0), {})]
    for (row, seed), document in others:
        settings = differences(base["config"], document["config"])
        found = [name for name in settings if not is_free(name, free)] + provenance.changes(base, document)
        if found:
            raise ValueError(
                f"rows {first[0]!r} (seed {first[1]}) and {row!r} (seed {seed}) of {study.directory} are not "
                f"comparable: {'; '.join(found)} (there -> here); train one of them again (remove its directory), or "
                "begin a new study"
            )
