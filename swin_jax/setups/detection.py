"""The pieces of a detection experiment."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from swin_jax.config import Config
from swin_jax.data.detection import DetectionEval, DetectionTrain
from swin_jax.data.detection_geometry import Augmentation
from swin_jax.data.instaboost import InstaBoost
from swin_jax.data.labels import LabelCoding, default_palette
from swin_jax.data.sources.base import Source
from swin_jax.models.cascade import HybridTaskCascade
from swin_jax.models.detection_heads import SEMANTIC_LEVEL
from swin_jax.models.detectors import create_detector
from swin_jax.models.mask_rcnn import STRIDES, MaskRCNN
from swin_jax.models.registry import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from swin_jax.tasks.detection import Detection, Seen, metric
from swin_jax.tasks.two_stage_settings import (
    BoxLoss,
    Matching,
    Proposing,
    Sampling,
    Stage,
    TwoStage,
    published_settings,
)

SCALE = (1333, 800)


def open_source(
    kind: str, split: str, *, root: str | None = None, training: bool = False, semantic: bool = False
) -> Source:
    """Pictures with instances; `semantic` reads their label maps along, where the data have them.

    Raises:
      ValueError: something is missing, or does not fit; it is named.
    """
    from swin_jax.data.sources.instances import open_instances  # tfds takes a second

    return open_instances(kind, split, root=root, training=training, semantic=semantic)


def training_options(config: Config) -> dict[str, Any]:
    """How `open_source` is asked for data to train on."""
    return {"semantic": semantic_classes(config) > 0}


def semantic_classes(config: Config) -> int:
    """Classes of the label maps that the model's semantic branch learns; 0 without one."""
    model = create_detector(config.model.name)
    if not isinstance(model, HybridTaskCascade):
        return 0
    return _given(config.model.semantic_classes, model.semantic_classes)


def check_source(config: Config, source: Any, training: bool = False) -> None:
    """Raises ValueError where data without masks are to train a mask head, or to have their objects cut out; and, of
    data to train on, where a semantic branch is to learn from data without its label maps."""
    if with_masks(config) and not source.has_masks:
        raise ValueError(
            f"{source.identity} has boxes and no masks; train without a mask head: --config.model.with_masks=False"
        )
    if config.data.instaboost and not source.has_masks:
        raise ValueError(
            f"{source.identity} has boxes and no masks, and data.instaboost cuts objects out by their masks; train "
            "without it: --config.data.instaboost=0"
        )
    wanted = semantic_classes(config) if training else 0
    if wanted and not source.semantic_classes:
        raise ValueError(
            f"{source.identity} has no label maps, and the semantic branch of {config.model.name} learns from them; "
            "give COCO's stuff maps as stuffthingmaps/<split>/<picture>.png beside the pictures, or train another model"
        )
    if wanted and source.semantic_classes != wanted:
        raise ValueError(
            f"the label maps of {source.identity} have {source.semantic_classes} classes, model.semantic_classes is "
            f"{wanted}; set it to theirs"
        )


def train_example(config: Config) -> DetectionTrain:
    data = config.data
    return DetectionTrain(
        augmentation=Augmentation(
            short_sides=tuple(data.short_sides),
            long_side=max(scale_of(config)) if data.long_side is None else data.long_side,
            crop_probability=data.crop_probability,
            crop_short_sides=tuple(data.crop_short_sides),
            crop_range=tuple(data.crop_range),
            flip=config.augment.flip,
        ),
        max_boxes=data.max_boxes,
        mask_size=data.mask_size if with_masks(config) else 0,
        instaboost=InstaBoost(probability=data.instaboost) if data.instaboost else None,
        semantic_stride=STRIDES[SEMANTIC_LEVEL] if semantic_classes(config) else 0,
    )


def eval_example(config: Config) -> DetectionEval:
    evaluation = config.evaluation
    ratios = tuple(evaluation.ratios) if evaluation.multi_scale else (1.0,)
    return DetectionEval(scale=scale_of(config), ratios=ratios)


def scale_of(config: Config) -> tuple[int, int]:
    return SCALE if config.data.scale is None else tuple(config.data.scale)


def with_masks(config: Config) -> bool:
    return config.model.with_masks is None or config.model.with_masks


def metric_of(config: Config) -> str:
    return metric(masks=with_masks(config))


def pictures_of(config: Config) -> Preprocessing:
    """What pictures undergo: (height, width) of the first training canvas, and as `resize` (long side, short side) that
    they are fitted into, aspect kept."""
    return Preprocessing(train_example(config).canvases[0], scale_of(config), interpolation="bilinear")


def make_task(
    config: Config, class_names: tuple[str, ...], _: LabelCoding | None, model_fields: Mapping[str, Any]
) -> Detection:
    """The task with its model. Raises ValueError for an unknown model or field, or a value that makes no sense."""
    anchors = len(config.detection.anchor_scales) * len(config.detection.anchor_ratios)
    model = create_detector(
        config.model.name, num_classes=len(class_names), **{**model_fields, "anchors_per_cell": anchors}
    )
    settings = settings_of(config.detection, model)
    example = train_example(config)
    eval_example(config)  # its numbers are checked when it is made
    evaluation = config.evaluation
    return Detection(
        model=model,
        canvases=example.canvases,
        max_boxes=example.max_boxes,
        mask_size=example.mask_size,
        class_names=class_names,
        palette=default_palette(len(class_names)),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        settings=settings,
        seen=Seen(
            scales=len(evaluation.ratios) if evaluation.multi_scale else 1,
            flip=evaluation.multi_scale and evaluation.flip,
        ),
    )


def settings_of(fields: Config, model: MaskRCNN) -> TwoStage:
    """The settings of a detector by the fields of `config.detection`; what is None there is as published.

    Raises:
      ValueError: a field has not one value for each of the model's stages, or no sense.
    """
    published = published_settings(model)
    most = _given(fields.train_proposals, published.train_proposals.most)
    least = _given(fields.least_score, published.selecting.least_score)
    return TwoStage(
        anchor_scales=tuple(fields.anchor_scales),
        anchor_ratios=tuple(fields.anchor_ratios),
        allowed_border=_given(fields.anchor_border, published.allowed_border),
        anchor_sampling=Sampling(fields.anchor_sample, fields.anchor_positives),
        anchor_box_loss=published.anchor_box_loss,
        train_proposals=Proposing(fields.train_proposals_per_level, most, fields.proposal_nms),
        test_proposals=Proposing(fields.test_proposals_per_level, fields.test_proposals, fields.proposal_nms),
        stages=_stages(fields, published.stages),
        test_stages=fields.test_stages,
        roi_sampling=Sampling(fields.roi_sample, fields.roi_positives),
        box_loss=_box_loss(fields, published.box_loss),
        interleaved=published.interleaved,
        semantic_weight=fields.semantic_weight,
        finest=fields.roi_finest,
        points=fields.roi_points,
        roi_align=fields.roi_align,
        selecting=dataclasses.replace(
            published.selecting,
            least_score=least,
            threshold=fields.nms,
            most=fields.most,
            soft=fields.soft_nms or None,
        ),
    )


def _stages(fields: Config, published: tuple[Stage, ...]) -> tuple[Stage, ...]:
    for field in ("roi_ious", "roi_stds", "roi_weights"):
        if fields[field] is not None and len(fields[field]) != len(published):
            raise ValueError(
                f"detection.{field} is {fields[field]}; expected one value for each of the model's "
                f"{len(published)} stages"
            )
    for four in _given(fields.roi_stds, ()):
        if not isinstance(four, tuple | list) or len(four) != 4 or min(four) <= 0:
            raise ValueError(
                f"detection.roi_stds is {fields.roi_stds}; expected four numbers above 0 in brackets for each stage"
            )
    low_quality = _given(fields.low_quality, published[0].matching.low_quality_iou is not None)
    ious = _given(fields.roi_ious, tuple(stage.matching.positive_iou for stage in published))
    stds = _given(fields.roi_stds, tuple(stage.stds for stage in published))
    weights = _given(fields.roi_weights, tuple(stage.weight for stage in published))
    return tuple(
        Stage(Matching(iou, iou, iou if low_quality else None), tuple(four), weight)
        for iou, four, weight in zip(ious, stds, weights, strict=True)
    )


def _box_loss(fields: Config, published: BoxLoss) -> BoxLoss:
    loss = published
    if fields.box_loss is not None and fields.box_loss != published.kind:
        loss = BoxLoss(fields.box_loss, weight=10.0 if fields.box_loss == "giou" else 1.0)
    return dataclasses.replace(loss, weight=_given(fields.box_weight, loss.weight))


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
