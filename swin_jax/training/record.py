"""What a run leaves behind while it trains: metrics.jsonl, TensorBoard events, curves.png, lines of progress.

A training line holds the values of its own step, not averages since the line before: after a kill and a
resume the curve is the one of a run that was never stopped.
"""

import os
import resource
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from struct import pack
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import jax
from etils import epath
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import masked_crc32c
from tqdm import tqdm

from swin_jax.tasks import pictures
from swin_jax.training.run_directory import (
    METRICS,
    GrowingFile,
    metrics_line,
    read_metrics,
    rewind_metrics,
    write_atomically,
)

CURVES = "curves.png"
# What a progress line shows of a step's values, in this order and short.
SHOWN = {"loss": ("loss", ".4g"), "learning_rate": ("lr", ".3g")}
GIB = 2**30


@runtime_checkable
class Stream(Protocol):
    """Where progress is shown: a terminal, a file, or what stands for one."""

    def write(self, text: str, /) -> Any: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...
    def fileno(self) -> int: ...


class Record:
    """The record of a run. All values it is handed are host floats; it never waits for a device.

    Args:
        workdir: the run directory, a local path or a URL.
        start_step: how many steps the run has taken already; what a former life recorded after it is dropped.
        total_steps: how many it will have taken in the end.
        batch_size: examples of one step, over all hosts.
        log_every: a line for each so many steps, and for the last one.
        writer: whether this process writes; False makes everything a no-op (all processes but the first).
        title: over the curves.
        panels: what the curves show.
        terminal: a progress bar rather than lines; None asks `stream`.
        stream: where progress goes.

    Raises:
        ValueError: `metrics.jsonl` is damaged.
        RunDirectoryError: the run directory cannot be written; so do all methods that write.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        start_step: int,
        total_steps: int,
        batch_size: int,
        log_every: int = 50,
        writer: bool = True,
        title: str = "",
        panels: Sequence[pictures.Panel] = pictures.CLASSIFICATION_PANELS,
        terminal: bool | None = None,
        stream: Stream | None = None,
    ) -> None:
        self._workdir = epath.Path(workdir)
        self._total = total_steps
        self._log_every = log_every
        self._writer = writer
        self._title = title
        self._panels = panels
        self._clock = Clock(start_step, batch_size)
        if not writer:
            return
        rewind_metrics(workdir, start_step)
        self._metrics = GrowingFile(self._workdir / METRICS, keep=True)
        self._events = EventFile(self._workdir, start_step)
        self._stream: Stream = sys.stderr if stream is None else stream
        terminal = self._stream.isatty() if terminal is None else terminal
        self._bar = _bar(start_step, total_steps, self._stream) if terminal else None

    def train(self, step: int, scalars: Mapping[str, float], *, data_wait: float) -> None:
        """Reports a finished training step; to be called for every one, in order.

        Args:
            step: how many steps the run has taken with this one.
            scalars: the step's values.
            data_wait: seconds it waited for its batch.
        """
        if not self._writer:
            return
        self._clock.tick(step, data_wait)
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if step % self._log_every and step != self._total:
            return
        values = {**scalars, **self._clock.speed(), **memory()}
        self._write(step, values)
        line = progress_line(step, self._total, values, self._clock.eta(self._total))
        if self._bar is not None:
            self._bar.set_postfix_str(line.split("  ", 1)[1])
        else:
            self._say(line)

    def evaluation(self, step: int, scalars: Mapping[str, float]) -> None:
        """Reports an evaluation after `step` as "eval/<name>", and draws the curves anew.

        The time since the last call of `train` was the evaluation's: it does not count as training.
        """
        if not self._writer:
            return
        self._write(step, {f"eval/{name}": value for name, value in scalars.items()})
        self.note(
            f"evaluation after step {step}: "
            + ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        )
        self.draw()
        self._clock.pause()

    def note(self, text: str) -> None:
        """Shows a line to whoever watches."""
        if self._writer:
            self._say(text)

    def draw(self) -> None:
        """Writes curves.png from all lines so far."""
        if self._writer:
            self._metrics.flush()
            picture = pictures.curves(read_metrics(self._workdir), title=self._title, panels=self._panels)
            write_atomically(self._workdir / CURVES, pictures.png(picture))

    def close(self) -> None:
        if self._writer:
            if self._bar is not None:
                self._bar.close()
            self._metrics.close()
            self._events.close()

    def __enter__(self) -> "Record":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._metrics.append(metrics_line({"step": step, **scalars}))
        self._events.scalars(step, scalars)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            tqdm.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)


class Clock:
    """Where the time of a run goes. Compilation (the first step) and evaluations do not count as training."""

    def __init__(self, start_step: int, batch_size: int) -> None:
        self._batch_size = batch_size
        self._step = start_step
        self._start: tuple[int, float] | None = None  # the first step's number and end
        self._last = time.perf_counter()
        self._seconds = self._waited = 0.0  # of the steps since the last line
        self._steps = 0

    def tick(self, step: int, data_wait: float) -> None:
        now = time.perf_counter()
        if self._start is None:
            self._start = (step, now)
        else:
            self._steps += step - self._step
            self._seconds += now - self._last
            self._waited += data_wait
        self._step, self._last = step, now

    def pause(self) -> None:
        self._last = time.perf_counter()

    def speed(self) -> dict[str, float]:
        """Over the steps since it was last asked; nothing if there were none."""
        steps, seconds, waited = self._steps, self._seconds, self._waited
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        if not steps or seconds <= 0:
            return {}
        return {
            "images_per_second": steps * self._batch_size / seconds,
            "step_seconds": seconds / steps,
            "data_wait": min(waited / seconds, 1.0),
        }

    def eta(self, total_steps: int) -> float | None:
        """Seconds to the end at the pace so far, evaluations included; None while there is no pace."""
        if self._start is None or self._step == self._start[0]:
            return None
        first, began = self._start
        return (self._last - began) / (self._step - first) * (total_steps - self._step)


class EventFile:
    """TensorBoard's scalars, written here and now: tensorboardX's own writer hands events to a thread, and
    when the disk is full the thread dies and training waits for it forever."""

    def __init__(self, workdir: epath.Path, start_step: int) -> None:
        # A name of its own for each life of the run, in the order in which TensorBoard reads them.
        name = f"events.out.tfevents.{time.time_ns() // 1000:017d}.{socket.gethostname()}.{os.getpid()}"
        self._file = GrowingFile(workdir / name, keep=False)
        self._append(Event(file_version="brain.Event:2"))
        # Tells TensorBoard to forget what former lives recorded from this step on.
        self._append(Event(step=start_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        tagged = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._append(Event(step=step, summary=Summary(value=tagged)))

    def close(self) -> None:
        self._file.close()

    def _append(self, event: Any) -> None:
        event.wall_time = time.time()
        data = event.SerializeToString()
        length = pack("<Q", len(data))
        self._file.append(length + pack("<I", masked_crc32c(length)) + data + pack("<I", masked_crc32c(data)))


def progress_line(step: int, total: int, values: Mapping[str, float], eta: float | None) -> str:
    """One line for a person: "step 1200/3000 (40%)  loss 0.61  lr 0.0008  530 images/s ..."."""
    parts = [f"step {step}/{total} ({step / max(total, 1):.0%})"]
    parts += [f"{short} {values[name]:{form}}" for name, (short, form) in SHOWN.items() if name in values]
    # The most wanted first: a narrow terminal cuts the rest.
    if "images_per_second" in values:
        speed = values["images_per_second"]
        parts.append(f"{speed:,.0f} images/s" if speed >= 100 else f"{speed:.3g} images/s")
    if eta is not None:
        parts.append(f"ETA {duration(eta)}")
    if "images_per_second" in values:
        parts.append(f"data wait {values['data_wait']:.0%}")
        parts.append(f"{values['step_seconds']:.3g} s/step")
    parts += [
        f"{name.split('_')[0]} memory {values[name]:.1f} GiB" for name in values if name.endswith("_gib")
    ]
    return "  ".join(parts)


def duration(seconds: float | int) -> str:
    """ "42 s", "3 min 05 s", "2 h 07 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory() -> dict[str, float]:
    """The most memory used so far, in GiB: of this host's fullest device or, where devices do not tell, of
    this process."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [stat["peak_bytes_in_use"] for stat in stats if stat and "peak_bytes_in_use" in stat]
    if peaks:
        return {"device_memory_gib": max(peaks) / GIB}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"host_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}


def _bar(start: int, total: int, stream: Stream) -> tqdm:
    try:
        known = all(os.get_terminal_size(stream.fileno()))
    except OSError:
        known = False
    # Some terminals do not know their size; without one, tqdm would show nothing there.
    size = None if known else 120
    return tqdm(
        total=total,
        initial=start,
        file=stream,
        bar_format="{percentage:3.0f}% |{bar:10}| {n_fmt}/{total_fmt}{postfix}",
        dynamic_ncols=known,
        ncols=size,
        nrows=size,
    )
