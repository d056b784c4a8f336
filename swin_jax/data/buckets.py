"""Training batches whose rows have one shape, where the shape of a row is drawn.

Every position of the endless order of examples has its numbers in [0, 1), and with the size of its picture they decide
its bucket. Positions are dealt to their buckets in order; whenever one holds a batch, that is the next batch. So batch
t is a function of (seed, t), alike on every host and in every worker, no position is dropped, and none waits longer
than its bucket takes to fill.
"""

import dataclasses
import threading
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from swin_jax.data import plan
from swin_jax.data.examples import Example, Record, Row

BLOCK = 1 << 14  # positions that are dealt at once


@runtime_checkable
class DrawnExample(Example, Protocol):
    """One whose rows' shapes depend on what is drawn for them."""

    @property
    def draws(self) -> int: ...
    def buckets(self, sizes: np.ndarray, uniforms: np.ndarray) -> np.ndarray: ...
    def row(self, record: Record, uniforms: np.ndarray) -> Row: ...


class Dealt(NamedTuple):
    """The rows of a batch: their global positions, examples and draws."""

    positions: np.ndarray
    indices: np.ndarray
    uniforms: np.ndarray


@dataclasses.dataclass
class BucketPlan:
    """The batches of a run. Safe to read from several threads, picklable.

    Attributes:
      example: decides on the buckets.
      sizes: (height, width) of every example's picture, int [n, 2].
      batch_size: rows of a global batch.
      seed: of the order and the draws.
    """

    example: DrawnExample
    sizes: np.ndarray
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._batches: list[np.ndarray] = []  # positions, int64 [batch_size]
        self._waiting: dict[int, np.ndarray] = {}
        self._next = 0  # position

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def batch(self, step: int) -> Dealt:
        """The rows of global batch `step`."""
        with self._lock:
            while len(self._batches) <= step:
                self._deal()
            positions = self._batches[step]
        return Dealt(positions, *self._of(positions))

    def bucket(self, index: int, uniforms: np.ndarray) -> int:
        """Where an example would go with these draws."""
        return int(self.example.buckets(self.sizes[[index]], uniforms[None])[0])

    def _of(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices = plan.examples_at(self.seed, positions, len(self.sizes))
        return indices, plan.uniforms(self.seed, positions, self.example.draws)

    def _deal(self) -> None:
        """Deals a block of positions and appends the batches that it completes, in the order of their last rows."""
        positions = np.arange(self._next, self._next + BLOCK, dtype=np.int64)
        self._next += BLOCK
        indices, uniforms = self._of(positions)
        buckets = self.example.buckets(self.sizes[indices], uniforms)
        full: list[np.ndarray] = []
        for bucket in np.unique(np.concatenate([buckets, list(self._waiting)])).astype(int).tolist():
            before = self._waiting.get(bucket, np.zeros(0, np.int64))
            members = np.concatenate([before, positions[buckets == bucket]])
            count = len(members) // self.batch_size
            full += list(members[: count * self.batch_size].reshape(count, self.batch_size))
            self._waiting[bucket] = members[count * self.batch_size :]
        self._batches += sorted(full, key=lambda batch: int(batch[-1]))
