"""TPUs that are not here: a slice described by its topology, for which XLA compiles all the same.

Needs libtpu, which holds the compiler (`pip install "jax[tpu]"`), and no TPU.
"""

import importlib.util
import logging
import os
import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

from swin_jax.training.sharding import Device


class Generation(NamedTuple):
    """HBM in bytes and the number of jax devices of one chip, from the public TPU system documentation."""

    hbm: int
    devices: int = 1


GIB = 2**30
GENERATIONS = {
    "v3": Generation(32 * GIB, devices=2),
    "v4": Generation(32 * GIB),
    "v5e": Generation(16 * GIB),
    "v5p": Generation(95 * GIB),
    "v6e": Generation(32 * GIB),
    "tpu7x": Generation(192 * GIB, devices=2),
}
EXAMPLES = "v5e:4x4, v6e:4x4, v5p:2x2x4 or v4:2x2x1"


def describe(topology: str) -> tuple[list[Device], int]:
    """The devices of a slice such as "v5e:4x4", and the HBM of each in bytes.

    Call it before jax has started: the rest of the process then runs on the CPU.

    Raises:
        ValueError: libtpu is missing, or knows no such topology.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", topology)
    if found is None or found[1] not in GENERATIONS:
        raise ValueError(
            f"--compile-for is {topology!r}; write a generation ({', '.join(GENERATIONS)}) and its shape in chips, "
            f"such as {EXAMPLES}"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError('--compile-for needs the TPU compiler: pip install "jax[tpu]" (no TPU is needed)')
    _compiler_alone()
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:  # of several kinds, all with the compiler's own words
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"--compile-for is {topology!r}, which the TPU compiler does not accept ({reason}); for example {EXAMPLES}"
        ) from error
    generation = GENERATIONS[found[1]]
    return list(description.devices), generation.hbm // generation.devices


def _compiler_alone() -> None:
    """Keeps libtpu from looking for chips, asking a metadata server or holding the lock of this host's TPU."""
    jax.config.update("jax_platforms", "cpu")
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
    logging.getLogger("jax").setLevel(logging.ERROR)
