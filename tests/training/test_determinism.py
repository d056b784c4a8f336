"""The switch for deterministic GPU programs reaches XLA, or says why it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from swin_jax.training.determinism import FLAG, make_deterministic

ROOT = Path(__file__).resolve().parents[2]


def test_xla_reads_it_after_all_our_imports() -> None:
    """In a fresh interpreter: neither jax nor a module of ours has woken a device, or had the flags read, by then.

    XLA ends a process at a flag it does not know.
    """
    code = """
import os
from swin_jax import evaluate, predict, train
from swin_jax.training.determinism import FLAG, make_deterministic
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=3"
make_deterministic()
import jax
print(jax.device_count(), os.environ["XLA_FLAGS"] == "--xla_force_host_platform_device_count=3 " + FLAG)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "True"]


def test_a_gpu_in_use_is_an_error_and_a_cpu_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jax.devices()
    monkeypatch.setenv("XLA_FLAGS", "")
    make_deterministic()
    assert os.environ["XLA_FLAGS"] == ""  # too late, and not needed
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(
        ValueError, match=f"the GPU is in use already; set XLA_FLAGS={FLAG} in the environment"
    ):
        make_deterministic()
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=x {FLAG}")
    make_deterministic()
