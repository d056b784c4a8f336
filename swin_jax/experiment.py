"""The pieces that train, evaluate and predict build from a config.

The only place that reads one. What it hands on are keyword arguments.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.config import Config
from swin_jax.data.examples import ClassificationEval, ClassificationTrain, Example
from swin_jax.data.labels import LabelCoding
from swin_jax.data.pipeline import (
    Buckets,
    check_repeats,
    eval_batches,
    find_buckets,
    row_fields,
    train_batches,
)
from swin_jax.data.sources import Source, open_source
from swin_jax.models.registry import Preprocessing, create_model, preprocessing
from swin_jax.ops.augment import Augmentation, Erasing, Mixing, mixing_group, parse_policy
from swin_jax.setups import segmentation
from swin_jax.tasks.classification import Classification
from swin_jax.tasks.task import Task
from swin_jax.training.ema import Ema
from swin_jax.training.preflight import duration, nearest
from swin_jax.training.schedules import Schedule, make_schedule, scale_lr
from swin_jax.training.sharding import path_name

EMA = "ema/"  # before the names of metrics of the averaged parameters
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Data:
    """The opened splits of an experiment and how their records become rows of a batch."""

    train: Source
    evaluation: Source
    train_example: Example
    eval_example: Example
    config: Config

    @property
    def coding(self) -> LabelCoding | None:
        """What the values of label maps mean, where the data have them."""
        return getattr(self.train, "coding", None)

    @cached_property
    def buckets(self) -> Buckets:
        """What decides the shapes of each evaluation example.

        Raises:
            ValueError: there are more than `evaluation.max_shapes`.
        """
        buckets = find_buckets(self.evaluation, self.eval_example, threads=self.config.data.threads)
        shapes, most = len(set(buckets)), self.config.evaluation.max_shapes
        if most and shapes > most:
            raise ValueError(
                f"the evaluation pictures have {shapes} sizes and evaluation.max_shapes is {most}: a program is "
                "compiled for each; allow more, or resize to multiples with evaluation.size_multiple=32"
            )
        return buckets

    @property
    def identity(self) -> dict[str, Any]:
        """What the run is trained and evaluated on; a run is not resumed on other data."""
        fingerprint = {"train": self.train.fingerprint, "evaluation": self.evaluation.fingerprint}
        return {"data_identity": self.train.identity, "data_fingerprint": fingerprint}

    def fields(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """What a batch holds: field -> (shape of a row, dtype), from the first record that can be read."""
        added = {"example_index": ((), "uint32"), "valid": ((), "bool")}
        return row_fields(self.train, self.train_example) | added

    def train_batches(self, start_step: int, host: int, hosts: int) -> Iterator[dict[str, np.ndarray]]:
        """This host's rows of the global batches from `start_step` on, without end."""
        data = self.config.data
        return train_batches(
            self.train,
            self.train_example,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            host=host,
            hosts=hosts,
            workers=data.workers,
            threads=data.threads,
            max_unreadable=data.max_unreadable,
            repeats=data.repeats,
        )

    def eval_batches(self, host: int, hosts: int, devices: int) -> Iterator[dict[str, np.ndarray]]:
        """This host's rows of the evaluation batches; their size is rounded up to a multiple of `devices`."""
        return evaluation_batches(self.config, self.evaluation, host, hosts, devices, buckets=self.buckets)


def evaluation_batches(
    config: Config, source: Source, host: int, hosts: int, devices: int, *, buckets: Buckets | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """As `Data.eval_batches`, of any source."""
    return eval_batches(
        source,
        eval_example(config),
        batch_size=-(-config.evaluate_batch_size // devices) * devices,
        host=host,
        hosts=hosts,
        workers=config.data.workers,
        threads=config.data.threads,
        buckets=buckets,
    )


def open_data(config: Config, *, eval_split: str | None = None) -> Data:
    """Opens both splits. Raises ValueError naming what is missing or does not fit."""
    data = config.data
    check_repeats(data.repeats)
    root = data.root or None
    opener = setup_of(config).open_source
    train = opener(data.source, data.train_split, root=root)
    evaluation = opener(data.source, eval_split or data.eval_split, root=root)
    return Data(train, evaluation, train_example(config), eval_example(config), config)


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
    """The published preprocessing of the model with the config's own fields over it."""
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


def train_example(config: Config) -> Example:
    return setup_of(config).train_example(config)


def eval_example(config: Config) -> Example:
    return setup_of(config).eval_example(config)


def _classification_train(config: Config) -> ClassificationTrain:
    pictures = pictures_of(config)
    return ClassificationTrain(
        size=pictures.size,
        scale=config.data.crop_scale,
        ratio=config.data.crop_ratio,
        interpolation=pictures.interpolation,
        pad_crop=config.data.pad_crop,
    )


def _classification_eval(config: Config) -> ClassificationEval:
    pictures = pictures_of(config)
    return ClassificationEval(
        size=pictures.size, resize=pictures.resize, interpolation=pictures.interpolation
    )


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
    return setup_of(config).make_task(config, class_names, coding, fields)


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
    """The pieces of an experiment that differ between tasks.

    Attributes:
        open_source: (kind, split, root) -> the examples of a split.
        train_example: what becomes of a record in training.
        eval_example: and in evaluation.
        make_task: (config, class names, coding of label maps, fields of the model) -> the task.
        metric: of an evaluation, that ranks checkpoints.
    """

    open_source: Callable[..., Source]
    train_example: Callable[[Config], Example]
    eval_example: Callable[[Config], Example]
    make_task: Callable[[Config, tuple[str, ...], LabelCoding | None, dict[str, Any]], Task]
    metric: str


SETUPS = {
    "classification": Setup(
        open_source, _classification_train, _classification_eval, _classification, Classification.best_metric
    ),
    "segmentation": Setup(
        segmentation.open_source,
        segmentation.train_example,
        segmentation.eval_example,
        segmentation.make_task,
        segmentation.Segmentation.best_metric,
    ),
}


def setup_of(config: Config) -> Setup:
    """Raises ValueError for an unknown task."""
    if config.task not in SETUPS:
        raise ValueError(f"task is {config.task!r}; {nearest(config.task, SETUPS)}")
    return SETUPS[config.task]


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
    metric = setup_of(config).metric
    return f"{EMA}{metric}" if config.ema.decay else metric
