"""Batches of a source: which rows, drawn how, read by whom.

Row `r` of global batch `t` is the same example with the same draws whatever the number of hosts, worker processes
and threads: both follow from the seed and the global position alone (`plan`). Host `h` of `n` reads the rows
`[h B/n, (h+1) B/n)` of every batch. Work is handed out in chunks of rows; Grain reads them ahead and hands them back
in order, and they are joined into batches afterwards.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from swin_jax.data import reading
from swin_jax.data.buckets import BucketPlan, DrawnExample
from swin_jax.data.decode import UnreadablePicture, picture_size
from swin_jax.data.examples import BucketedExample, Example
from swin_jax.data.plan import eval_plan, plan
from swin_jax.data.rows import EvalRows, TrainRows
from swin_jax.data.sources.base import Source

__all__ = ["Buckets", "eval_batches", "find_buckets", "plan", "row_fields", "train_batches"]

log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]
"""Field name -> array whose first axis is this host's rows."""

Buckets = list[tuple[int, ...]]
"""One for each example of a source: examples of equal buckets have rows of equal shapes."""


def train_batches(
    source: Source,
    example: Example,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
    workers: int = 0,
    threads: int = 2,
    max_unreadable: int = 0,
    repeats: int = 1,
) -> Iterator[Batch]:
    """This host's rows of the global batches from `start_step` on, without end.

    Besides the example's own fields: `example_index` uint32, `valid` bool (all True), and `replaced` bool: the row
    stands in for a picture that could not be read.

    Args:
      source: the examples.
      example: makes a row of a record.
      batch_size: rows of the global batch, a multiple of `hosts`.
      seed: of the order and of all draws.
      start_step: of the first batch; nothing before it is read.
      host: this host's number, below `hosts`.
      hosts: their number.
      workers: processes that read and decode; 0 reads in this process.
      threads: that read and decode, in each of the processes that do.
      max_unreadable: how many different pictures may prove unreadable in this process. Each is logged and its row
        filled by another example, drawn from the seed and the row's position.
      repeats: rows of each example, cropped each on its own; see `plan.places`.

    Raises:
      ValueError: an argument does not fit, at once.
      UnreadablePicture: from `next`, for the first unreadable picture beyond `max_unreadable`.
    """
    _check(source, batch_size, hosts=hosts, host=host, workers=workers, threads=threads)
    if seed < 0 or start_step < 0 or max_unreadable < 0:
        raise ValueError(
            f"seed {seed}, start_step {start_step} and max_unreadable {max_unreadable} must not be negative"
        )
    check_repeats(repeats)
    buckets = None
    if isinstance(example, DrawnExample):
        if repeats != 1:
            raise ValueError(
                f"data.repeats is {repeats}; where canvases are drawn, examples are not repeated"
            )
        buckets = BucketPlan(example, picture_sizes(source, threads=threads), batch_size, seed)
    rows = TrainRows(
        source=source,
        example=example,
        batch_size=batch_size,
        first_row=host * (batch_size // hosts),
        num_rows=batch_size // hosts,
        seed=seed,
        start_step=start_step,
        replace=max_unreadable > 0,
        repeats=repeats,
        buckets=buckets,
    )
    return _train_batches(rows, workers=workers, threads=threads, max_unreadable=max_unreadable)


def _train_batches(rows: TrainRows, *, workers: int, threads: int, max_unreadable: int) -> Iterator[Batch]:
    seen: set[str] = set()
    for batch, unreadable in reading.batches(rows, workers=workers, threads=threads):
        for picture in unreadable:
            if picture.name in seen:
                continue
            seen.add(picture.name)
            error = picture.error
            if len(seen) > max_unreadable:
                raise _too_many(error, len(seen)) if max_unreadable else error
            log.warning("%s; replaced (%d of at most %d)", error, len(seen), max_unreadable)
        if not batch:
            name, reason, what = unreadable[-1]
            raise UnreadablePicture(name, f"{reason}; no replacement was readable", what)
        yield batch


def _too_many(error: UnreadablePicture, count: int) -> UnreadablePicture:
    return UnreadablePicture(
        error.name, f"{error.reason}; it is unreadable picture {count}, allowed are {count - 1}", error.what
    )


def eval_batches(
    source: Source,
    example: Example,
    *,
    batch_size: int,
    host: int = 0,
    hosts: int = 1,
    workers: int = 0,
    threads: int = 2,
    buckets: Buckets | None = None,
) -> Iterator[Batch]:
    """This host's rows of a pass over all examples, each exactly once, in order within a bucket.

    Every host gets the same number of batches. The last global batch of a bucket is padded with rows of zeros whose
    `valid` is False. Arguments, fields and errors as `train_batches`, without `replaced`; any unreadable picture is
    an error.

    Args:
      source, example, batch_size, host, hosts, workers, threads: as `train_batches`.
      buckets: of `find_buckets`, to spare a second look at every picture; None looks.
    """
    _check(source, batch_size, hosts=hosts, host=host, workers=workers, threads=threads)
    buckets = find_buckets(source, example, threads=threads) if buckets is None else buckets
    rows = EvalRows(
        source=source,
        example=example,
        plan=eval_plan(buckets, batch_size),
        first_row=host * (batch_size // hosts),
        num_rows=batch_size // hosts,
    )
    return _eval_batches(rows, workers=workers, threads=threads)


def _eval_batches(rows: EvalRows, *, workers: int, threads: int) -> Iterator[Batch]:
    for batch, unreadable in reading.batches(rows, workers=workers, threads=threads):
        for picture in unreadable:
            raise picture.error
        yield batch


def find_buckets(source: Source, example: Example, *, threads: int = 2) -> Buckets:
    """What decides the shapes of each example's row: the same for all where the rows of `example` have one shape.

    Otherwise every record is read and its picture's header looked at, which takes a moment for each thousand.

    Raises:
      UnreadablePicture: a picture has no header.
    """
    if not isinstance(example, BucketedExample):
        return [()] * len(source)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda index: example.bucket(source[index]), range(len(source))))


def picture_sizes(source: Source, *, threads: int = 2) -> np.ndarray:
    """(height, width) of every picture, int [n, 2]: the source's own `sizes`, or from the pictures' headers.

    Raises:
      UnreadablePicture: a picture has no header.
    """
    known = getattr(source, "sizes", None)
    if known is not None:
        return np.asarray(known)

    def size(index: int) -> tuple[int, int]:
        record = source[index]
        return picture_size(record["image"], record["name"])

    with ThreadPoolExecutor(threads) as pool:
        return np.array(list(pool.map(size, range(len(source)))), np.int64)


def check_repeats(repeats: int) -> None:
    if repeats < 1:
        raise ValueError(f"data.repeats is {repeats}; give 1, or how often each example is read")


def row_fields(source: Source, example: Example) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every field of one row that `example` makes of the first readable record of `source`.

    Raises:
      UnreadablePicture: none of the first records can be read.
    """
    error = None
    for index in range(min(len(source), 8)):
        try:
            row = example(source[index], np.random.default_rng(0))
        except UnreadablePicture as unreadable:
            error = unreadable
            continue
        return {name: (value.shape, value.dtype.name) for name, value in row.items()}
    raise error or ValueError("the source has no examples")


def _check(source: Source, batch_size: int, **counts: Any) -> None:
    if not len(source):
        raise ValueError("the source has no examples")
    if batch_size < 1 or counts["hosts"] < 1 or batch_size % counts["hosts"]:
        raise ValueError(
            f"batch_size {batch_size} is not a positive multiple of the number of hosts {counts['hosts']}"
        )
    if not 0 <= counts["host"] < counts["hosts"]:
        raise ValueError(f"host is {counts['host']}; it must be from 0 to {counts['hosts'] - 1}")
    if counts["workers"] < 0 or counts["threads"] < 1:
        raise ValueError(
            f"workers is {counts['workers']} and threads {counts['threads']}; give workers >= 0 and threads >= 1"
        )
