"""Chunks of rows, read ahead by Grain's threads or processes and joined into batches."""

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from typing import SupportsIndex

import cv2
import numpy as np
from absl import flags

from swin_jax.data.rows import Chunk, Rows, Unreadable

CHUNK_ROWS = 32  # enough that handing over costs little, few enough that the first batch comes soon
AHEAD = 3  # chunks read ahead for every thread
SHARED_BYTES = (
    1 << 16
)  # arrays from this size on come from workers in shared memory, smaller ones through a pipe


def batches(
    rows: Rows, *, workers: int, threads: int
) -> Iterator[tuple[dict[str, np.ndarray], list[Unreadable]]]:
    """The batches of `rows` in order, each with what proved unreadable on the way to it.

    A batch is {} where a row could not be made. Chunks, not batches, are the unit of work. Their order does not
    depend on who reads them, because Grain takes them from its threads and processes in turn.
    """
    import grain  # not above: what only looks at an experiment, such as `summary`, runs without it

    chunks = Chunks(rows)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=AHEAD * threads)
    dataset = grain.MapDataset.source(chunks).to_iter_dataset(options)
    workers = min(workers, len(chunks))
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads its own flags; outside a command line they have their defaults
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD * threads)
        sharing = grain.experimental.DatasetOptions(min_shm_size=SHARED_BYTES)
        dataset = grain.experimental.WithOptionsIterDataset(dataset, sharing)
        dataset = dataset.mp_prefetch(processes, worker_init_fn=_start_worker)
    iterator = iter(dataset)
    try:
        with _light_main():
            # Grain starts a worker when its first chunk is asked for.
            ordered = itertools.chain(list(itertools.islice(iterator, workers)), iterator)
        while parts := list(itertools.islice(ordered, chunks.per_batch)):
            yield _join(parts), [one for part in parts for one in part.unreadable]
    finally:
        iterator.close()


class Chunks:
    """All chunks of all batches, numbered through: what Grain takes for a data source."""

    def __init__(self, rows: Rows):
        self._rows = rows
        self.per_batch = -(-rows.num_rows // CHUNK_ROWS)

    def __len__(self) -> int:
        return self._rows.num_batches * self.per_batch

    def __getitem__(self, index: SupportsIndex) -> Chunk:
        batch, part = divmod(index.__index__(), self.per_batch)
        start, stop = (self._rows.num_rows * edge // self.per_batch for edge in (part, part + 1))
        return self._rows.chunk(batch, start, stop)

    def __repr__(self) -> str:
        return f"Chunks({type(self._rows).__name__})"


def _join(parts: list[Chunk]) -> dict[str, np.ndarray]:
    if not all(part.fields for part in parts):
        return {}
    # Copies always: a worker's chunk lies in shared memory that is given back with it.
    return {name: np.concatenate([part.fields[name] for part in parts]) for name in sorted(parts[0].fields)}


@contextlib.contextmanager
def _light_main() -> Iterator[None]:
    """Within it, new worker processes do not import the program that starts them.

    Python's spawn method runs the main module again in every child. For a command that would import jax, seconds
    and hundreds of megabytes for each worker; for a script without a `__main__` guard it would start the script
    anew. Workers need nothing of it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker(_: int, __: int) -> None:
    """Called in a new worker process."""
    cv2.setNumThreads(1)  # the workers are the parallelism
    # Signals sent to the whole group, as Ctrl-C and schedulers do, are for the parent: it finishes its step, saves
    # and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
