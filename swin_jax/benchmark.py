"""Measures speed and memory: of a model, of an experiment's input pipeline, of its step on TPUs that are not here.

    python -m swin_jax.benchmark --model=swin_tiny_patch4_window7_224 --batch_size=8
    python -m swin_jax.benchmark --config=experiments/imagenet1k.py:swin_tiny --batch_size=128
    python -m swin_jax.benchmark --config=experiments/imagenet1k.py:swin_tiny --config.model.scan --compile-for=v5e:4x4
    python -m swin_jax.benchmark --config=experiments/imagenet1k.py:swin_tiny --loader
    python -m swin_jax.benchmark --suite=cpu --output=figures

Without further options: inference and the training step on one device, and timm's beside them where torch and timm
are installed, in turns within one run. Every figure is the median (least .. greatest) of --repeats. On a machine with
other work, compare on one core by CPU time: OMP_NUM_THREADS=1 taskset -c 0 python -m swin_jax.benchmark --clock=cpu.

--compile-for compiles the experiment's training step for a described slice, as it would run there over all chips, and
prints the memory of a chip, HBM bytes and matrix FLOPs of an image, and the collectives. It needs libtpu
(`pip install "jax[tpu]"`) and no TPU; minutes. Set --config.model.scan to spare most of them.

--loader reads pictures as the experiment would and prints images per second of CPU time, timm's loader beside it.
Pictures are the experiment's if --config.data.root is set, else 500 x 375 JPEGs made for the measurement.

Suites measure the project as a whole, print as they go, and write what they found to --output (JSON, and a picture
of speeds): "cpu" and "gpu" time Swin (T; on a GPU also S and B, and the attention kernel alone) beside timm,
torchvision and transformers; "tpu-compile" compiles Swin-T's programs for --chip with each implementation and fails
where one passes its committed ceiling (--part=block takes a minute, all some); "loader" is --loader of the ImageNet
recipe.
"""

import datetime
import json
import os
import platform as host
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
from absl import flags
from etils import epath

from swin_jax import cli, experiment
from swin_jax.config import Config, base_config
from swin_jax.measure import compiling, described, loading, speed, torch_peer
from swin_jax.measure.step import StepProgram, step_program
from swin_jax.measure.suites import compiled, kernels
from swin_jax.measure.timing import CLOCKS
from swin_jax.models.registry import create_model
from swin_jax.tasks import pictures
from swin_jax.tasks.task import Task
from swin_jax.training import preflight, sharding
from swin_jax.training.optimizer import make_optimizer
from swin_jax.training.run_directory import write_atomically
from swin_jax.training.state import create_state

CHIPS = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}

CONFIG = cli.config_flag()
MODEL = cli.model_flag()
BATCH_SIZE = cli.batch_size_flag()
REPEATS = flags.DEFINE_integer("repeats", 7, "Interleaved repeats.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 2.0, "About how long each timing of a repeat lasts.", lower_bound=0.0)
COMPILE_FOR = flags.DEFINE_string(
    "compile_for", "", "A TPU slice such as v5e:4x4; --compile-for is the same."
)
CLASSES = flags.DEFINE_integer(
    "num_classes", 0, "Classes of the data; 0 takes the number the model is named for."
)
CLOCK = flags.DEFINE_enum(
    "clock", "wall", list(CLOCKS), "Seconds of wall or CPU time; CPU time on a busy machine."
)
LOADER = flags.DEFINE_bool("loader", False, "Measure the input pipeline.")
COMPARE = flags.DEFINE_bool("compare", True, "Measure timm beside it, where torch and timm are installed.")
SUITE = flags.DEFINE_enum("suite", "", ["", "cpu", "gpu", "tpu-compile", "loader"], "See above.")
CHIP = flags.DEFINE_enum("chip", "v5e", list(CHIPS), "Of --suite=tpu-compile.")
PART = flags.DEFINE_enum("part", "models", ["models", "block"], "Of --suite=tpu-compile: all, or one block.")
OUTPUT = cli.output_flag()
PLATFORM = cli.platform_flag()
JSON = cli.json_flag()
flags.DEFINE_alias("compile-for", "compile_for")

# The length of a run does not change its step's program; any data set would do.
EXAMPLES = 1_281_167
# Fields that make another model of a published one.
ARCHITECTURE = (
    "embed_dim",
    "depths",
    "num_heads",
    "window_size",
    "patch_size",
    "mlp_ratio",
    "qkv_bias",
    "patch_norm",
    "absolute_position_embedding",
    "window_policy",
    "drop_rate",
    "attn_drop_rate",
)
PHOTOGRAPHS = 200
LARGEST_LOADER_BATCH = 64
SUITE_MODELS = {
    "cpu": ("swin_tiny_patch4_window7_224",),
    "gpu": tuple(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")),
}
# Compiled by the suite. Plain operations have no ceiling, and are compiled for comparison where there is time for it.
IMPLEMENTATIONS = {
    "block": ("pallas_tpu", "pallas_tpu_blocks"),
    "models": ("pallas_tpu", "pallas_tpu_blocks", "xla"),
}


def main(_: Sequence[str]) -> None:
    with cli.one_sentence(ValueError):
        if SUITE.value:
            return suite(SUITE.value)
        config = chosen_config()
        if LOADER.value:
            measure_loader(config)
        elif COMPILE_FOR.value:
            compile_for(config, COMPILE_FOR.value)
        else:
            measure_speed(config)


def suite(name: str) -> None:
    """Runs a suite. Ends with status 1 where a program passes its ceiling."""
    if name == "tpu-compile":
        compile_suite()
    elif name == "loader":
        write_found("loader", measure_loader(imagenet()))
    else:
        speed_suite(name)


def compile_suite() -> None:
    devices, _ = described.describe(CHIPS[CHIP.value])
    found = []
    for part in compiled.PARTS if PART.value == "models" else (PART.value,):
        for figures in compiled.measure(devices, CHIP.value, IMPLEMENTATIONS[part], part):
            print(compiled.table([figures]), flush=True)
            found.append(figures)
    write_found(f"compiled_{CHIP.value}", [one._asdict() for one in found])
    if failed := compiled.failures(found):
        raise ValueError("; ".join(failed))


def speed_suite(platform: str) -> None:
    """Times Swin on the CPU or the GPU beside every library that is installed, and on a GPU the kernel alone."""
    device = sharding.select_devices(platform)[0]
    rows, disciplines = [], []
    if platform == "gpu":
        for timing in kernels.measure("pallas_gpu", repeats=REPEATS.value, seconds=SECONDS.value / 10):
            print(kernels.row(timing), flush=True)
            rows.append({"work": "kernel", **timing._asdict()})
    for name in SUITE_MODELS[platform]:
        config = imagenet()
        with config.unlocked():
            config.model.update(name=name, dtype="float32" if platform == "cpu" else "bfloat16")
            config.mesh.platform = platform
            config.batch_size = BATCH_SIZE.value or (8 if platform == "cpu" else 128)
        for timings in timings_of(config, torch_peer.libraries(name) if COMPARE.value else ()):
            print(f"{name}\n{speed.table(timings)}", flush=True)
            rows += [{"model": name, **speed.as_json(timing)} for timing in timings]
            disciplines.append((f"{name.split('_patch')[0]} {timings[0].work}", timings))
    picture = pictures.speed_picture(
        [(title, [speed.as_bar(timing) for timing in timings]) for title, timings in disciplines],
        title=f"{device.device_kind}, jax {jax.__version__}",
        unit="images a second",
    )
    write_found(platform, rows, picture)


def imagenet() -> Config:
    config = base_config()
    config.model.name = SUITE_MODELS["cpu"][0]
    return config


def write_found(name: str, rows: list[dict[str, Any]], picture: Any = None) -> None:
    """Writes a suite's figures to --output, if it is given."""
    if not OUTPUT.value:
        return
    directory = Path(OUTPUT.value)
    directory.mkdir(parents=True, exist_ok=True)
    facts = {
        "date": datetime.date.today().isoformat(),
        "machine": host.machine(),
        "jax": jax.__version__,
        "command": " ".join(sys.argv[1:]),
    }
    text = json.dumps({**facts, "rows": rows}, indent=1)
    write_atomically(epath.Path(directory / f"{name}.json"), text.encode())
    if picture is not None:
        write_atomically(epath.Path(directory / f"{name}.png"), pictures.png(picture))


def chosen_config() -> Config:
    """The experiment of --config, or the default one with the model of --model; with --batch_size."""
    config = cli.config(CONFIG)
    if (config is None) == (not MODEL.value):
        raise ValueError(
            "name either a model, --model=swin_tiny_patch4_window7_224, or an experiment, --config=FILE"
        )
    if config is None:
        config = base_config()
        config.model.name = MODEL.value
        config.batch_size = 8
        # A CPU computes in float32 what an accelerator is given in bfloat16.
        described_tpu = bool(COMPILE_FOR.value)  # jax must not have started then
        if not described_tpu and (PLATFORM.value or jax.default_backend()) == "cpu":
            config.model.dtype = "float32"
    with config.unlocked():
        config.batch_size = BATCH_SIZE.value or config.batch_size
    return config


def build(
    config: Config, devices: list[sharding.Device], classes: int = 0, shapes: int = 0
) -> tuple[Task, StepProgram, Any]:
    """Task, program of the training step over `devices`, and optimizer.

    Args:
      config: of the experiment.
      devices: that share a batch.
      classes: of the task; 0 is the model's own number.
      shapes: which of the task's `batch_shapes`.
    """
    mesh = sharding.make_mesh(fsdp=config.mesh.fsdp, devices=devices)
    preflight.check_batch_size(
        config.batch_size, devices=mesh.size, hosts=1, accumulation=config.accumulation
    )
    task = experiment.published_task(config, classes=classes, constrain=sharding.constrain_rows(mesh))
    schedule = experiment.learning_rate(config, EXAMPLES)
    params = jax.eval_shape(task.init, jax.random.key(0))[0]
    optimizer = make_optimizer(
        params,
        schedule=schedule,
        **experiment.optimizer_numbers(config),
        **experiment.optimizer_rules(config, task, params),
    )
    program = step_program(
        task,
        optimizer,
        schedule,
        mesh=mesh,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        ema=experiment.ema(config),
        rules=config.mesh.rules,
        seed=config.seed,
        shapes=shapes,
    )
    return task, program, optimizer


def compile_for(config: Config, topology: str) -> None:
    """Prints what the compiler says of the experiment's step on a described slice, for every shape of its batches."""
    devices, hbm = described.describe(topology)
    task, program, _ = build(config, devices, CLASSES.value)
    for shapes in range(len(task.batch_shapes)):
        if shapes:
            _, program, _ = build(config, devices, CLASSES.value, shapes)
        height, width = program.batch["image"].shape[1:3]
        cli.say(f"compiling for {topology}, {height} x {width}; this takes minutes")
        found = compiling.compile_described(program, hbm)
        title = f"{config.model.name}, {config.batch_size} images of {height} x {width} a step, on {topology}"
        print(json.dumps(compiling.as_json(title, found)) if JSON.value else compiling.report(title, found))


def measure_speed(config: Config) -> None:
    """Times inference and training step on one device and prints them as they are found, timm's beside them."""
    device = sharding.select_devices(PLATFORM.value or None)[0]
    if CLOCK.value == "cpu" and device.platform != "cpu":
        raise ValueError(f"--clock=cpu measures the CPU alone, but the model runs on {device.device_kind}")
    if not JSON.value:
        print(
            f"{config.model.name}, batch {config.batch_size}, {config.model.dtype}; {device.device_kind}, "
            f"{host.machine()}, jax {jax.__version__}; {CLOCK.value} time",
            flush=True,
        )
    libraries = ("timm",) if timm_is_comparable(config, device.platform) else ()
    for timings in timings_of(config, libraries):
        if not JSON.value:
            print(speed.table(timings), flush=True)
            continue
        for timing in timings:
            facts = {"model": config.model.name, "batch_size": config.batch_size}
            print(json.dumps(facts | speed.as_json(timing)), flush=True)


def timings_of(config: Config, libraries: Sequence[str]) -> Iterator[list[speed.Timing]]:
    """Inference, then the training step, each beside the model of `libraries`, in turns within one run."""
    device = sharding.select_devices(config.mesh.platform or PLATFORM.value or None)[0]
    task, program, optimizer = build(config, [device], CLASSES.value)
    size = program.batch["image"].shape[1], program.batch["image"].shape[2]

    def peer(library: str) -> torch_peer.Peer:
        return torch_peer.Peer(
            config.model.name,
            batch_size=config.batch_size,
            size=size,
            num_classes=task.model.num_classes,
            drop_path_rate=config.model.drop_path_rate or 0.0,
            platform=device.platform,
            bfloat16=config.model.dtype == "bfloat16",
            library=library,
        )

    def training() -> speed.Contender:
        return speed.training_step(create_state(task, optimizer, config.seed, program.shardings), program)

    for work, ours in (("inference", partial(speed.inference, task, program)), ("training", training)):
        contenders = {speed.OURS: ours()}
        for library in libraries:
            compile_too = device.platform == "gpu" and library == "timm"
            contenders |= speed.peers(partial(peer, library), work, compile_too=compile_too, library=library)
        yield speed.measure(
            work,
            contenders,
            config.batch_size,
            repeats=REPEATS.value,
            seconds=SECONDS.value,
            clock=CLOCK.value,
        )


def measure_loader(config: Config) -> list[dict[str, Any]]:
    """Times the experiment's input pipeline and prints it, timm's with the published recipe beside it."""
    if config.task != "classification":
        raise ValueError(f"--loader reads pictures for classifiers; the experiment's task is {config.task}")
    from swin_jax import inputs  # needs the data libraries, as nothing else here does
    from swin_jax.data.examples import ClassificationTrain
    from swin_jax.data.photographs import write_photographs

    with tempfile.TemporaryDirectory() as made:
        if not config.data.root:
            write_photographs(Path(made), PHOTOGRAPHS)
            with config.unlocked():
                config.data.update(source="folder", root=made, train_split="train")
        source = inputs.open_source(config.data.source, config.data.train_split, root=config.data.root)
        example = cast(ClassificationTrain, inputs.train_example(config))
        workers = config.data.workers or os.cpu_count() or 1
        batch_size = min(config.batch_size, LARGEST_LOADER_BATCH)
        threads, seed = config.data.threads if config.data.workers else 1, config.seed

        def ours() -> Iterator[Any]:
            return inputs.train_batches(
                source, example, batch_size=batch_size, seed=seed, workers=workers, threads=threads
            )

        def timms() -> Iterator[Any]:
            return torch_peer.training_batches(
                source,
                size=example.size,
                batch_size=batch_size,
                workers=workers,
                num_classes=create_model(config.model.name).num_classes,
            )

        loaders: dict[str, Callable[[], Iterator[Any]]] = {speed.OURS: ours}
        if compares(torch_peer.missing()):
            loaders["timm"] = timms
        batches = max(round(SECONDS.value * 200 * workers / batch_size), 2 * workers)
        readings = loading.measure(
            loaders, batch_size=batch_size, batches=batches, warmup=4 * workers, repeats=REPEATS.value
        )
    if JSON.value:
        for reading in readings:
            print(json.dumps(loading.as_json(reading)))
    else:
        print(
            f"{example.size[0]} x {example.size[1]}, batch {batch_size}, {workers} processes, {host.machine()}"
        )
        print(loading.table(readings))
    return [loading.as_json(reading) for reading in readings]


def timm_is_comparable(config: Config, platform: str) -> bool:
    """Whether timm has the same model here; says on stderr why not."""
    changed = [name for name in ARCHITECTURE if config.model[name] is not None]
    if not COMPARE.value:
        reason = ""
    elif platform == "tpu":
        reason = "it does not run on TPUs"
    elif changed:
        reason = f"the experiment sets model.{changed[0]}"
    else:
        reason = torch_peer.lacking(config.model.name)
    return compares(reason)


def compares(obstacle: str) -> bool:
    """Whether --compare is on and nothing stands against it; says on stderr what does."""
    if COMPARE.value and obstacle:
        cli.say(f"the comparison with timm is left out: {obstacle}")
    return COMPARE.value and not obstacle


if __name__ == "__main__":
    cli.run(main)
