"""When a process joins others, what it says, and how it judges them. Two real hosts: tests/runs/test_hosts.py."""

import glob
import importlib.util
import json
import time
from typing import Any

import jax
import numpy as np
import pytest

from swin_jax.training import evaluator, hosts, watch
from swin_jax.training.hosts import Request
from swin_jax.training.sharding import make_mesh

TOLD = {"coordinator": "10.0.0.2:8476", "num_hosts": 4, "host_id": 3}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "4", "SLURM_PROCID": "2"}


@pytest.fixture
def joins(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What jax.distributed.initialize would have been called with; outside of any cluster."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    for name in (*SLURM, "JOB_COMPLETION_INDEX", "TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_alone_unless_told_or_in_a_cluster(
    joins: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not hosts.join(Request())
    # Inside an sbatch script, before srun, there are many tasks to come and one process.
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert not hosts.join(Request())
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert not hosts.join(Request(num_hosts=1))
    assert joins == []


def test_joins_where_it_is_told(joins: list[dict[str, Any]]) -> None:
    assert hosts.join(Request(**TOLD, join_timeout=5))
    assert joins[0]["coordinator_address"] == "10.0.0.2:8476"
    assert (joins[0]["num_processes"], joins[0]["process_id"]) == (4, 3)
    assert "coordinator_bind_address" not in joins[0]
    hosts.join(Request(coordinator="127.0.0.1:9", num_hosts=2, host_id=0))
    assert joins[1]["coordinator_bind_address"] == "127.0.0.1:9"


def test_joins_the_tasks_of_a_slurm_step(
    joins: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert hosts.join(Request())
    assert (joins[0]["num_processes"], joins[0]["process_id"]) == (4, 2)
    assert joins[0]["local_device_ids"] == []  # one task a node has all its devices
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "1")
    hosts.join(Request())
    assert "local_device_ids" not in joins[1]  # jax gives each task of a node one


def test_joins_the_workers_of_a_tpu_slice(
    joins: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b,c,d")
    assert not hosts.join(Request())  # there is no TPU
    monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
    monkeypatch.setattr(glob, "glob", lambda pattern: ["/dev/accel0"] if "accel" in pattern else [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert hosts.join(Request())
    assert "process_id" not in joins[0]  # jax knows it
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    assert not hosts.join(Request())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coordinator": ""}, "^--coordinator missing: .* --num_hosts and --host_id together"),
        ({"num_hosts": None, "host_id": None}, "^--num_hosts and --host_id missing"),
        ({"host_id": 4}, "--host_id is 4 and --num_hosts 4; host_id counts from 0"),
        ({"coordinator": "10.0.0.2"}, "--coordinator is '10.0.0.2'; write host:port"),
    ],
)
def test_flags_that_do_not_fit(joins: list[dict[str, Any]], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hosts.join(Request(**(TOLD | changes)))
    assert joins == []


def test_a_failed_join_says_where(joins: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("UNAVAILABLE: no\n route")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(
        hosts.HostsError, match=r"^host 3 of 4 .* could not join .* 10.0.0.2:8476: UNAVAILABLE: no route;"
    ):
        hosts.join(Request(**TOLD))


def test_a_difference_names_the_host_and_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"config": {"seed": 1, "sizes": (1, 2)}, "versions": {"jax": "0.10.2"}}
    hosts.check_same(mine)  # alone

    def answers(others: dict[str, Any]) -> None:
        monkeypatch.setattr(hosts, "exchange", lambda text: [text, text, json.dumps(["b", others])])

    answers(mine)
    hosts.check_same(mine)
    answers({"config": {"seed": 2, "sizes": [1, 2]}, "versions": {"jax": "0.10.1"}})
    message = (
        r'^host 2 \(b\) differs from host 0 \(.*\) in config.seed: 1 -> 2; versions.jax: "0.10.2" -> "0.10.1"'
    )
    with pytest.raises(ValueError, match=message):
        hosts.check_same(mine)


def test_an_error_of_the_writer_reaches_all(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    hosts.first(lambda: done.append(1))
    assert done == [1]
    monkeypatch.setattr(hosts, "writer", lambda: False)
    monkeypatch.setattr(hosts, "exchange", lambda text: ["the disk is full", text])
    with pytest.raises(ValueError, match="the disk is full"):
        hosts.first(lambda: done.append(2))
    assert done == [1]


def test_a_vote_is_answered_in_the_next_turn() -> None:
    vote = hosts.Vote(make_mesh(fsdp=2))
    assert [vote(asked) for asked in (False, False, True, False, False)] == [False, False, False, True, False]


def watching(monkeypatch: pytest.MonkeyPatch, **beats: tuple[float, str, float]) -> watch.Watch:
    """A watch of host 0 without its threads; of each host when it was heard, what it does, and for how long."""
    found = watch.Watch(Request(heartbeat_timeout=30, stall_timeout=300), joined=False)
    now = time.monotonic()
    for name, (heard, does, seconds) in beats.items():
        host = int(name.removeprefix("host_"))
        found._beats[host] = {"name": name, "does": does, "seconds": seconds}
        found._heard[host] = now - heard
    return found


def test_the_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    well = {"host_0": (0, "computes step 7", 1.0), "host_1": (2, "reads the batch of step 7", 0.0)}
    found = watching(monkeypatch, **well)
    assert found._found() is None
    found = watching(monkeypatch, **(well | {"host_1": (31, "computes step 7", 0.0)}))
    assert str(found._found()).startswith(
        "host 1 (host_1) has given no sign of life for 30 s; start all hosts again"
    )
    found = watching(monkeypatch, **well)
    found._answered -= 31
    assert str(found._found()).startswith("host 0 (host_0), the coordinator, has not answered for 30 s")
    found._answered = time.monotonic()
    found._ended = {1: "no space left"}
    assert found._found() == "host 1 (host_1) ended the run: no space left"


def test_a_stall_says_what_each_host_does(monkeypatch: pytest.MonkeyPatch) -> None:
    beats = {"host_0": (0, "computes step 7", 302.0), "host_1": (0, "reads the batch of step 7", 302.0)}
    found = watching(monkeypatch, **beats)
    found._since -= 301
    assert str(found._found()).startswith(
        "nothing has moved for 300 s: host 0 (host_0) computes step 7 since 302 s, "
        "host 1 (host_1) reads the batch of step 7 since 302 s; start all hosts again"
    )
    found.note("computes step 8")
    assert found._found() is None


def test_following_notes_each_batch() -> None:
    follower = watch.alone()
    seen = []
    for batch in follower.follow(iter([{"a": np.zeros(1)}] * 2), "step", 5):
        seen.append((list(batch), follower._does))
    assert seen == [(["a"], "computes step 5"), (["a"], "computes step 6")]
    assert follower._does == "reads the batch of step 7"


def test_bytes_of_any_length_are_gathered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts, in turn: what each would send is kept and handed to both."""
    monkeypatch.setattr(evaluator, "PIECE", 8)
    own = [bytes(range(21)), bytes(range(100, 116))]  # two pieces and a rest; exactly two pieces
    sent: list[list[np.ndarray]] = [[], []]

    def collect(host: int) -> None:
        def send(piece: np.ndarray) -> np.ndarray:
            sent[host].append(piece)
            # As if the other host said the longest there can be.
            return (
                np.stack([piece, np.asarray([3, 5], np.int32)])
                if len(sent[host]) == 1
                else np.stack([piece] * 2)
            )

        monkeypatch.setattr(evaluator.multihost_utils, "process_allgather", send)
        evaluator.gather(own[host])

    collect(0)
    collect(1)
    assert [len(pieces) for pieces in sent] == [4, 4]
    for host in (0, 1):
        answers = iter(zip(*sent, strict=True))
        monkeypatch.setattr(
            evaluator.multihost_utils, "process_allgather", lambda _, answers=answers: np.stack(next(answers))
        )
        assert evaluator.gather(own[host]) == own
