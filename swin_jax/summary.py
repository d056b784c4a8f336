"""Prints what there is: every registered model, or one experiment's recipe.

Examples:
  python -m swin_jax.summary
  python -m swin_jax.summary --json
  python -m swin_jax.summary --config=experiments/imagenet1k.py:swin_tiny
  python -m swin_jax.summary --config=experiments/own_images.py --examples=2040 --steps=0,100,500

Without --config: parameters and multiply-accumulates of the models beside the published figures; with --json one
object a line, with the keys model, image_size, classes, params, macs; image_size is the side of the published square
picture, or [height, width]. MACs of Swins follow the formula of the official code; those of other classifiers count
products with weights and those of attention, without the class token, as the published ones do; those of segmenters
count products with weights alone, auxiliary head included; those of detectors count attention's products too, with 1000
proposals and 100 detections.

With --config: model, pictures, length in steps, scale of the learning rate, the rate at ten steps in both conventions
of where a cosine begins, and the parameters by weight decay; with --json one object. --examples is the size of the
training split; that of ImageNet-1K and -22K is known.

Nothing is allocated and no data are opened: parameters are counted on shapes.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import flags

from swin_jax import cli, experiment
from swin_jax.config import Config
from swin_jax.models import detectors, registry, segmenters
from swin_jax.models.classifier_complexity import classifier_macs
from swin_jax.models.detector_complexity import detector_macs
from swin_jax.models.segmenter_complexity import upernet_macs
from swin_jax.tasks.classification import Classification
from swin_jax.training.optimizer import groups_table, parameter_groups, parameter_rules
from swin_jax.training.schedules import Schedule

CONFIG = cli.config_flag()
JSON = cli.json_flag()
EXAMPLES = flags.DEFINE_integer(
    "examples", None, "With --config: examples of the training split.", lower_bound=1
)
STEPS = flags.DEFINE_list(
    "steps", [], "With --config: steps whose learning rate to print; else ten are chosen."
)

IMAGENET_1K, IMAGENET_22K = 1_281_167, 14_197_122
"""Pictures of the training sets (Russakovsky et al., 2015; of all of ImageNet, its own statistics)."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What is printed of one model; `image_size` is the side of its picture in pixels, or height and width."""

    model: str
    image_size: int | tuple[int, int]
    classes: int
    params: int
    macs: int


def summarize(name: str) -> Row:
    """Counts the parameters and multiply-accumulates of one of `names()`."""
    if name in segmenters.segmenter_names():
        segmenter = segmenters.create_segmenter(name)
        size = segmenters.PUBLISHED_SIZE
        return Row(name, size, segmenter.num_classes, _parameters(segmenter), upernet_macs(segmenter, *size))
    if name in detectors.detector_names():
        detector = detectors.create_detector(name)
        size = detectors.PUBLISHED_SIZE
        return Row(name, size, detector.num_classes, _parameters(detector), detector_macs(detector, *size))
    model = registry.create_model(name)
    height, width = registry.preprocessing(name).size
    macs = classifier_macs(model, height, width)
    return Row(name, height, model.num_classes, _parameters(model, registry.picture_size(model)), macs)


def names() -> tuple[str, ...]:
    """Every classifier, then every segmenter, then every detector."""
    return registry.model_names() + segmenters.segmenter_names() + detectors.detector_names()


def table(rows: list[Row]) -> str:
    """The rows as text, ours and the published figure side by side."""
    lines = [
        f"{'model':<36}{'image':>10}{'classes':>9}{'params':>14}{'published':>11}{'MACs':>10}{'published':>11}"
    ]
    for row in rows:
        figures = _published(row.model)
        lines.append(
            f"{row.model:<36}{_size(row.image_size):>10}{row.classes:>9}{row.params:>14,}"
            f"{_rounded(figures.params, 1e6, 'M'):>11}{row.macs / 1e9:>9.3f}G"
            f"{_rounded(figures.macs, 1e9, 'G', '.1f'):>11}"
        )
    return "\n".join(lines)


def _published(name: str) -> registry.Published:
    if name in segmenters.segmenter_names():
        return segmenters.published(name)
    return detectors.published(name) if name in detectors.detector_names() else registry.published(name)


def recipe(config: Config, *, examples: int | None = None, steps: Sequence[int] = ()) -> dict[str, Any]:
    """What an experiment does, in figures; all values are JSON's.

    Args:
      config: of the experiment. Its model has as many classes as its name was published with.
      examples: of the training split; None for ImageNet's.
      steps: 0-based indices of the updates whose learning rate is wanted; none chooses ten.

    Raises:
      ValueError: a field of the config makes no sense, `examples` is needed, or a step is outside the run.
    """
    return figures(config, examples=examples, steps=steps) | parameters(config)


def parameters(config: Config) -> dict[str, Any]:
    """The part of `recipe` that counts parameters, on the shapes of the whole model."""
    task = _task(config)
    params = jax.eval_shape(task.init, jax.random.key(0))[0]
    rules = parameter_rules(params, **experiment.optimizer_rules(config, task, params))
    groups = parameter_groups(params, rules)
    return {
        "params": sum(group.values for group in groups),
        "groups": [dataclasses.asdict(group) for group in groups],
        "groups_table": groups_table(groups),
    }


def figures(config: Config, *, examples: int | None = None, steps: Sequence[int] = ()) -> dict[str, Any]:
    """The part of `recipe` that follows from the config's numbers. Arguments and errors as there."""
    model = cast(registry.Classifier, _task(config).model)
    examples = examples or known_examples(config)
    schedule = experiment.learning_rate(config, examples)
    run = experiment.durations(config, examples)
    pictures = experiment.pictures_of(config)
    return {
        "model": config.model.name,
        "classes": model.num_classes,
        "macs": classifier_macs(model, *pictures.size),
        "drop_path_rate": model.drop_path_rate,
        "size": list(pictures.size),
        "resize": list(pictures.resize) if isinstance(pictures.resize, tuple) else pictures.resize,
        "interpolation": pictures.interpolation,
        "examples": examples,
        "batch_size": config.batch_size,
        "accumulation": config.accumulation,
        "steps": run.total,
        "epochs": run.total * config.batch_size / examples,
        "warmup_steps": run.warmup,
        "label_smoothing": config.loss.label_smoothing,
        "optimizer": experiment.optimizer_numbers(config),
        "schedule": schedule.kind,
        "lr_scale": config.batch_size / config.schedule.scale_per if config.schedule.scale_per else 1.0,
        "peak": schedule.peak,
        "warmup_start": schedule.warmup_start,
        "end": schedule.end,
        "warmup_prefix": schedule.warmup_prefix,
        "reference_offset": schedule.reference_offset,
        "rates": rates(schedule, steps or chosen_steps(schedule), config.batch_size / examples),
    }


def _task(config: Config) -> Classification:
    """Raises ValueError where the experiment is of another task."""
    if config.task != "classification":
        raise ValueError(f"--config describes experiments in classification; the task here is {config.task}")
    return cast(Classification, experiment.published_task(config))


def known_examples(config: Config) -> int:
    """The size of ImageNet's training splits. Raises ValueError for other data."""
    if registry.create_model(config.model.name).num_classes == 21841:
        return IMAGENET_22K
    if config.data.source == "tfds:imagenet2012":
        return IMAGENET_1K
    raise ValueError(
        f"how many examples the training split of data.source={config.data.source} has is not known; give --examples"
    )


def chosen_steps(schedule: Schedule) -> list[int]:
    """Ten steps (fewer in the shortest runs): the ends, the warm-up and its end, and the way down."""
    total, warmup = schedule.total_steps, schedule.warmup_steps
    first = (
        [0, 1, warmup // 2, warmup - 1, warmup]
        if warmup > 3
        else [0, 1, total // 100, total // 20, total // 10]
    )
    rest = [total // 4, total // 2, 3 * total // 4, 9 * total // 10, total - 1]
    return sorted({step for step in first + rest if 0 <= step < total})


def rates(schedule: Schedule, steps: Sequence[int], epochs_per_step: float) -> list[dict[str, Any]]:
    """The learning rate at each step; where the schedule has a choice, in both conventions of its beginning."""
    if not all(0 <= step < schedule.total_steps for step in steps):
        raise ValueError(f"--steps are {list(steps)}; the run's go from 0 to {schedule.total_steps - 1}")
    both = schedule.kind in ("cosine", "linear") and schedule.warmup_steps and schedule.warmup_ratio is None
    choices = {"after_warmup": True, "from_step_0": False} if both else {}
    conventions = {
        name: dataclasses.replace(schedule, warmup_prefix=prefix) for name, prefix in choices.items()
    }
    return [
        {"step": step, "epoch": step * epochs_per_step, "rate": float(schedule(step))}
        | {name: float(other(step)) for name, other in conventions.items()}
        for step in steps
    ]


def recipe_text(found: dict[str, Any]) -> str:
    """`recipe` for a reader."""
    height, width = found["size"]
    resize = found["resize"]
    whole = f"whole, resized to {resize[0]} x {resize[1]}" if isinstance(resize, list) else None
    centre = whole or f"centre of the picture with shorter side {resize}"
    others = (
        "name",
        *(("momentum", "nesterov") if found["optimizer"]["name"] == "adamw" else ("b1", "b2", "eps")),
    )
    numbers = ", ".join(f"{name} {value}" for name, value in found["optimizer"].items() if name not in others)
    offset = ", one step late as the released code" if found["reference_offset"] else ""
    facts = {
        "model": f"{found['model']}: {found['params']:,} parameters, {found['macs'] / 1e9:.3f} G multiply-accumulates, "
        f"{found['classes']:,} classes, drop path {found['drop_path_rate']:g}",
        "pictures": f"{height} x {width}; evaluation: {centre}, {found['interpolation']}",
        "examples": f"{found['examples']:,} an epoch; batch {found['batch_size']:,}"
        f" in {found['accumulation']} micro-batch{'es' * (found['accumulation'] > 1)}",
        "length": f"{found['steps']:,} steps = {found['epochs']:.6g} epochs, {found['warmup_steps']:,} of them warm-up",
        "rate": f"{found['schedule']}, peak {found['peak']:.6g}, warm-up from {found['warmup_start']:.6g}, "
        f"end {found['end']:.6g} (the config's values x {found['lr_scale']:g}){offset}",
        "optimizer": f"{found['optimizer']['name']}: {numbers}",
        "loss": f"cross-entropy, label smoothing {found['label_smoothing']:g}",
    }
    lines = [f"{name:<10} {text}" for name, text in facts.items()]
    return "\n".join([*lines, "", *_rates_lines(found), "", found["groups_table"]])


def _rates_lines(found: dict[str, Any]) -> list[str]:
    conventions = [name for name in ("after_warmup", "from_step_0") if name in found["rates"][0]]
    used = "after_warmup" if found["warmup_prefix"] else "from_step_0"
    heads = [
        f"{found['schedule']} {name.replace('_', ' ')}" + " (used)" * (name == used) for name in conventions
    ]
    lines = [f"{'step':>10}{'epoch':>10}" + "".join(f"{head:>28}" for head in heads or ["rate"])]
    for rate in found["rates"]:
        values = [rate[name] for name in conventions or ["rate"]]
        lines.append(
            f"{rate['step']:>10,}{rate['epoch']:>10.3f}" + "".join(f"{value:>28.6e}" for value in values)
        )
    return lines


def main(argv: Sequence[str]) -> None:
    """Prints the models or, with --config, a recipe."""
    del argv
    with cli.one_sentence():
        config = cli.config(CONFIG)
        if config is not None:
            _print_recipe(config)
            return
        if EXAMPLES.value or STEPS.value:
            raise ValueError("--examples and --steps belong to --config, which is missing")
    if JSON.value:
        for name in names():
            print(json.dumps(dataclasses.asdict(summarize(name))), flush=True)
    else:
        print(table([summarize(name) for name in names()]))


def _parameters(model: nn.Module, size: tuple[int, int] = (32, 32)) -> int:
    # Parameters do not depend on the picture; a small one is quicker to trace.
    picture = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), picture)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def _size(image_size: int | tuple[int, int]) -> str:
    return str(image_size) if isinstance(image_size, int) else "x".join(map(str, image_size))


def _print_recipe(config: Config) -> None:
    if not all(step.isdigit() for step in STEPS.value):
        raise ValueError(f"--steps is {','.join(STEPS.value)}; give step numbers such as 0,100,500")
    found = recipe(config, examples=EXAMPLES.value, steps=[int(step) for step in STEPS.value])
    if JSON.value:
        print(json.dumps({name: value for name, value in found.items() if name != "groups_table"}))
    else:
        print(recipe_text(found))


def _rounded(figure: float | None, unit: float, symbol: str, form: str = "g") -> str:
    return "-" if figure is None else f"{figure / unit:{form}}{symbol}"


if __name__ == "__main__":
    cli.run(main)
