"""A profiler trace: of the steps asked for, whole, and written even where the run ends among them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from swin_jax.training.preflight import step_range
from swin_jax.training.profile import profiled
from swin_jax.training.state import TrainState


@jax.jit
def add(value: jax.Array) -> jax.Array:
    return value + 1


def train_step(state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, dict[str, Any]]:
    return TrainState(add(state.step), {}, {}, {}), {"loss": jnp.float32(state.step)}


def traced_steps(directory: Path, first: int, last: int, steps: range) -> int:
    """Runs the steps `first` to `last` of a run; how many are in the trace, none if there is no trace.

    Their numbers are in the trace too, but jaxlib 0.12 aborts where it is asked for them.
    """
    state = TrainState(jnp.int32(first - 1), {}, {}, {})
    with profiled(train_step, epath.Path(directory), steps, start_step=first - 1) as step:
        for number in range(first, last + 1):
            state, report = step(state, {})
            assert float(report["loss"]) == number - 1
    assert int(state.step) == last
    return sum(
        event.name == "train"
        for path in directory.glob("plugins/profile/*/*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes
        for line in plane.lines
        for event in line.events
    )


def test_the_steps_asked_for_are_traced(tmp_path: Path) -> None:
    assert traced_steps(tmp_path, 1, 5, range(2, 4)) == 2


def test_a_run_that_ends_among_them_leaves_what_it_took(tmp_path: Path) -> None:
    assert traced_steps(tmp_path, 3, 5, range(2, 9)) == 3


@pytest.mark.parametrize("steps", [range(0), range(1, 3)])
def test_nothing_is_written_where_no_step_is_among_them(tmp_path: Path, steps: range) -> None:
    assert traced_steps(tmp_path, 3, 5, steps) == 0
    assert list(tmp_path.iterdir()) == []


def test_texts_of_steps() -> None:
    assert step_range("profile_steps", "") == range(0)
    assert step_range("profile_steps", "100:105") == range(100, 105)
    for text in ("5", "5:", ":5", "5:5", "7:5", "0:5", "-1:5", "a:b", "1:2:3"):
        with pytest.raises(ValueError, match=r"profile_steps is .*; write first:stop, such as \"100:105\""):
            step_range("profile_steps", text)
