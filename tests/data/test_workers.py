"""Worker processes: the same batches as threads give, from any kind of program, and no trace left behind."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.examples import ClassificationEval, ClassificationTrain
from swin_jax.data.pipeline import eval_batches, train_batches
from swin_jax.data.sources import open_source

REPOSITORY = Path(__file__).resolve().parents[2]
# Pictures of 64 x 64 and more than one chunk for each worker: some fields come through shared memory, some do not.
TRAIN = ClassificationTrain(size=(64, 64))
EVAL = ClassificationEval(size=(64, 64), resize=64)


def assert_equal(one: list[dict], other: list[dict]) -> None:
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
            assert type(left[name]) is np.ndarray


def test_workers_give_the_batches_that_threads_give(zipped):
    train, val = (open_source("folder", split, root=str(zipped)) for split in ("train", "val"))
    options = {"batch_size": 70, "seed": 5, "start_step": 3}
    batches = [train_batches(train, TRAIN, **options, workers=workers) for workers in (0, 2)]
    taken = [list(itertools.islice(one, 4)) for one in batches]
    for one in batches:
        one.close()
    assert_equal(*taken)
    # Batches of one chunk, fewer at the end than workers.
    evaluations = [list(eval_batches(val, EVAL, batch_size=2, workers=workers)) for workers in (0, 3)]
    assert_equal(*evaluations)
    assert sum(int(batch["valid"].sum()) for batch in evaluations[1]) == 9


def test_an_unreadable_picture_is_named_or_replaced_as_without_workers(pictures):
    (pictures / "train" / "bee" / "01.jpg").write_bytes(b"torn")
    source = open_source("folder", "train", root=str(pictures))
    with pytest.raises(
        UnreadablePicture, match=r"bee/01\.jpg cannot be read as a picture: it is not in a known"
    ):
        list(itertools.islice(train_batches(source, TRAIN, batch_size=21, seed=0, workers=1), 2))
    batches = [
        train_batches(source, TRAIN, batch_size=21, seed=0, workers=workers, max_unreadable=1)
        for workers in (0, 2)
    ]
    taken = [list(itertools.islice(one, 3)) for one in batches]
    for one in batches:
        one.close()
    assert_equal(*taken)
    assert [int(batch["replaced"].sum()) for batch in taken[1]] == [1, 1, 1]


# A program without flags and without a `__main__` guard, whose import would tell in the workers' output.
PROGRAM = """
import sys, time
print("program runs", flush=True)
from swin_jax.data.examples import ClassificationTrain
from swin_jax.data.pipeline import train_batches
from swin_jax.data.sources import open_source
source = open_source("folder", "train", root=sys.argv[1])
batches = train_batches(source, ClassificationTrain(size=(64, 64)), batch_size=64, seed=0, workers=2, threads=1)
for _ in range(3):
    next(batches)
print("three batches", flush=True)
if sys.argv[2] == "wait":
    time.sleep(60)
for _ in range(20):
    time.sleep(0.1)
    next(batches)
batches.close()
print("closed", flush=True)
"""


def start(tmp_path: Path, root: Path, mode: str, *, module: bool) -> subprocess.Popen:
    (tmp_path / "some_program.py").write_text(PROGRAM)
    how = ["-m", "some_program"] if module else [str(tmp_path / "some_program.py")]
    return subprocess.Popen(
        [sys.executable, "-W", "error", *how, str(root), mode],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until_three_batches(process: subprocess.Popen) -> None:
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["program runs\n", "three batches\n"]


def test_workers_survive_signals_to_the_group_and_do_not_run_the_program_again(tmp_path, shared_pictures):
    process = start(tmp_path, shared_pictures, "go on", module=True)
    until_three_batches(process)
    workers = [pid for pid in group(process) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "closed\n"), errors
    assert "leaked" not in errors
    assert_gone(process)


def test_workers_end_with_a_killed_program(tmp_path, shared_pictures):
    process = start(tmp_path, shared_pictures, "wait", module=False)
    until_three_batches(process)
    assert len(group(process)) >= 3
    process.kill()
    process.communicate()
    assert_gone(process)


def assert_gone(process: subprocess.Popen) -> None:
    """Nothing of its session lives on; what notices its end by a closed pipe has 20 s for that."""
    deadline = time.monotonic() + 20
    while group(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not group(process)


def group(process: subprocess.Popen) -> set[int]:
    """The living processes of its session."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == process.pid and fields[0] != "Z":
                found.add(int(entry.name))
    return found
