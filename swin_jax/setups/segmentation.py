"""The pieces of a segmentation experiment."""

from collections.abc import Mapping
from typing import Any

from swin_jax.config import Config
from swin_jax.data.labels import LabelCoding, default_palette
from swin_jax.data.segmentation import SegmentationEval, SegmentationTrain
from swin_jax.data.sources.base import Source
from swin_jax.models.registry import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from swin_jax.models.segmenters import create_segmenter
from swin_jax.tasks.segmentation import Inference, Segmentation

CROP = (512, 512)


def open_source(kind: str, split: str, *, root: str | None = None, training: bool = False) -> Source:
    """Pictures with label maps, the same in training and evaluation.

    Raises:
        ValueError: naming what is missing or does not fit.
    """
    from swin_jax.data.sources.semantic import open_semantic  # tfds takes a second

    del training

    return open_semantic(kind, split, root=root)


def train_example(config: Config) -> SegmentationTrain:
    data = config.data
    return SegmentationTrain(
        crop=crop_of(config),
        scale=data.scale,
        ratio_range=data.ratio_range,
        largest_share=data.largest_share,
        flip=config.augment.flip,
    )


def eval_example(config: Config) -> SegmentationEval:
    evaluation = config.evaluation
    return SegmentationEval(
        scale=config.data.scale,
        ratios=tuple(evaluation.ratios) if evaluation.multi_scale else (1.0,),
        multiple=evaluation.size_multiple,
        canvas=evaluation.canvas,
    )


def crop_of(config: Config) -> tuple[int, int]:
    return CROP if config.data.size is None else tuple(config.data.size)


def pictures_of(config: Config) -> Preprocessing:
    """What pictures undergo; `resize` is (long side, short side) that they are fitted into, aspect kept."""
    scale = config.data.scale
    return Preprocessing(crop_of(config), None if scale is None else tuple(scale), interpolation="bilinear")


def make_task(
    config: Config, class_names: tuple[str, ...], coding: LabelCoding | None, model_fields: Mapping[str, Any]
) -> Segmentation:
    """The task with its model. Raises ValueError for an unknown model or field, or a value that makes no sense."""
    model = create_segmenter(config.model.name, num_classes=len(class_names), **model_fields)
    for make in (train_example, eval_example):
        make(config)  # their numbers are checked when they are made
    return Segmentation(
        model=model,
        image_size=crop_of(config),
        class_names=class_names,
        palette=default_palette(len(class_names)) if coding is None else coding.palette,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        auxiliary_weight=config.loss.auxiliary_weight,
        loss_mean=config.loss.mean,
        photometric=config.augment.photometric,
        inference=inference_of(config),
    )


def inference_of(config: Config) -> Inference:
    evaluation = config.evaluation
    window, stride = evaluation.window, evaluation.stride
    if window is not None and stride is None:
        stride = tuple(
            max(side * 2 // 3, 1) for side in window
        )  # of 512 it is 341, as published configs have it
    return Inference(
        scales=len(evaluation.ratios) if evaluation.multi_scale else 1,
        flip=evaluation.multi_scale and evaluation.flip,
        window=None if window is None else tuple(window),
        stride=(1, 1) if stride is None else tuple(stride),
    )
