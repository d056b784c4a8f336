"""What the verbs build from a config: model, task, schedule, optimizer. Its data are in `swin_jax.inputs`.

These two alone read one. What they hand on are keyword arguments. Nothing here needs the data libraries.
"""

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from swin_jax.config import Config, base_config, config_fields, get_field
from swin_jax.data.labels import LabelCoding
from swin_jax.models.detectors import create_detector
from swin_jax.models.registry import Preprocessing, create_model, preprocessing
from swin_jax.models.segmenters import create_segmenter
from swin_jax.ops.augment import Augmentation, Erasing, Mixing, mixing_group, parse_policy
from swin_jax.setups import detection, segmentation
from swin_jax.tasks.classification import Classification
from swin_jax.tasks.task import Task
from swin_jax.training.ema import Ema
from swin_jax.training.preflight import duration, nearest
from swin_jax.training.schedules import Schedule, make_schedule, scale_lr
from swin_jax.training.sharding import path_name

EMA = "ema/"  # before the names of metrics of the averaged parameters
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check_classes(config: Config, class_names: tuple[str, ...]) -> None:
    """Models take their number of classes from the data; one named after ImageNet-22K is held to its name.

    Raises:
        ValueError: the data have another number.
    """
    name = config.model.name
    if name.endswith("_22k") and len(class_names) != (published := create_model(name).num_classes):
        raise ValueError(
            f"model.name is {name!r}, which has {published} classes, but the data have {len(class_names)}; "
            f"name {name.removesuffix('_22k')!r}, or give data of ImageNet-22K"
        )


def pictures_of(config: Config) -> Preprocessing:
    """The published preprocessing of the model with the config's own fields over it.

    Of a segmenter: the size of its crops, and as `resize` the size that pictures are fitted into; of a detector that of
    its canvas.
    """
    if config.task in (other := {"segmentation": segmentation, "detection": detection}):
        return other[config.task].pictures_of(config)
    published = preprocessing(config.model.name)
    own = {
        field: config.data[field]
        for field in ("size", "resize", "interpolation")
        if config.data[field] is not None
    }
    if "size" in own and "resize" not in own:
        # Another size keeps the published ratio of resize to crop.
        (side, _), resize = published.size, published.resize
        own["resize"] = min(own["size"]) * resize // side if isinstance(resize, int) else tuple(own["size"])
    return dataclasses.replace(published, **own)


def make_task(
    config: Config, class_names: tuple[str, ...], *, coding: LabelCoding | None = None, **model_fields: Any
) -> Task:
    """The task with its model. Raises ValueError for an unknown task, model, field or dtype.

    Args:
        config: of the experiment.
        class_names: in the order of the class numbers.
        coding: of label maps, for their colours.
        **model_fields: beside those of the config.
    """
    if config.model.dtype not in DTYPES:
        raise ValueError(f"model.dtype is {config.model.dtype!r}; {nearest(config.model.dtype, DTYPES)}")
    fields = {
        name: value
        for name, value in config.model.items()
        if name not in ("name", "dtype") and value is not None
    }
    fields |= {"dtype": DTYPES[config.model.dtype], **model_fields}
    setup = setup_of(config)
    _check_unused(config, setup.unused)
    return setup.make_task(config, class_names, coding, fields)


def _check_unused(config: Config, unused: tuple[str, ...]) -> None:
    """Raises ValueError where a field asks for what the task does not do."""
    defaults = base_config()
    for field in config_fields():
        if field.startswith(unused) and get_field(config, field) != (default := get_field(defaults, field)):
            raise ValueError(
                f"{field} is {get_field(config, field)!r}, but the task {config.task} has no use for it; "
                f"leave it at {default!r}"
            )


def _classification(
    config: Config, class_names: tuple[str, ...], _: LabelCoding | None, model_fields: dict[str, Any]
) -> Classification:
    model = create_model(config.model.name, num_classes=len(class_names), **model_fields)
    pictures = pictures_of(config)
    return Classification(
        model=model,
        image_size=pictures.size,
        class_names=class_names,
        mean=pictures.mean,
        std=pictures.std,
        label_smoothing=config.loss.label_smoothing,
        augmentation=make_augmentation(config),
    )


def make_augmentation(config: Config) -> Augmentation:
    """What training pictures undergo. Raises ValueError for a policy or number that is wrong."""
    fields = config.augment
    erasing = Erasing(fields.erase_probability, fields.erase_area, fields.erase_aspect)
    mixing = None
    if fields.mixup_alpha or fields.cutmix_alpha:
        mixing = Mixing(fields.mixup_alpha, fields.cutmix_alpha, fields.mix_probability, fields.mix_switch)
        mixing_group(config.batch_size)
    return Augmentation(
        flip=fields.flip,
        policy=parse_policy(fields.rand_augment) if fields.rand_augment else None,
        three_augment=fields.three_augment,
        color_jitter=fields.color_jitter,
        erasing=erasing if erasing.probability else None,
        mixing=mixing,
    )


@dataclasses.dataclass(frozen=True)
class Setup:
    """What of an experiment depends on its task; `inputs` has what its data depend on.

    Attributes:
        make_task: (config, class names, coding of label maps, fields of the model) -> the task.
        classes: name of a model -> how many it was published with.
        metric: the config -> what of an evaluation ranks checkpoints.
        unused: fields, or groups of them, that only other tasks read.
    """

    make_task: Callable[[Config, tuple[str, ...], LabelCoding | None, dict[str, Any]], Task]
    classes: Callable[[str], int]
    metric: Callable[[Config], str]
    unused: tuple[str, ...]


OF_CLASSIFICATION = (
    "data.resize",
    "data.interpolation",
    "data.crop_scale",
    "data.crop_ratio",
    "data.pad_crop",
    "augment.rand_augment",
    "augment.three_augment",
    "augment.color_jitter",
    "augment.erase_probability",
    "augment.mixup_alpha",
    "augment.cutmix_alpha",
)
OF_SEGMENTATION = (
    "data.ratio_range",
    "data.largest_share",
    "augment.photometric",
    "loss.auxiliary_weight",
    "loss.mean",
    "evaluation.window",
    "evaluation.stride",
    "evaluation.size_multiple",
    "evaluation.canvas",
)
OF_DETECTION = (
    "data.short_sides",
    "data.crop_probability",
    "data.crop_short_sides",
    "data.crop_range",
    "data.long_side",
    "data.max_boxes",
    "data.mask_size",
    "data.instaboost",
    "detection.",
)
OF_DENSE = ("data.scale", "evaluation")
SETUPS = {
    "classification": Setup(
        make_task=_classification,
        classes=lambda name: create_model(name).num_classes,
        metric=lambda config: Classification.best_metric,
        unused=(*OF_SEGMENTATION, *OF_DETECTION, *OF_DENSE),
    ),
    "segmentation": Setup(
        make_task=segmentation.make_task,
        classes=lambda name: create_segmenter(name).num_classes,
        metric=lambda config: segmentation.Segmentation.best_metric,
        unused=(*OF_CLASSIFICATION, *OF_DETECTION),
    ),
    "detection": Setup(
        make_task=detection.make_task,
        classes=lambda name: create_detector(name).num_classes,
        metric=detection.metric_of,
        unused=(*OF_CLASSIFICATION, *OF_SEGMENTATION, "data.size", "data.repeats"),
    ),
}


def setup_of(config: Config) -> Setup:
    """Raises ValueError for an unknown task."""
    if config.task not in SETUPS:
        raise ValueError(f"task is {config.task!r}; {nearest(config.task, SETUPS)}")
    return SETUPS[config.task]


def published_task(config: Config, *, classes: int = 0, **model_fields: Any) -> Task:
    """The task with as many classes as its model was published with, or `classes`; errors as `make_task`."""
    count = classes or setup_of(config).classes(config.model.name)
    return make_task(config, tuple(map(str, range(count))), **model_fields)


@dataclasses.dataclass(frozen=True)
class Durations:
    """The durations of a run in steps."""

    total: int
    warmup: int
    evaluate_every: int
    checkpoint_every: int


def durations(config: Config, num_examples: int) -> Durations:
    steps = partial(duration, batch_size=config.batch_size, num_examples=num_examples)
    return Durations(
        total=max(steps("total", config.total), 1),
        warmup=steps("schedule.warmup", config.schedule.warmup),
        evaluate_every=max(steps("evaluate_every", config.evaluate_every), 1),
        checkpoint_every=max(steps("checkpoint_every", config.checkpoint_every), 1),
    )


def learning_rate(config: Config, num_examples: int) -> Schedule:
    """The schedule of the run, scaled to its batch size."""
    schedule = config.schedule
    steps = partial(duration, batch_size=config.batch_size, num_examples=num_examples)

    def scaled(rate: float) -> float:
        return scale_lr(rate, config.batch_size, per=schedule.scale_per) if schedule.scale_per else rate

    run = durations(config, num_examples)
    with_end = schedule.kind in ("cosine", "linear", "poly")
    return make_schedule(
        schedule.kind,
        peak=scaled(schedule.peak),
        total_steps=run.total,
        warmup_steps=run.warmup,
        warmup_start=None if schedule.warmup_ratio is not None else scaled(schedule.warmup_start),
        warmup_ratio=schedule.warmup_ratio,
        warmup_prefix=schedule.warmup_prefix,
        end=scaled(schedule.end) if with_end else None,
        power=schedule.power,
        decay_steps=None if schedule.decay is None else steps("schedule.decay", schedule.decay),
        decay_rate=schedule.decay_rate,
        milestones=[steps("schedule.milestones", text) for text in schedule.milestones],
        reference_offset=schedule.reference_offset,
    )


def optimizer_rules(config: Config, task: Task, params: Any) -> dict[str, Any]:
    """The arguments that say which parameter is decayed, frozen or slowed down."""
    fields = config.optimizer
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    held = tuple(f"^{re.escape(path)}$" for path in paths if task.model.frozen(path))
    return {
        "no_decay": fields.no_decay,
        "no_decay_1d": fields.no_decay_1d,
        "frozen": (*fields.frozen, *held),
        "layer_decay": fields.layer_decay,
        "layer_of": task.model.layer_of,
    }


def optimizer_numbers(config: Config) -> dict[str, Any]:
    fields = config.optimizer
    names = ("name", "weight_decay", "b1", "b2", "eps", "momentum", "nesterov")
    return {name: fields[name] for name in names} | {"clip_norm": fields.clip_norm or None}


def ema(config: Config) -> Ema | None:
    """How the run averages its parameters; None when it does not. Raises ValueError for what makes no sense."""
    return Ema(config.ema.decay, config.ema.warmup) if config.ema.decay or config.ema.warmup else None


def ranking(config: Config) -> str:
    """The evaluation metric that ranks checkpoints: of the average, where the run keeps one."""
    metric = setup_of(config).metric(config)
    return f"{EMA}{metric}" if config.ema.decay else metric
