"""Examples under the class numbers of another data set: what a run is evaluated on besides its own data."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from swin_jax.data.sources.base import Record, Source, digest


@dataclasses.dataclass(frozen=True)
class Renumbered:
    """The examples of `source`; class `k` there is class `numbers[k]` of `class_names`. Made by `renumber`."""

    source: Source
    class_names: tuple[str, ...]
    numbers: tuple[int, ...]

    @property
    def identity(self) -> str:
        return self.source.identity

    @property
    def fingerprint(self) -> str:
        return digest(self.source.fingerprint, self.class_names, np.asarray(self.numbers, np.int64))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        record = dict(self.source[index])
        if record["label"] >= 0:
            record["label"] = self.numbers[record["label"]]
        if "accepted" in record:
            accepted = np.zeros(len(self.class_names), bool)
            accepted[np.asarray(self.numbers)[record["accepted"]]] = True
            record["accepted"] = accepted
        return record


def renumber(source: Source, class_names: tuple[str, ...]) -> Source:
    """`source` with its labels as numbers of `class_names`, in which its own classes are found by name.

    Raises:
      ValueError: `class_names` lacks one of them.
    """
    if source.class_names == class_names:
        return source
    number = {name: index for index, name in enumerate(class_names)}
    unknown = [name for name in source.class_names if name not in number]
    if unknown:
        raise ValueError(
            f"{source.identity} has the class {unknown[0]!r}, which the run does not know "
            f"({len(unknown)} of {len(source.class_names)}); the run's {len(class_names)} classes are called "
            f"{', '.join(class_names[:3])}{', ...' * (len(class_names) > 3)}"
        )
    return Renumbered(source, class_names, tuple(number[name] for name in source.class_names))


def present_classes(source: Source, *, threads: int = 8) -> tuple[int, ...]:
    """The classes that occur among the labels, ascending. Every record is read once."""

    def labels(index: int) -> list[int]:
        record = source[index]
        return np.flatnonzero(record["accepted"]).tolist() if "accepted" in record else [record["label"]]

    with ThreadPoolExecutor(threads) as pool:
        found = {label for some in pool.map(labels, range(len(source))) for label in some}
    return tuple(sorted(found - {-1}))
