"""Times of several contenders, interleaved so that what else the machine does meets all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""CPU time, of all threads of this process, is for programs that run on the CPU of a machine with other work."""


class Spread(NamedTuple):
    """Median, least and greatest of repeated measurements."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 1) -> str:
        return f"{self.median:.{digits}f} ({self.min:.{digits}f} .. {self.max:.{digits}f})"


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, repeats: int, seconds: float, clock: str = "wall"
) -> dict[str, list[float]]:
    """Seconds of one call of each contender, one value a repeat.

    Each is called once unmeasured. Then every repeat times all of them in turn, each for as many calls as fill about
    `seconds`. A contender returns only when its work is done.
    """
    calls = {}
    for name, run in contenders.items():
        run()
        calls[name] = max(1, round(seconds / _time(run, 1, CLOCKS[clock])))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            times[name].append(_time(run, calls[name], CLOCKS[clock]))
    return times


def ratios(of: list[float], to: list[float]) -> Spread:
    """`to / of` within each repeat: how many times as fast `of` is."""
    return Spread.of([other / own for own, other in zip(of, to, strict=True)])


def _time(run: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls
