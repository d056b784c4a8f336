"""What can be known to be wrong before a device works: names, divisibility, sizes, durations.

Each check raises ValueError with the field, the value and what would be right.
"""

import difflib
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from etils import epath

from swin_jax.training.run_directory import read_config

NETWORK_DELAY = 60.0  # seconds after which every host sees a file that one has written, NFS caches included
UNITS = ("steps", "epochs", "examples")
REQUIRED, NOTHING = "required", "none"  # as `init_from`


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for a close known name, else the list of what is known."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def duration(field: str, text: str, *, batch_size: int, num_examples: int) -> int:
    """Steps in "300 epochs", "5000 steps", "1.5e6 examples" (singular accepted; rounded, at least 1 unless zero).

    Epochs follow one another without dropping rows, so an epoch need not be a whole number of steps.
    """
    words = str(text).split()
    unit = words[1] if len(words) == 2 else ""
    unit = unit if unit.endswith("s") else unit + "s"
    try:
        amount = float(words[0].replace("_", ""))
    except (ValueError, IndexError):
        amount = -1.0
    if unit not in UNITS or not 0 <= amount < float("inf"):
        raise ValueError(
            f'{field} is {text!r}; write an amount and a unit, such as "300 epochs" or "5000 steps"'
        )
    examples_each = {"steps": batch_size, "epochs": num_examples, "examples": 1}[unit]
    return max(round(amount * examples_each / batch_size), 1 if amount else 0)


def step_range(field: str, text: str) -> range:
    """Steps in "100:105": those numbered 100 to 104; an empty text means none."""
    if not text:
        return range(0)
    first, _, stop = text.partition(":")
    if not (first.strip().isdigit() and stop.strip().isdigit() and 0 < int(first) < int(stop)):
        raise ValueError(
            f'{field} is {text!r}; write first:stop, such as "100:105" for the steps 100 to 104 (the first step is 1)'
        )
    return range(int(first), int(stop))


def init_source(init_from: str, init_head: str) -> str:
    """The file or run directory that a run begins with; "" when it begins with nothing."""
    if init_from == REQUIRED:
        raise ValueError(
            "init_from is missing: this recipe fine-tunes; name a weight file or run directory, "
            f"or {NOTHING!r} to train from nothing"
        )
    source = "" if init_from == NOTHING else init_from
    if init_head and not source:
        raise ValueError(f"init_head is {init_head!r}, but there is no init_from whose head it could pick")
    return source


def check_batch_size(batch_size: int, *, devices: int, hosts: int, accumulation: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    if accumulation < 1:
        raise ValueError(f"accumulation is {accumulation}; it must be at least 1")
    if batch_size % accumulation:
        raise ValueError(f"batch_size {batch_size} is not divisible by accumulation {accumulation}")
    if batch_size % (devices * accumulation):
        share = f"{devices} devices" + (f" x accumulation {accumulation}" if accumulation > 1 else "")
        unit = devices * accumulation
        lower = batch_size // unit * unit
        choices = f"{lower} or {lower + unit}" if lower else f"{unit}"
        raise ValueError(f"batch_size {batch_size} is not divisible by {share}; use {choices}")
    if batch_size % hosts:
        raise ValueError(f"batch_size {batch_size} is not divisible by the {hosts} hosts")


def check_workdir(workdir: str) -> epath.Path:
    """The run directory, made if missing and proven writable."""
    if not workdir:
        raise ValueError("--workdir is missing: name the directory in which the run keeps all it writes")
    path = epath.Path(workdir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable_{os.getpid()}"
        probe.write_text("x" * 4096)
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"--workdir={workdir} cannot be written ({reason}); name a writable directory"
        ) from error
    return path


def check_shared(directory: epath.Path, resolved: Mapping[str, Any]) -> None:
    """Whether this host finds in `directory` the run that the writing host has begun there."""
    deadline = time.monotonic() + (NETWORK_DELAY if jax.process_count() > 1 else 0)
    while (found := read_config(directory)) != resolved and time.monotonic() < deadline:
        time.sleep(0.5)
    if found != resolved:
        raise ValueError(
            f"--workdir={directory} on host {jax.process_index()} ({socket.gethostname()}) is not the directory that "
            "host 0 writes; name one on storage that all hosts share"
        )


def check_batch_fields(
    shapes: Sequence[Mapping[str, tuple[tuple[int, ...], str]]],
    produced: Mapping[str, tuple[tuple[int, ...], str]],
) -> None:
    """The contract between data and task: every field the task reads, in shape (of one row) and dtype, of those that it
    knows (`Task.batch_shapes`)."""
    fields = next((one for one in shapes if one.get("image") == produced.get("image")), shapes[0])
    for name, (shape, dtype) in fields.items():
        if name not in produced:
            raise ValueError(f"the task reads the batch field {name!r}, the data produce {sorted(produced)}")
        if produced[name] != (shape, dtype):
            got_shape, got_dtype = produced[name]
            raise ValueError(
                f"batch field {name!r}: the task reads {dtype} {shape} a row, the data produce {got_dtype} {got_shape}"
            )
