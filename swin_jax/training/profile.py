"""A trace of a few training steps, for xprof, TensorBoard's profile plugin or Perfetto."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from etils import epath

from swin_jax.training.run_directory import explaining
from swin_jax.training.state import Batch, TrainState, TrainStep

log = logging.getLogger(__name__)


@contextlib.contextmanager
def profiled(
    train_step: TrainStep, directory: epath.Path, steps: range, *, start_step: int
) -> Iterator[TrainStep]:
    """The same step, which traces `steps` (numbered from 1, as in the record) into `directory` as it comes by.

    The device is idle when the trace begins and when it ends, so the trace holds these steps alone and whole. A
    run that ends or resumes among them traces those it takes. All hosts may trace; one is usually enough.

    Args:
        train_step: to be traced.
        directory: for the trace; a local path or URL.
        steps: which ones.
        start_step: how many steps the run has taken already.
    """
    step = start_step
    tracing: tempfile.TemporaryDirectory[str] | None = None

    def end() -> None:
        nonlocal tracing
        if tracing is None:
            return
        jax.profiler.stop_trace()
        with tracing as local:
            tracing = None
            copy_files(Path(local), directory)
        log.info("a profiler trace is in %s: open it with xprof, or TensorBoard's profile plugin", directory)

    def traced(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        nonlocal step, tracing
        step += 1
        if step not in steps:
            return train_step(state, batch)
        if tracing is None:
            jax.block_until_ready(state)
            tracing = tempfile.TemporaryDirectory(prefix="swin_jax_profile_")
            jax.profiler.start_trace(tracing.name)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            result = train_step(state, batch)
        if step + 1 not in steps:
            jax.block_until_ready(result)
            end()
        return result

    try:
        yield traced
    finally:
        end()


def copy_files(source: Path, target: epath.Path) -> None:
    """All files below `source` into `target`. The profiler itself writes to local paths only."""
    with explaining("write", target):
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
