"""The verb `benchmark`: what it prints, and its sentences."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from swin_jax import benchmark
from swin_jax.config import Config, base_config
from swin_jax.data.photographs import write_photographs
from swin_jax.measure import compiling, described
from swin_jax.measure.described import GIB
from swin_jax.models.complexity import swin_macs

SHAPES = "--config=experiments/shapes.py:classification"
MICRO = {
    "batch_size": 32,
    "accumulation": 2,
    "model.name": "swin",
    "model.embed_dim": 8,
    "model.depths": (1, 4),
    "model.num_heads": (1, 2),
    "model.window_size": 2,
    "model.scan": True,
    "model.remat": "weight_dots",
    "model.drop_path_rate": 0.1,
    "data.size": (16, 16),
}


def micro(**changes: object) -> Config:
    config = base_config()
    config.update_from_flattened_dict(MICRO | changes)
    return config


def verb(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "swin_jax.benchmark", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])


@pytest.mark.long
def test_it_times_inference_and_training_of_an_experiment():
    printed = verb(SHAPES, "--batch_size=4", "--repeats=2", "--seconds=0", "--json")
    assert printed.returncode == 0, printed.stderr
    assert "the comparison with timm is left out: the experiment sets model.embed_dim" in printed.stderr
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [(row["work"], row["name"]) for row in rows] == [
        ("inference", "swin_jax"),
        ("training", "swin_jax"),
    ]
    for row in rows:
        assert 0 < row["seconds"]["min"] <= row["seconds"]["median"] <= row["seconds"]["max"]
        assert row["images_per_second"]["median"] > 0
        assert row["compile_seconds"] > 0
        assert row["temporaries"] > 0
        assert row["speedup"] is None


def test_it_times_the_input_pipeline(tmp_path):
    write_photographs(tmp_path, 2)
    folder = ("--config=experiments/own_images.py:micro_32", f"--config.data.root={tmp_path}")
    printed = verb(
        "--loader", *folder, "--batch_size=4", "--repeats=1", "--seconds=0", "--nocompare", "--json"
    )
    assert printed.returncode == 0, printed.stderr
    (row,) = (json.loads(line) for line in printed.stdout.splitlines())
    assert row["loader"] == "swin_jax"
    assert row["per_core"]["median"] > 0
    assert row["speedup"] is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name either a model, --model=swin_tiny_patch4_window7_224, or an experiment"),
        (["--model=swin_tiny", "--compile-for=v5e:4x4"], "libtpu"),
    ],
)
def test_one_sentence_for_what_is_missing(arguments: list[str], sentence: str):
    if sentence == "libtpu":
        sentence = 'needs the TPU compiler: pip install "jax[tpu]"'
        if described.importlib.util.find_spec("libtpu"):
            pytest.skip("libtpu is installed here")
    printed = verb(*arguments)
    assert printed.returncode == 1
    assert printed.stderr.startswith("error: ")
    assert sentence in printed.stderr
    assert len(printed.stderr.splitlines()) == 1


@pytest.mark.parametrize("topology", ["v5e", "v9:2x2", "v5e:4", "v5e:4x4x4x4"])
def test_a_topology_is_a_generation_and_a_shape(topology: str):
    with pytest.raises(ValueError, match=r"write a generation .* such as v5e:4x4"):
        described.describe(topology)


def test_a_batch_that_the_chips_cannot_share_is_refused():
    with pytest.raises(
        ValueError, match="batch_size 40 is not divisible by 8 devices x accumulation 2; use 32 or 48"
    ):
        benchmark.build(micro(batch_size=40), jax.devices())


@pytest.fixture(scope="module")
def found() -> compiling.Compiled:
    """For this machine's eight devices; the same code compiles for those of a described slice."""
    _, program, _ = benchmark.build(micro(), jax.devices())
    return compiling.compile_described(program, 16 * GIB)


def test_the_compiled_step_is_described(found: compiling.Compiled):
    assert (found.devices, found.images_per_device) == (8, 4)
    assert found.peak >= found.arguments + found.temporaries > found.arguments > 0
    assert found.outputs < found.arguments  # the state is written over
    assert found.bytes_per_image > 0
    # A gradient costs two forward passes, recomputation of attention a little more.
    model = benchmark.build(micro(), jax.devices())[0].model
    assert 5.9 < found.flops_per_image / swin_macs(model, 16, 16) < 8
    assert set(found.collectives) == {"all-reduce"}


def test_the_report_gives_every_figure_with_its_unit(found: compiling.Compiled):
    lines = compiling.report("swin, 32 images a step, on v5e:2x4", found).splitlines()
    assert lines[0] == "swin, 32 images a step, on v5e:2x4"
    assert lines[1].startswith("8 devices, 4 images each; compiled in ")
    assert "of 16.00 GiB (" in lines[2]
    assert lines[3].endswith(" MB an image")
    assert lines[4].endswith(" GFLOP an image")
    assert lines[5].startswith("all-reduce")
    loaded = json.loads(json.dumps(compiling.as_json("title", found)))
    assert loaded["collectives"]["all-reduce"]["times"] == found.collectives["all-reduce"].times


def test_what_does_not_fit_is_said_in_one_sentence():
    words = (
        "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 18.30G of 15.75G hbm."
    )
    refusal = compiling._out_of_memory(RuntimeError(words), 16 * GIB)
    assert str(refusal).startswith(
        "the step does not fit: it uses 18.30G of the 15.75G that a device of 16 GiB leaves"
    )
    assert compiling._out_of_memory(RuntimeError("another error"), 16 * GIB) is None
