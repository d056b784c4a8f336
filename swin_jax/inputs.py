"""The data of an experiment, as its config names them: sources, examples, batches."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

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
from swin_jax.data.sources.files import Files
from swin_jax.experiment import pictures_of, setup_of
from swin_jax.models.registry import Preprocessing
from swin_jax.ops.augment import normalise
from swin_jax.setups import detection, segmentation


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
    def truth(self) -> Any:
        """As `truth_of` the evaluation split."""
        return truth_of(self.evaluation)

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


def truth_of(source: Source) -> Any:
    """What a split knows beyond its batches and evaluations are scored against; None where batches hold it all."""
    made = getattr(source, "truth", None)
    return None if made is None else made()


def open_data(config: Config, *, eval_split: str | None = None) -> Data:
    """Opens both splits. Raises ValueError naming what is missing or does not fit."""
    data = config.data
    check_repeats(data.repeats)
    root = data.root or None
    of_task = inputs_of(config)
    options = of_task.training_options(config)
    train = of_task.open_source(data.source, data.train_split, root=root, training=True, **options)
    of_task.check_source(config, train, training=True)
    evaluation = of_task.open_source(data.source, eval_split or data.eval_split, root=root)
    of_task.check_source(config, evaluation)
    return Data(train, evaluation, train_example(config), eval_example(config), config)


def train_example(config: Config) -> Example:
    return inputs_of(config).train_example(config)


def eval_example(config: Config) -> Example:
    return inputs_of(config).eval_example(config)


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


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What of an experiment's data depends on its task.

    Attributes:
        open_source: (kind, split, root, training) -> the examples of a split; some data are only evaluated on.
        train_example: what becomes of a record in training.
        eval_example: and in evaluation.
        check_source: (config, source, training) raises ValueError where a source lacks what the experiment needs.
        training_options: how `open_source` is asked for what is trained on, beside that it is.
    """

    open_source: Callable[..., Source]
    train_example: Callable[[Config], Example]
    eval_example: Callable[[Config], Example]
    check_source: Callable[..., None] = lambda config, source, training=False: None
    training_options: Callable[[Config], dict[str, Any]] = lambda config: {}


def _open_pictures(kind: str, split: str, *, root: str | None = None, training: bool = False) -> Source:
    """Pictures with classes, the same in training and evaluation."""
    del training
    return open_source(kind, split, root=root)


INPUTS = {
    "classification": Inputs(_open_pictures, _classification_train, _classification_eval),
    "detection": Inputs(
        detection.open_source,
        detection.train_example,
        detection.eval_example,
        detection.check_source,
        detection.training_options,
    ),
    "segmentation": Inputs(segmentation.open_source, segmentation.train_example, segmentation.eval_example),
}


def inputs_of(config: Config) -> Inputs:
    """Raises ValueError for an unknown task."""
    setup_of(config)
    return INPUTS[config.task]


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
