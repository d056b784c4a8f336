"""Two processes as two hosts over loopback: the same run as one process, and no end without a sentence."""

import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from swin_jax.restore import open_run
from swin_jax.training.checkpoint import Checkpoints
from swin_jax.training.run_directory import read_metrics
from tests.runs.conftest import flags, start

pytestmark = [
    pytest.mark.xdist_group("hosts"),
    pytest.mark.long,
]  # one worker, one run of two hosts to compare with
STEPS = 20
# Patient enough for a machine with other work, which may not let a thread run for seconds.
QUICK = ("--heartbeat_timeout=12", "--stall_timeout=120", "--join_timeout=120")
# A train command that also notes which rows of each global batch lie on its devices.
WATCHED = """
import json, sys, zlib
import numpy as np
from swin_jax import cli, train
from swin_jax.training import loop

put, noted = loop.put_batch, open(sys.argv.pop(), "w")

def put_and_note(batch, mesh):
    arrays = put(batch, mesh)
    found = {}
    for shard, index in zip(arrays["image"].addressable_shards, arrays["example_index"].addressable_shards):
        for row, image, example in zip(range(*shard.index[0].indices(1 << 30)), shard.data, index.data):
            found[row] = [int(example), zlib.crc32(np.asarray(image).tobytes())]
    print(json.dumps(found), file=noted, flush=True)
    return arrays

loop.put_batch = put_and_note
cli.run(train.main)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def two_hosts(
    *arguments: str, each: tuple[tuple[str, ...], ...] = ((), ()), **options: Any
) -> Iterator[list[Any]]:
    """The same command as two hosts of two devices; whatever happens, none of the processes stays."""
    told = (f"--coordinator=127.0.0.1:{free_port()}", "--num_hosts=2", *QUICK)
    hosts = [
        start("train", *arguments, *told, f"--host_id={host}", *own, devices=2, **options)
        for host, own in enumerate(each)
    ]
    try:
        yield hosts
    finally:
        for host in hosts:
            host.kill()
            host.communicate()


def finish(hosts: list[Any]) -> list[str]:
    """Waits for both; their stdout. Both have to succeed."""
    ends = [host.communicate(timeout=240) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], ends
    return [out for out, _ in ends]


def wait_for_steps(workdir: Path, steps: int, hosts: list[Any]) -> None:
    path = workdir / "metrics.jsonl"
    while not path.exists() or path.read_bytes().count(b'"loss"') < steps:
        assert all(host.poll() is None for host in hosts), hosts[0].communicate()
        time.sleep(0.01)


def losses(workdir: Path) -> list[float]:
    lines = [line for line in read_metrics(workdir) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line["loss"] for line in lines]


def evaluations(workdir: Path) -> list[dict[str, float]]:
    return [line for line in read_metrics(workdir) if "eval/top1" in line]


def final_params(workdir: Path) -> Any:
    opened = open_run(str(workdir), checkpoint="newest")
    assert opened.step == STEPS
    return jax.tree.map(np.asarray, opened.load()[0])


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    # A compile cache of their own: a kill would leave half an entry for all other tests to read.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield {
            "total": f"{STEPS} steps",
            "evaluate_every": f"{STEPS} steps",
            "checkpoint_every": "5 steps",
            "model.dtype": "float32",
            "model.depths": "(1,)",
        }


@pytest.fixture(scope="module")
def whole(folder: Path, fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two hosts that nothing interrupts; each left the rows it saw beside it."""
    workdir = tmp_path_factory.mktemp("whole")
    notes = tuple((f"{workdir}/rows_{host}.jsonl",) for host in (0, 1))
    with two_hosts(*flags(folder, **fields), f"--workdir={workdir}", code=WATCHED, each=notes) as hosts:
        out = finish(hosts)
    assert "finished: step 20" in out[0]
    assert "finished" not in out[1]  # one host speaks for all
    return workdir


def rows(*notes: Path) -> list[dict[str, list[int]]]:
    """For each step the rows of the global batch, from what each host noted."""
    steps = zip(*(map(json.loads, note.read_text().splitlines()) for note in notes), strict=True)
    return [{name: value for part in parts for name, value in part.items()} for parts in steps]


def test_two_hosts_equal_one(folder: Path, fields: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """The same pictures with the same draws in the same rows, the same losses, every example scored once."""
    arguments = (*flags(folder, **fields), f"--workdir={tmp_path}", f"{tmp_path}/rows.jsonl")
    one = start("train", *arguments, devices=4, code=WATCHED)
    _, err = one.communicate(timeout=240)
    assert one.returncode == 0, err

    seen = rows(tmp_path / "rows.jsonl")
    assert rows(whole / "rows_0.jsonl", whole / "rows_1.jsonl") == seen
    assert [sorted(map(int, step)) for step in seen] == [list(range(8))] * STEPS
    assert all(set(step) == set("0123") for step in rows(whole / "rows_0.jsonl"))  # each host its own half
    np.testing.assert_allclose(losses(whole), losses(tmp_path), rtol=1e-4)
    for two, single in zip(evaluations(whole), evaluations(tmp_path), strict=True):
        assert two["eval/examples"] == single["eval/examples"] == 21
        assert two["eval/top1"] == single["eval/top1"]
        assert two["eval/loss"] == pytest.approx(single["eval/loss"], rel=1e-4)


def test_stopped_killed_and_gone_on_with(
    folder: Path, fields: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    """One host asked to stop stops both at one step; one killed ends the other; in the end nothing is lost."""
    arguments = (*flags(folder, **fields), f"--workdir={tmp_path}")
    with two_hosts(*arguments) as hosts:
        wait_for_steps(tmp_path, 3, hosts)
        hosts[1].send_signal(signal.SIGTERM)
        out = finish(hosts)[0]
    assert "stopped by another host at step " in out
    step = int(out.split("at step ")[1].split()[0])
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps()[-1] == step

    with two_hosts(*arguments) as hosts:
        wait_for_steps(tmp_path, 11, hosts)
        hosts[1].kill()
        assert "host 1 (" in last_words(hosts[0])

    with two_hosts(*arguments) as hosts:
        finish(hosts)
    assert losses(tmp_path) == losses(whole)
    jax.tree.map(np.testing.assert_array_equal, final_params(tmp_path), final_params(whole))


def last_words(host: Any) -> str:
    """The sentence with which a host ends within a minute of another one's death."""
    _, err = host.communicate(timeout=60)
    assert host.returncode not in (0, None)
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: host ")
    assert "start all hosts again with the same command" in last
    return last


def test_a_coordinator_that_dies_is_missed(folder: Path, fields: dict[str, Any], tmp_path: Path) -> None:
    with two_hosts(*flags(folder, **fields), f"--workdir={tmp_path}") as hosts:
        while "has joined" not in hosts[1].stderr.readline():
            assert hosts[1].poll() is None
        time.sleep(1)
        hosts[0].kill()
        assert "host 0, the coordinator, broke" in last_words(hosts[1])
