"""The stages of a two-stage detector: what their heads make of RoIs, and how one hands its boxes on to the next.

Mask R-CNN has one stage, a cascade (Cai and Vasconcelos, 2019) several; all go through the same functions.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from swin_jax.models.detection_heads import SEMANTIC_LEVEL
from swin_jax.models.mask_rcnn import BOX_SIZE, MASK_SIZE, STRIDES
from swin_jax.ops import boxes as box_ops
from swin_jax.ops.roi_align import level_of, roi_align
from swin_jax.tasks.two_stage import BoundModel, Maps, Pyramid
from swin_jax.tasks.two_stage_settings import AUTO, METHODS, Stage, TwoStage


def score_boxes(
    bound: BoundModel, maps: Maps, rois: Float[Array, "batch n 4"], sizes: Array, settings: TwoStage
) -> tuple[Float[Array, "batch n classes_or_1 4"], Float[Array, "batch n classes"]]:
    """Where each class's object is for every RoI, clipped to the picture, and the classes' probabilities.

    Every stage looks where the one before it has moved the RoI; the logits of all are averaged.
    """
    *before, last = settings.tested
    of_stages = []
    for number, stage in enumerate(before):
        logits, deltas = classified(bound, maps, rois, settings, number)
        rois = refined(rois, logits, deltas, sizes, stage)
        of_stages.append(logits)
    logits, deltas = classified(bound, maps, rois, settings, len(before))
    of_stages.append(logits)
    moved = box_ops.decode(jnp.broadcast_to(rois[:, :, None], deltas.shape), deltas, stds=last.stds)
    clipped = jax.vmap(box_ops.clip)(moved, sizes)
    return clipped, jax.nn.softmax(mean(of_stages), axis=-1)[..., :-1]


def refined(
    rois: Float[Array, "batch n 4"],
    logits: Float[Array, "batch n classes_and_background"],
    deltas: Float[Array, "batch n classes_or_1 4"],
    sizes: Array,
    stage: Stage,
    labels: Int32[Array, "batch n"] | None = None,
) -> Float[Array, "batch n 4"]:
    """Where a stage moves its RoIs, clipped to the picture: to the box of `labels`, or of the most likely class where
    those are the background, and by default. No gradient passes."""
    classes = logits.shape[-1] - 1
    likely = jnp.argmax(logits[..., :-1], axis=-1).astype(jnp.int32)
    chosen = likely if labels is None else jnp.where(labels == classes, likely, labels)
    moved = box_ops.decode(rois, of_label(deltas, chosen), stds=stage.stds)
    return jax.lax.stop_gradient(jax.vmap(box_ops.clip)(moved, sizes))


def of_label(
    deltas: Float[Array, "batch n classes_or_1 4"], labels: Int32[Array, "batch n"]
) -> Float[Array, "batch n 4"]:
    """The deltas of each RoI's own class; 0 for the background. A comparison: a gather's gradient is a scatter."""
    classes = deltas.shape[2]
    if classes == 1:
        return deltas[:, :, 0]
    is_label = labels[..., None] == jnp.arange(classes)[None, None]
    return jnp.sum(jnp.where(is_label[..., None], deltas, 0.0), axis=2)


def mask_probabilities(
    bound: BoundModel, maps: Maps, boxes: Float[Array, "batch n 4"], labels: Array, settings: TwoStage
) -> Float[Array, "batch n size size"]:
    """The mask of each box's class, the mean of all stages'."""
    stages = tuple(range(len(settings.tested)))
    return mean(
        [_of_class(logits, labels) for logits in segmented(bound, maps, boxes, settings, stages=stages)]
    )


def _of_class(logits: Float[Array, "batch n size size classes"], labels: Array) -> Array:
    is_label = labels[:, :, None, None, None] == jnp.arange(logits.shape[-1])[None, None, None, None]
    return jax.nn.sigmoid(jnp.sum(jnp.where(is_label, logits, 0.0), axis=-1))


def classified(
    bound: BoundModel,
    maps: Maps,
    rois: Float[Array, "batch n 4"],
    settings: TwoStage,
    stage: int,
    valid: Bool[Array, "batch n"] | None = None,
) -> tuple[Float[Array, "batch n _"], Float[Array, "batch n _ 4"]]:
    """Logits and deltas of a stage's box head; in training, with the statistics of `valid` RoIs."""
    features = pool(maps, rois, BOX_SIZE, settings)
    rows = None if valid is None else valid.ravel()
    logits, deltas = bound.classify(flat(features), stage, rows)
    count = rois.shape[:2]
    return logits.reshape(*count, -1), deltas.reshape(*count, -1, 4)


def segmented(
    bound: BoundModel,
    maps: Maps,
    boxes: Float[Array, "batch n 4"],
    settings: TwoStage,
    *,
    stages: tuple[int, ...],
) -> list[Float[Array, "batch n _ _ _"]]:
    """Logits of the masks of these stages."""
    features = pool(maps, boxes, MASK_SIZE, settings)
    found = bound.segment(flat(features), stages)
    return [logits.reshape(*boxes.shape[:2], *logits.shape[1:]) for logits in found]


def pool(
    maps: Maps, rois: Float[Array, "batch n 4"], size: int, settings: TwoStage
) -> Float[Array, "batch n size size channels"]:
    """RoIAlign on all levels but the last, which only proposals are made of, and what the semantic branch has there:
    on the cells of a mask head, averaged for a box head."""
    levels = maps.pyramid[:-1]
    read = level_of(rois, len(levels), finest=settings.finest)
    features = _aligned(levels, STRIDES[: len(levels)], rois, read, size, settings)
    if maps.semantic is None:
        return features
    stride = STRIDES[SEMANTIC_LEVEL]
    semantic = _aligned((maps.semantic,), (stride,), rois, jnp.zeros_like(read), MASK_SIZE, settings)
    return features + _averaged(semantic, MASK_SIZE // size)


def _averaged(x: Float[Array, "batch n rows columns channels"], cells: int) -> Array:
    """The mean of every `cells` x `cells`."""
    if cells == 1:
        return x
    batch, count, rows, columns, channels = x.shape
    blocks = x.reshape(batch, count, rows // cells, cells, columns // cells, cells, channels)
    return jnp.mean(blocks, axis=(3, 5))


def _aligned(
    levels: Pyramid, strides: tuple[int, ...], rois: Array, read: Array, size: int, settings: TwoStage
) -> Float[Array, "batch n size size channels"]:
    def pooled(method: str, *operands: Any) -> Array:
        levels, rois, read = operands
        return roi_align(
            levels,
            rois,
            strides=strides,
            size=size,
            sampling=settings.points,
            method=method,
            levels=read,
        )

    operands = levels, jax.lax.stop_gradient(rois), read
    if settings.roi_align != AUTO:
        return pooled(settings.roi_align, *operands)
    # Chosen for the platform that the program is compiled for, which need not be this machine's.
    gather, separable = (functools.partial(pooled, method) for method in METHODS)
    return jax.lax.platform_dependent(*operands, tpu=separable, default=gather)


def flat(x: Array) -> Array:
    """Pictures and their RoIs as one axis."""
    return x.reshape(-1, *x.shape[2:])


def mean(values: list[Array]) -> Array:
    """Of arrays of one shape."""
    return sum(values[1:], start=values[0]) / len(values)
