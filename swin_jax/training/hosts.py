"""Several hosts as one run: how they join, agree on something, and let one of them write.

A *host* is one process of the run: a TPU VM, a server, or one task of a launcher. What is exchanged here are short
texts, over the coordinator that jax.distributed has on host 0, so that it works before a device does anything.

A process joins others only when told (`--coordinator`, `--num_hosts`, `--host_id`) or when its environment leaves no
doubt: a SLURM step of several tasks (`srun`), a TPU slice of several workers, several TPU slices. `--num_hosts=1`
keeps it alone wherever it is.
"""

import glob
import importlib.util
import itertools
import json
import logging
import os
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh

from swin_jax.training.run_directory import differences
from swin_jax.training.sharding import batch_sharding, replicated

log = logging.getLogger(__name__)

EXCHANGES = itertools.count()  # all hosts exchange in the same order, as they run the same program
WORKERS_URL = (
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/worker-network-endpoints"
)


class HostsError(RuntimeError):
    """The hosts of a run could not come together, or one of them did not answer."""


class Request(NamedTuple):
    """How to join. Times in seconds.

    `coordinator` ("name:port"), `num_hosts` and `host_id` are given together, or left empty (None) for what the
    environment says. `num_hosts` 1 alone keeps the process alone.
    """

    coordinator: str = ""
    num_hosts: int | None = None
    host_id: int | None = None
    join_timeout: int = 300
    heartbeat_timeout: int = 30
    stall_timeout: int = 300


def join(request: Request) -> bool:
    """Makes this process one of the hosts of a run, if `request` or the environment asks for it; says so.

    To be called before jax is asked for a device. Returns whether there are other hosts.

    Raises:
        ValueError: the flags do not fit together.
        HostsError: the hosts did not come together within `join_timeout`.
    """
    arguments = None if request.num_hosts == 1 else _told(request) or _found()
    if arguments is None:
        return False
    where = arguments.pop("where")
    who = f"host {arguments.get('process_id', '?')} of {arguments.get('num_processes', '?')} ({socket.gethostname()})"
    log.info("%s: joining the others, %s, for at most %d s", who, where, request.join_timeout)
    advice = "start the same command on every host, and see that each can reach that address"
    failed = f"{who} could not join the others, {where}"
    # jax would keep SIGTERM for itself; the loop stops all hosts at one step by its own vote.
    jax.config.update("jax_enable_preemption_service", False)
    # jax aborts the process where a time is up: ours are shorter, and end it with a sentence.
    alarm = threading.Timer(
        request.join_timeout, leave, [f"{failed}: not all had come after {request.join_timeout} s; {advice}"]
    )
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=request.join_timeout + 60,
            heartbeat_timeout_seconds=2 * request.heartbeat_timeout + 10,
            shutdown_timeout_seconds=request.heartbeat_timeout,
        )
        count, index = jax.process_count(), jax.process_index()
    except (RuntimeError, ValueError, OSError) as error:
        raise HostsError(f"{failed}: {' '.join(str(error).split())[:300]}; {advice}") from error
    finally:
        alarm.cancel()
    if count == 1:
        raise HostsError(
            f"{who} joined the others, {where}, but jax sees one process only; give every host --coordinator, "
            "--num_hosts and --host_id, or --num_hosts=1 to run alone"
        )
    log.info("host %d of %d (%s) has joined", index, count, socket.gethostname())
    return True


def leave(sentence: str = "") -> NoReturn:
    """Ends the process at once and with a failure, whatever its other threads wait for."""
    if sentence:
        print(f"error: {sentence}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _told(request: Request) -> dict[str, Any] | None:
    """The arguments of `jax.distributed.initialize` that the flags spell out; None where they leave it open."""
    count, index, address = request.num_hosts, request.host_id, request.coordinator
    if not address and count is None and index is None:
        return None
    given = {"coordinator": address or None, "num_hosts": count, "host_id": index}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} missing: a run of several hosts is told --coordinator=host:port, --num_hosts "
            "and --host_id together"
        )
    assert count is not None
    assert index is not None
    if count < 1 or not 0 <= index < count:
        raise ValueError(
            f"--host_id is {index} and --num_hosts {count}; host_id counts from 0 to num_hosts - 1"
        )
    name, colon, port = address.rpartition(":")
    if not (colon and name and port.isdigit()):
        raise ValueError(f"--coordinator is {address!r}; write host:port of host 0, such as 10.0.0.2:8476")
    arguments = {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
        "cluster_detection_method": "deactivate",
        "where": f"host 0 at {address}",
    }
    if name in ("127.0.0.1", "localhost"):
        arguments["coordinator_bind_address"] = f"127.0.0.1:{port}"  # jax would listen to the whole world
    return arguments


def _found() -> dict[str, Any] | None:
    """The same as the environment says it, None where it does not clearly speak of several hosts."""
    environment = os.environ
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and "SLURM_PROCID" in environment:
        arguments: dict[str, Any] = {"num_processes": tasks, "process_id": int(environment["SLURM_PROCID"])}
        if tasks == int(environment.get("SLURM_STEP_NUM_NODES", "0")):
            arguments[
                "local_device_ids"
            ] = []  # one task a node: all its devices, where jax would take the first
        return arguments | {"where": f"SLURM job {environment.get('SLURM_JOB_ID')}"}
    workers = _tpu_workers()
    if workers > 1:
        return {"where": f"a TPU slice of {workers} workers"}
    if "JOB_COMPLETION_INDEX" in environment:
        log.warning(
            "this pod belongs to an indexed Kubernetes job but runs alone: --coordinator, --num_hosts and --host_id "
            "are not given"
        )
    return None


def _tpu_workers() -> int:
    """How many workers the TPU slices of this machine have; 1 where there is no TPU."""
    platforms = os.environ.get("JAX_PLATFORMS", "tpu")
    devices = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    if "tpu" not in platforms or not devices or importlib.util.find_spec("libtpu") is None:
        return 1
    names = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    if names is None and "TPU_SKIP_MDS_QUERY" not in os.environ:
        asked = urllib.request.Request(WORKERS_URL, headers={"Metadata-Flavor": "Google"})
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                names = answer.read().decode()
        except OSError:
            names = None
    return len((names or "").split(",")) * int(os.environ.get("MEGASCALE_NUM_SLICES") or 1)


def client() -> Any:
    """The process's line to the coordinator. jax has no public name for it."""
    from jax._src import distributed

    return distributed.global_state.client


def exchange(text: str, *, timeout: float = 300.0) -> list[str]:
    """The texts of all hosts, by host. Every host calls it; alone, it returns its own.

    Raises:
        HostsError: a host did not call it within `timeout` seconds.
    """
    if jax.process_count() == 1:
        return [text]
    place = f"swin_jax/exchange/{next(EXCHANGES)}"
    deadline = int(timeout * 1000)
    line, count = client(), jax.process_count()
    line.key_value_set(f"{place}/{jax.process_index()}", text)
    try:
        if jax.process_index() == 0:
            texts = [line.blocking_key_value_get(f"{place}/{host}", deadline) for host in range(count)]
            line.key_value_set(f"{place}/all", json.dumps(texts))
        return json.loads(line.blocking_key_value_get(f"{place}/all", deadline))
    except RuntimeError as error:
        raise HostsError(f"not all hosts came to the same point within {timeout:.0f} s") from error


def check_same(facts: Mapping[str, Any]) -> None:
    """Compares `facts` (nested, plain values) over all hosts.

    Raises:
        ValueError: they differ; the same sentence everywhere names the host and its fields.
    """
    name = socket.gethostname()
    answers = [json.loads(text) for text in exchange(json.dumps([name, facts], default=str))]
    (first_name, expected), *others = answers
    problems = [
        f"host {host} ({other}) differs from host 0 ({first_name}) in {'; '.join(found)}"
        for host, (other, theirs) in enumerate(others, start=1)
        if (found := differences(expected, theirs))
    ]
    if problems:
        shown = " and ".join(problems[:3]) + (
            f" and {len(problems) - 3} hosts more" if len(problems) > 3 else ""
        )
        raise ValueError(
            f"{shown} (host 0 -> that host); start the same command with the same code everywhere"
        )


def writer() -> bool:
    """Whether this is the host that writes what there is one of: config, records, pictures."""
    return jax.process_index() == 0


def first(work: Callable[[], Any]) -> None:
    """Does `work` on the writing host while the others wait until it is done. Its error is raised everywhere."""
    error: Exception | None = None
    if writer():
        try:
            work()
        except Exception as raised:  # raised again below, when the others know
            error = raised
    said = exchange("" if error is None else str(error) or type(error).__name__)[0]
    if error is not None:
        raise error
    if said:
        raise ValueError(said)


class Vote:
    """Whether any host asks for something, known to all of them in the same turn of the loop.

    A sum of one number a device, started in one turn and read in the next, when the step before it is done anyway:
    the loop waits for nothing it would not wait for without it.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._sharding = batch_sharding(mesh)
        self._shape = (mesh.size,)
        self._sum = jax.jit(lambda asked: asked.sum(), out_shardings=replicated(mesh))
        self._waiting: jax.Array | None = None

    def __call__(self, asked: bool) -> bool:
        """Hands in this host's wish; answers what the turn before has come to."""
        answer = self._waiting is not None and int(self._waiting) > 0
        wish = np.full(self._shape, asked, np.int32)
        flags = jax.make_array_from_callback(self._shape, self._sharding, lambda place: wish[place])
        self._waiting = self._sum(flags)
        return answer
