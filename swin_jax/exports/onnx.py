"""Programs as ONNX, through jax2onnx. Optional: it and onnxruntime are asked for by name when they are needed.

jax2onnx pins an older Orbax for parts that are not used here, hence the two commands of `INSTALL`.
"""

import contextlib
import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from swin_jax.exports.frozen import BATCH, Frozen

FILE = "model.onnx"
INPUT = "images"
INSTALL = (
    "`pip install onnx onnx-ir onnxruntime equinox dm-pix einops`, then `pip install --no-deps jax2onnx`"
)


def converter() -> Any:
    """jax2onnx. Raises ValueError with what to install where it cannot be imported."""
    try:
        with _quiet():
            return importlib.import_module("jax2onnx")
    except ImportError as error:
        raise ValueError(
            f"ONNX is written by jax2onnx, which cannot be imported ({error}): {INSTALL}; or leave onnx out of "
            "--formats"
        ) from error


def write(path: Path, frozen: Frozen) -> list[Path]:
    """Writes the program, with a symbolic batch; returns its files: large tensors have one of their own.

    Raises:
      ValueError: jax2onnx is absent.
    """
    shape: Any = (BATCH, *frozen.size, 3)
    with _quiet():
        converter().to_onnx(
            frozen.call,
            [jax.ShapeDtypeStruct(shape, np.dtype(frozen.dtype))],
            return_mode="file",
            output_path=str(path),
            input_names=[INPUT],
            output_names=list(frozen.outputs),
        )
    return sorted(path.parent.glob(f"{path.name}*"))


def run(path: Path, images: np.ndarray) -> list[np.ndarray] | None:
    """What onnxruntime computes on the CPU; None where it is not installed."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {INPUT: images})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within it, what the libraries say of their own progress is not logged."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
