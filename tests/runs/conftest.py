"""A micro experiment on a handful of pictures, and the commands run as a user runs them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import own_images
from swin_jax.config import Config

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("blue", "green", "red")
STEPS = 12
OVERRIDES = {
    "batch_size": 8,
    "total": f"{STEPS} steps",
    "evaluate_every": "5 steps",
    "evaluate_batch_size": 16,
    "checkpoint_every": "3 steps",
    "log_every": 1,
    "model.embed_dim": 16,
    "model.depths": (2,),
    "model.num_heads": (2,),
    "model.window_size": 2,
    "model.patch_size": 4,
    "data.size": (16, 16),
    "data.resize": (16, 16),
    "data.pad_crop": 2,
    "schedule.warmup": "2 steps",
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with 3 x 9 pictures, val/ with 3 x 7; the class is the strongest channel. 27 rows are no whole batches."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 7)):
        for channel, name in enumerate(reversed(CLASSES)):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 120, (20, 18, 3))
                pixels[..., channel] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture
def micro(folder: Path) -> Callable[..., Config]:
    """`micro(field=value, ...)`: the micro config, dots in field names written as two underscores."""

    def make(**fields: Any) -> Config:
        config = own_images.get_config("micro_32")
        config.update_from_flattened_dict(OVERRIDES | {"data.root": str(folder)})
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
        return config.lock()

    return make


def flags(folder: Path, **fields: Any) -> list[str]:
    """The same config as command-line flags."""
    values = (
        OVERRIDES | {"data.root": folder} | {name.replace("__", "."): value for name, value in fields.items()}
    )
    return ["--config=experiments/own_images.py:micro_32", *(f"--config.{k}={v}" for k, v in values.items())]


def start(
    verb: str, *arguments: str, devices: int = 1, code: str = "", **options: Any
) -> "subprocess.Popen[str]":
    """A verb in a process of its own, as a user starts it; or `code` in its place."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0",
        "PYTHONWARNINGS": "default",
    }
    return subprocess.Popen(
        [sys.executable, *(("-c", code) if code else ("-m", f"swin_jax.{verb}")), *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def run(verb: str, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    process = start(verb, *arguments, **options)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
