"""Suites of the benchmark: programs against ceilings."""

import json

import jax
import pytest

from swin_jax.measure.suites import compiled
from swin_jax.ops.window_attention import implementation_names
from swin_jax.tasks import pictures


def figures(accessed: float, ceiling: float | None) -> compiled.Figures:
    return compiled.Figures("forward", "xla", "v5e", accessed, 1.0, 1.0, 10, 0, 1.0, ceiling)


def test_a_program_that_passes_its_ceiling_is_named():
    found = [figures(99.0, 100.0), figures(101.0, 100.0), figures(500.0, None)]
    assert compiled.failures(found) == [
        "forward of xla on v5e accesses 101.0 MB an image; its ceiling is 100.0"
    ]
    assert compiled.table(found).count("\n") == 3


def test_ceilings_are_of_programs_and_implementations_that_exist():
    programs = {program for part in compiled.PARTS.values() for program in part}
    for of_chip in json.loads(compiled.CEILINGS.read_text()).values():
        for implementation, ceilings in of_chip.items():
            assert implementation in implementation_names()
            assert set(ceilings) == programs
    assert compiled.ceiling_of("forward", "pallas_tpu", "v5e") == 160.0
    assert compiled.ceiling_of("forward", "xla", "v5e") is None


@pytest.mark.long
def test_programs_of_a_block_compile_and_the_gradient_moves_more():
    forward, training = compiled.measure(jax.devices(), "cpu", ("xla",), "block")
    assert (forward.program, training.program) == ("block forward", "block training")
    assert 0 < forward.accessed < training.accessed
    assert forward.operations > 0
    assert forward.passed


def test_speeds_are_drawn():
    bars = [
        pictures.Speed("swin_jax", 10.0, 9.0, 11.0, True),
        pictures.Speed("timm eager", 8.0, 7.5, 9.0, False),
    ]
    drawn = pictures.speed_picture([("inference", bars), ("training", bars[:1])], title="CPU", unit="images")
    assert drawn.ndim == 3
    assert len({tuple(colour) for colour in drawn.reshape(-1, 3)[::7]}) > 3
