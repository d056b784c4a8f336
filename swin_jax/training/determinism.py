"""The same bits in every run, where that has to be asked for.

XLA's programs for CPU and TPU are deterministic. On a GPU the fastest form of some operations adds in an order
of chance, and which kernel is the fastest is measured anew in each process.
"""

import os

import jax
from jax._src import xla_bridge  # the only place that tells whether a backend is up without waking one

FLAG = "--xla_gpu_deterministic_ops=true"


def make_deterministic() -> None:
    """Asks XLA for deterministic programs on GPUs; to be called before anything touches a device.

    Raises:
        ValueError: a GPU is in use already, without the flag: XLA reads it once.
    """
    if FLAG in os.environ.get("XLA_FLAGS", "").split():
        return
    if not xla_bridge.backends_are_initialized():
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAG}".strip()
    elif jax.default_backend() == "gpu":
        raise ValueError(
            f"deterministic is True, but the GPU is in use already; set XLA_FLAGS={FLAG} in the environment"
        )
