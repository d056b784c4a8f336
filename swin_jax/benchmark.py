"""Measures speed and memory: of a model, of an experiment's input pipeline, of its step on TPUs that are not here.

    python -m swin_jax.benchmark --model=swin_tiny_patch4_window7_224 --batch_size=8
    python -m swin_jax.benchmark --config=experiments/imagenet1k.py:swin_tiny --batch_size=128
    python -m swin_jax.benchmark --config=experiments/imagenet1k.py:swin_tiny --config.model.scan --compile-for=v5e:4x4
    python -m swin_jax.benchmark --config=experiments/imagenet1k.py:swin_tiny --loader

Without further options: inference and the training step on one device, and timm's beside them where torch and timm
are installed, in turns within one run. Every figure is the median (least .. greatest) of --repeats. On a machine with
other work, compare on one core by CPU time: OMP_NUM_THREADS=1 taskset -c 0 python -m swin_jax.benchmark --clock=cpu.

--compile-for compiles the experiment's training step for a described slice, as it would run there over all chips, and
prints the memory of a chip, HBM bytes and matrix FLOPs of an image, and the collectives. It needs libtpu
(`pip install "jax[tpu]"`) and no TPU; minutes. Set --config.model.scan to spare most of them.

--loader reads pictures as the experiment would and prints images per second of CPU time, timm's loader beside it.
Pictures are the experiment's if --config.data.root is set, else 500 x 375 JPEGs made for the measurement.
"""

import json
import os
import platform as host
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import jax
from absl import flags

from swin_jax import cli, experiment
from swin_jax.config import Config, base_config
from swin_jax.measure import compiling, described, loading, speed, torch_peer
from swin_jax.measure.step import StepProgram, step_program
from swin_jax.measure.timing import CLOCKS
from swin_jax.models.registry import create_model
from swin_jax.tasks.task import Task
from swin_jax.training import preflight, sharding
from swin_jax.training.optimizer import make_optimizer
from swin_jax.training.state import create_state

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


def main(_: Sequence[str]) -> None:
    with cli.one_sentence(ValueError):
        config = chosen_config()
        if LOADER.value:
            measure_loader(config)
        elif COMPILE_FOR.value:
            compile_for(config, COMPILE_FOR.value)
        else:
            measure_speed(config)


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
    """Times inference and training step on one device and prints them, timm's beside them."""
    device = sharding.select_devices(PLATFORM.value or None)[0]
    if CLOCK.value == "cpu" and device.platform != "cpu":
        raise ValueError(f"--clock=cpu measures the CPU alone, but the model runs on {device.device_kind}")
    task, program, optimizer = build(config, [device], CLASSES.value)
    batch_size, bfloat16 = config.batch_size, config.model.dtype == "bfloat16"
    size = program.batch["image"].shape[1], program.batch["image"].shape[2]
    if not JSON.value:
        print(
            f"{config.model.name}, {size[0]} x {size[1]}, batch {batch_size}, {config.model.dtype}; "
            f"{device.device_kind}, {host.machine()}, jax {jax.__version__}; {CLOCK.value} time"
        )

    def peer() -> torch_peer.Peer:
        return torch_peer.Peer(
            config.model.name,
            batch_size=batch_size,
            size=size,
            num_classes=task.model.num_classes,
            drop_path_rate=config.model.drop_path_rate or 0.0,
            platform=device.platform,
            bfloat16=bfloat16,
        )

    compared = timm_is_comparable(config, device.platform)
    state = create_state(task, optimizer, config.seed, program.shardings)
    timings = []
    for work, ours in (
        ("inference", speed.inference(task, program)),
        ("training", speed.training_step(state, program)),
    ):
        contenders = {speed.OURS: ours}
        if compared:
            contenders |= speed.peers(peer, work, compile_too=device.platform == "gpu")
        timings += speed.measure(
            work, contenders, batch_size, repeats=REPEATS.value, seconds=SECONDS.value, clock=CLOCK.value
        )
    if JSON.value:
        for timing in timings:
            print(json.dumps({"model": config.model.name, "batch_size": batch_size, **speed.as_json(timing)}))
    else:
        print(speed.table(timings))


def measure_loader(config: Config) -> None:
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
