"""An experiment: the fields of its config, and the pieces that train, evaluate and predict build from it.

The only place that reads a config. What it hands on are keyword arguments.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax.data.examples import ClassificationEval, ClassificationTrain
from swin_jax.data.pipeline import eval_batches, train_batches
from swin_jax.data.sources import Source, open_source
from swin_jax.models.registry import Preprocessing, create_model, preprocessing
from swin_jax.tasks.classification import Classification
from swin_jax.training import optimizer as optimizers
from swin_jax.training.preflight import duration, nearest
from swin_jax.training.schedules import Schedule, make_schedule, scale_lr
from swin_jax.training.sharding import path_name

# An `ml_collections.ConfigDict`: its fields are known to `base_config`, not to a type checker.
Config: TypeAlias = Any

TASKS = ("classification",)
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Fields that change where and how fast a run computes, or what it writes, but not one of its numbers: a run
# may be resumed with other values of these.
FREE_FIELDS = (
    "mesh",
    "data.root",
    "data.workers",
    "data.threads",
    "evaluate_batch_size",
    "evaluate_every",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "max_not_finite",
)


def base_config() -> Config:
    """Every field of a config with its default: the paper's ImageNet-1K recipe (A2.1) without augmentation.

    Durations are texts with a unit: "300 epochs", "5000 steps", "1e6 examples". Fields that are None take what
    the named model was published with.
    """
    config: Config = ConfigDict()
    config.task = "classification"
    config.seed = 0
    config.batch_size = 1024  # examples of one update, over all devices and micro-batches
    config.accumulation = 1  # micro-batches of one update
    config.total = "300 epochs"
    config.evaluate_every = "1 epoch"
    config.evaluate_batch_size = 256
    config.checkpoint_every = "1 epoch"
    config.keep_checkpoints = 2  # newest ones; the best is kept besides
    config.log_every = 50  # steps
    config.max_not_finite = 0  # steps that may be skipped for not being finite
    config.init_from = ""  # a run directory whose parameters the run begins with

    config.model = ConfigDict({"name": "swin_tiny_patch4_window7_224", "dtype": "bfloat16"})
    for field, kind in {
        "embed_dim": int,
        "depths": tuple,
        "num_heads": tuple,
        "window_size": int,
        "patch_size": int,
        "mlp_ratio": float,
        "drop_path_rate": float,
        "drop_rate": float,
        "attn_drop_rate": float,
        "qkv_bias": bool,
        "patch_norm": bool,
        "absolute_position_embedding": bool,
        "absolute_position_size": tuple,
        "window_policy": str,
        "frozen_stages": int,
        "remat": str,
        "implementation": str,
    }.items():
        config.model[field] = placeholder(kind)

    config.data = ConfigDict()
    config.data.source = "tfds:imagenet2012"  # "shapes/easy", "shapes/hard", "folder", "tfds:<name>"
    config.data.root = ""  # directory or zip of the data; "" is the source's own default
    config.data.train_split = "train"
    config.data.eval_split = "validation"
    config.data.size = placeholder(tuple)  # (height, width) of a training and evaluation picture
    config.data.resize = placeholder(object)  # shorter side, or (height, width), before the evaluation crop
    config.data.interpolation = placeholder(str)
    config.data.crop_scale = (0.08, 1.0)  # area of the random resized crop
    config.data.crop_ratio = (3 / 4, 4 / 3)
    config.data.pad_crop = 0  # > 0: random crop of the picture padded by so many pixels, for small pictures
    config.data.workers = 0  # processes that read and decode; 0 uses threads only
    config.data.threads = 8
    config.data.max_unreadable = 0  # pictures that may be replaced because they cannot be decoded

    config.augment = ConfigDict({"flip": 0.5})
    config.loss = ConfigDict({"label_smoothing": 0.1})

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.05
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.momentum = 0.9  # sgd only
    config.optimizer.nesterov = False  # sgd only
    config.optimizer.clip_norm = 5.0  # global norm; 0 does not clip
    config.optimizer.no_decay = optimizers.NO_DECAY_CLASSIFICATION
    config.optimizer.no_decay_1d = True
    config.optimizer.frozen = ()
    config.optimizer.layer_decay = placeholder(float)

    # Rates are those for 512 examples an update, as the published configs give them; `scale_per=0` takes them
    # as they stand.
    config.schedule = ConfigDict()
    config.schedule.kind = "cosine"
    config.schedule.peak = 5e-4
    config.schedule.end = 5e-6
    config.schedule.scale_per = 512
    config.schedule.warmup = "20 epochs"
    config.schedule.warmup_start = 5e-7
    config.schedule.warmup_ratio = placeholder(float)
    config.schedule.warmup_prefix = placeholder(bool)
    config.schedule.reference_offset = False
    config.schedule.power = placeholder(float)  # poly
    config.schedule.decay = placeholder(str)  # step: a duration
    config.schedule.decay_rate = placeholder(float)  # step, multistep
    config.schedule.milestones = ()  # multistep: durations

    config.mesh = ConfigDict({"platform": "", "fsdp": 1, "rules": ()})
    return config


def config_fields() -> list[str]:
    """The dotted name of every field of a config."""

    def names(node: Config, prefix: str) -> Iterator[str]:
        for name, value in node.items():
            if isinstance(value, ConfigDict):
                yield from names(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    return list(names(base_config(), ""))


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain JSON values: tuples become lists, placeholders their values."""
    return json.loads(json.dumps(config.to_dict()))


def from_dict(values: Mapping[str, Any]) -> Config:
    """The config that `to_dict` was given.

    Raises:
        ValueError: it has fields this version does not know, or not of their type.
    """
    config = base_config()
    try:
        _fill(config, values)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the config was written by another version: {error}") from error
    return config.lock()


def _fill(config: Config, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name not in config:
            raise KeyError(f"unknown field {name!r}")
        if isinstance(value, Mapping):
            _fill(config[name], value)
        else:
            config[name] = _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True)
class Data:
    """The opened splits of an experiment and how their records become rows of a batch."""

    train: Source
    evaluation: Source
    train_example: ClassificationTrain
    eval_example: ClassificationEval
    config: Config

    @property
    def identity(self) -> str:
        """What the run was trained on; a run is not resumed on other data."""
        return self.train.identity

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
        )

    def eval_batches(self, host: int, hosts: int, devices: int) -> Iterator[dict[str, np.ndarray]]:
        """This host's rows of the evaluation batches; their size is rounded up to a multiple of `devices`."""
        size = -(-self.config.evaluate_batch_size // devices) * devices
        data = self.config.data
        return eval_batches(
            self.evaluation,
            self.eval_example,
            batch_size=size,
            host=host,
            hosts=hosts,
            workers=data.workers,
            threads=data.threads,
        )


def open_data(config: Config, *, eval_split: str | None = None) -> Data:
    """Opens both splits. Raises ValueError naming what is missing or does not fit."""
    data = config.data
    root = data.root or None
    train = open_source(data.source, data.train_split, root=root)
    evaluation = open_source(data.source, eval_split or data.eval_split, root=root)
    return Data(train, evaluation, train_example(config), eval_example(config), config)


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


def train_example(config: Config) -> ClassificationTrain:
    pictures = pictures_of(config)
    return ClassificationTrain(
        size=pictures.size,
        scale=config.data.crop_scale,
        ratio=config.data.crop_ratio,
        interpolation=pictures.interpolation,
        pad_crop=config.data.pad_crop,
    )


def eval_example(config: Config) -> ClassificationEval:
    pictures = pictures_of(config)
    return ClassificationEval(
        size=pictures.size, resize=pictures.resize, interpolation=pictures.interpolation
    )


def make_task(config: Config, class_names: tuple[str, ...], **model_fields: Any) -> Classification:
    """The task with its model. Raises ValueError for an unknown task, model, field or dtype."""
    if config.task not in TASKS:
        raise ValueError(f"task is {config.task!r}; {nearest(config.task, TASKS)}")
    if config.model.dtype not in DTYPES:
        raise ValueError(f"model.dtype is {config.model.dtype!r}; {nearest(config.model.dtype, DTYPES)}")
    fields = {
        name: value
        for name, value in config.model.items()
        if name not in ("name", "dtype") and value is not None
    }
    model = create_model(
        config.model.name,
        num_classes=len(class_names),
        dtype=DTYPES[config.model.dtype],
        **fields,
        **model_fields,
    )
    pictures = pictures_of(config)
    return Classification(
        model=model,
        image_size=pictures.size,
        class_names=class_names,
        mean=pictures.mean,
        std=pictures.std,
        label_smoothing=config.loss.label_smoothing,
        flip=config.augment.flip,
    )


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


def optimizer_rules(config: Config, task: Classification, params: Any) -> dict[str, Any]:
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
