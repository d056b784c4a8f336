"""The data of an experiment, as its config names them: sources, examples, batches."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from swin_jax.config import Config
from swin_jax.data.examples import ClassificationEval, ClassificationTrain
from swin_jax.data.pipeline import check_repeats, eval_batches, row_fields, train_batches
from swin_jax.data.sources import Source, open_source
from swin_jax.data.sources.files import Files
from swin_jax.experiment import pictures_of
from swin_jax.models.registry import Preprocessing
from swin_jax.ops.augment import normalise


@dataclasses.dataclass(frozen=True)
class Data:
    """The opened splits of an experiment and how their records become rows of a batch."""

    train: Source
    evaluation: Source
    train_example: ClassificationTrain
    eval_example: ClassificationEval
    config: Config

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
        return evaluation_batches(self.config, self.evaluation, host, hosts, devices)


def evaluation_batches(
    config: Config, source: Source, host: int, hosts: int, devices: int
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
    )


def open_data(config: Config, *, eval_split: str | None = None) -> Data:
    """Opens both splits. Raises ValueError naming what is missing or does not fit."""
    data = config.data
    check_repeats(data.repeats)
    root = data.root or None
    train = open_source(data.source, data.train_split, root=root)
    evaluation = open_source(data.source, eval_split or data.eval_split, root=root)
    return Data(train, evaluation, train_example(config), eval_example(config), config)


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


def read_pictures(paths: Sequence[str], shown: Preprocessing) -> np.ndarray:
    """Picture files as a model takes them, normalised float32 [N, H, W, 3].

    Args:
        paths: at least one.
        shown: the preprocessing of the model, as `swin_jax.preprocessing(name)` has it.

    Raises:
        ValueError: there is none.
        UnreadablePicture: one cannot be read.
    """
    if not paths:
        raise ValueError("no pictures are named")
    example = ClassificationEval(size=shown.size, resize=shown.resize, interpolation=shown.interpolation)
    source, rng = Files(paths), np.random.default_rng(0)
    pixels = np.stack([example(source[index], rng)["image"] for index in range(len(source))])
    return np.asarray(normalise(jnp.asarray(pixels), shown.mean, shown.std))
