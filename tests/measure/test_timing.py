"""Interleaving and spreads, on contenders whose work is known."""

import subprocess
import sys

from swin_jax.measure import loading
from swin_jax.measure.timing import Spread, interleaved, ratios


def test_contenders_take_turns_within_every_repeat():
    calls: list[str] = []
    times = interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, seconds=0.0
    )
    assert calls == ["a", "a", "b", "b"] + ["a", "b"] * 3  # once to warm up and once to see how long it takes
    assert [len(times[name]) for name in ("a", "b")] == [3, 3]


def test_ratios_are_taken_within_a_repeat():
    assert ratios(of=[1.0, 2.0, 4.0], to=[3.0, 4.0, 20.0]) == Spread(median=3.0, min=2.0, max=5.0)
    assert Spread.of([4.0, 1.0, 2.0]).text(2) == "2.00 (1.00 .. 4.00)"


def busy(batches: int):
    """CPU time in proportion to `batches` a batch."""
    while True:
        sum(value * value for value in range(100_000 * batches))
        yield batches


def test_a_loader_of_three_times_the_work_reads_a_third_as_much_a_core():
    loaders = {"swin_jax": lambda: busy(1), "timm": lambda: busy(3)}
    ours, other = loading.measure(loaders, batch_size=2, batches=12, warmup=1, repeats=1)
    assert ours.speedup is None
    assert other.speedup is not None
    assert 2.0 < other.speedup.median < 4.5
    assert ours.per_core.median > 1.5 * other.per_core.median


def test_cpu_time_of_children_counts():
    before = loading.cpu_seconds()
    script = (
        "import time; start = time.process_time()",
        "while time.process_time() < start + 0.5: pass",
        "print('done', flush=True); input()",
    )
    with subprocess.Popen(
        [sys.executable, "-c", "\n".join(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        used = loading.cpu_seconds() - before
        child.communicate("\n")
    assert used >= 0.45
