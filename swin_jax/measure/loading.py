"""How many pictures a second one core reads: CPU time of this process and its workers, ours and timm's in turns."""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from swin_jax.measure.timing import Spread, ratios

Batches = Iterator[Any]
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Reading(NamedTuple):
    """Images per second of CPU time, and of wall time; `speedup` as in `speed.Timing`, by CPU time."""

    name: str
    per_core: Spread
    per_wall_second: Spread
    speedup: Spread | None


def measure(
    loaders: Mapping[str, Callable[[], Batches]], *, batch_size: int, batches: int, warmup: int, repeats: int
) -> list[Reading]:
    """Reads `batches` batches of each loader in each repeat, after `warmup` unmeasured ones.

    Only one loader exists at a time: its workers and its reading ahead are measured with it and with nothing else. The
    first loader is the one whose speed the others are compared with.
    """
    cpu: dict[str, list[float]] = {name: [] for name in loaders}
    wall: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(repeats):
        for name, start in loaders.items():
            used, passed = _timed(start, batches, warmup)
            cpu[name].append(used / (batches * batch_size))
            wall[name].append(passed / (batches * batch_size))
    first = next(iter(loaders))
    return [
        Reading(
            name,
            Spread.of([1 / value for value in cpu[name]]),
            Spread.of([1 / value for value in wall[name]]),
            None if name == first else ratios(cpu[first], cpu[name]),
        )
        for name in loaders
    ]


def _timed(start: Callable[[], Batches], batches: int, warmup: int) -> tuple[float, float]:
    with closing(_generator(start())) as iterator:
        for _ in itertools.islice(iterator, warmup):
            pass
        cpu, wall = cpu_seconds(), time.perf_counter()
        for _ in itertools.islice(iterator, batches):
            pass
        return cpu_seconds() - cpu, time.perf_counter() - wall


def _generator(batches: Batches) -> Any:
    yield from batches


def cpu_seconds() -> float:
    """CPU time of this process and of its living descendants.

    Raises:
        ValueError: the system has no /proc.
    """
    if not Path("/proc/self/stat").exists():
        raise ValueError("--loader reads CPU times from /proc, which this system does not have")
    return sum(_ticks(process) for process in _descendants(os.getpid())) / TICKS


def _descendants(process: int) -> Iterator[int]:
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:  # the thread has ended
            continue
        for child in found:
            yield from _descendants(int(child))


def _ticks(process: int) -> int:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0
    return int(fields[11]) + int(fields[12])


def table(readings: list[Reading]) -> str:
    lines = [f"{'':<16}{'images/s per core':>26}{'images/s':>26}{'swin_jax is faster by':>25}"]
    for one in readings:
        speedup = "" if one.speedup is None else one.speedup.text(2)
        lines.append(
            f"{one.name:<16}{one.per_core.text():>26}{one.per_wall_second.text():>26}{speedup:>25}".rstrip()
        )
    return "\n".join(lines)


def as_json(one: Reading) -> dict[str, Any]:
    spreads = {name: value and value._asdict() for name, value in one._asdict().items() if name != "name"}
    return {"loader": one.name, **spreads}
