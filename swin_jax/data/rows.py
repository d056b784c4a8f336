"""The rows of one host's batches, any of them computed on its own: picklable, for worker threads and processes."""

import dataclasses
import itertools
import sys
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from swin_jax.data import plan
from swin_jax.data.buckets import BucketPlan
from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.examples import Example, Row
from swin_jax.data.sources.base import Source

REPLACEMENTS = 100  # draws of a replacement before giving up


class Unreadable(NamedTuple):
    """Why a picture could not be read. Travels as data: an exception would come wrapped in a worker's trace."""

    name: str
    reason: str
    what: str

    @property
    def error(self) -> UnreadablePicture:
        return UnreadablePicture(*self)


class Chunk(NamedTuple):
    """Consecutive rows of a batch, and what was unreadable among the pictures tried for them.

    `fields` (first axis: the rows) is empty where a row could not be made.
    """

    fields: dict[str, np.ndarray]
    unreadable: list[Unreadable]


@runtime_checkable
class Rows(Protocol):
    """What `reading.batches` reads."""

    @property
    def num_rows(self) -> int:
        """Rows of this host in a batch."""
        ...

    @property
    def num_batches(self) -> int: ...

    def chunk(self, batch: int, start: int, stop: int) -> Chunk:
        """Rows `start` to `stop` of this host's part of a batch."""
        ...


@dataclasses.dataclass(frozen=True)
class TrainRows:
    """Rows of the plan. See `pipeline.train_batches`.

    Attributes:
      first_row: of this host in a global batch of `batch_size`.
      num_rows: of this host.
      replace: whether another example takes the place of an unreadable one.
      repeats: how often an example is read before the next one, with draws of their own.
      buckets: of an example whose rows' shapes are drawn; it then decides what stands in a batch.
    """

    source: Source
    example: Example
    batch_size: int
    first_row: int
    num_rows: int
    seed: int
    start_step: int
    replace: bool
    repeats: int = 1
    buckets: BucketPlan | None = None

    @property
    def num_batches(self) -> int:
        return sys.maxsize // (2 * self.num_rows)  # without end, as far as a machine word goes

    def chunk(self, batch: int, start: int, stop: int) -> Chunk:
        step = self.start_step + batch
        own = np.arange(self.first_row + start, self.first_row + stop)
        rows: list[Row] = []
        unreadable: list[Unreadable] = []
        for position, index, uniforms in self._planned(step, own):
            row = self._row(position, index, uniforms, unreadable)
            if row is None:
                return Chunk({}, unreadable)
            rows.append(row)
        return Chunk(_stack(rows), unreadable)

    def _planned(self, step: int, own: np.ndarray) -> Iterator[tuple[int, int, np.ndarray | None]]:
        """Global position, example and, where they are drawn before, the geometry of rows of a global batch."""
        if self.buckets is not None:
            dealt = self.buckets.batch(step)
            yield from zip(*(part[own].tolist() for part in dealt[:2]), dealt.uniforms[own], strict=True)
            return
        positions = step * self.batch_size + own
        indices = plan.examples_at(
            self.seed, plan.places(step, own, self.batch_size, self.repeats), len(self.source)
        )
        yield from ((*row, None) for row in zip(positions.tolist(), indices.tolist(), strict=True))

    def _row(
        self, position: int, index: int, uniforms: np.ndarray | None, unreadable: list[Unreadable]
    ) -> Row | None:
        planned = index
        candidates = self._candidates(position, index, uniforms)
        for index in itertools.islice(candidates, 1 + REPLACEMENTS * self.replace):
            try:
                row = self._made(position, index, uniforms)
            except UnreadablePicture as error:
                unreadable.append(Unreadable(*error.args))
                continue
            return _marked(row, index, valid=True) | {"replaced": np.asarray(index != planned)}
        return None

    def _made(self, position: int, index: int, uniforms: np.ndarray | None) -> Row:
        if self.buckets is None or uniforms is None:
            return self.example(self.source[index], plan.generator(self.seed, plan.DRAWS, position))
        return self.buckets.example.row(self.source[index], uniforms)

    def _candidates(self, position: int, index: int, uniforms: np.ndarray | None) -> Iterator[int]:
        """The planned example and those that may take its place, of the same bucket, without end."""
        yield index
        generator = plan.generator(self.seed, plan.REPLACEMENT, position)

        def bucket(index: int) -> int:
            if self.buckets is None or uniforms is None:
                return 0
            return self.buckets.bucket(index, uniforms)

        while True:
            other = int(generator.integers(len(self.source)))
            if bucket(other) == bucket(index):
                yield other


@dataclasses.dataclass(frozen=True)
class EvalRows:
    """The rows of an evaluation plan. See `pipeline.eval_batches`; attributes as `TrainRows`.

    Attributes:
      plan: of `plan.eval_plan`, int64 [batches, batch_size]: indices of the source, -1 for padding.
    """

    source: Source
    example: Example
    plan: np.ndarray
    first_row: int
    num_rows: int

    @property
    def num_batches(self) -> int:
        return len(self.plan)

    def chunk(self, batch: int, start: int, stop: int) -> Chunk:
        rows: list[Row] = []
        for index in self.plan[batch, self.first_row + start : self.first_row + stop].tolist():
            valid = index >= 0
            if not valid and rows and not rows[-1]["valid"]:
                rows.append(rows[-1])
                continue
            # A padding row gets its shapes from an example of its batch.
            index = index if valid else int(self.plan[batch, 0])
            try:
                row = self.example(self.source[index], plan.generator(0, plan.DRAWS, index))
            except UnreadablePicture as error:
                return Chunk({}, [Unreadable(*error.args)])
            if not valid:
                row = {name: np.zeros_like(value) for name, value in row.items()}
            rows.append(_marked(row, index if valid else 0, valid=valid))
        return Chunk(_stack(rows), [])


def _marked(row: Row, index: int, *, valid: bool) -> Row:
    return row | {"example_index": np.asarray(index, np.uint32), "valid": np.asarray(valid)}


def _stack(rows: list[Row]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
