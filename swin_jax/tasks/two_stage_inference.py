"""What a two-stage detector finds in pictures, each seen once or, for test-time augmentation, in several ways."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from swin_jax.models.mask_rcnn import MaskRCNN
from swin_jax.ops.nms import nms
from swin_jax.ops.selection import Detections, Proposals, detect
from swin_jax.tasks.roi_heads import mask_probabilities, mean, score_boxes
from swin_jax.tasks.task import Predictions
from swin_jax.tasks.two_stage import BoundModel, Maps, see, test_proposals
from swin_jax.tasks.two_stage_settings import Proposing, TwoStage


class View(NamedTuple):
    """Pictures at one scale, plain or mirrored.

    Attributes:
      images: normalised, in the upper left corner of a canvas of 0.
      sizes: (height, width) of each picture on it.
      mirrored: whether they are left to right.
    """

    images: Float[Array, "batch _ _ 3"]
    sizes: Int32[Array, "batch 2"]
    mirrored: bool


def find(
    model: MaskRCNN,
    variables: Mapping[str, Any],
    views: Sequence[View],
    original_sizes: Int32[Array, "batch 2"],
    valid: Bool[Array, " batch"],
    settings: TwoStage,
) -> Predictions:
    """Detections in the pixels of the original pictures: `boxes` f32 `[B, D, 4]`, `scores` f32, `labels` int32,
    `box_valid` bool `[B, D]`, `complete` bool `[B]` (`ops.selection.detect`) and, of a model with masks, `masks`
    uint8 `[B, D, 28, 28]`: probabilities times 255, to be pasted into the boxes.

    Boxes are brought to the original picture before they are suppressed. Several views, whose merging nobody published
    for Swin, are merged in OpenMMLab's way: the views' proposals suppress each other, every view scores all that
    remain, boxes and probabilities are averaged before the classes' suppression, and so are the masks of what is left.

    Args:
      model: with its `variables`.
      views: of the same pictures.
      original_sizes: (height, width).
      valid: False for rows that hold no picture.
      settings: of the detector.
    """
    bound = BoundModel(model, variables)
    seen = [(view, see(bound, view.images)) for view in views]
    rois = _proposals(bound, seen, original_sizes, valid, settings)
    boxes, scores = _scored(bound, seen, rois, original_sizes, settings)
    found = _selected(boxes, scores, rois.valid, settings)
    predictions = {
        "boxes": found.boxes,
        "scores": found.scores,
        "labels": found.labels,
        "box_valid": found.valid,
        "complete": found.complete,
    }
    if model.with_masks:
        masks = mean(
            [
                _mirrored(
                    mask_probabilities(
                        bound, maps, into(view, found.boxes, original_sizes), found.labels, settings
                    ),
                    view,
                )
                for view, maps in seen
            ]
        )
        predictions["masks"] = jnp.round(255 * masks).astype(jnp.uint8)
    return predictions


def _proposals(
    bound: BoundModel, seen: Sequence[tuple[View, Maps]], original: Array, valid: Array, settings: TwoStage
) -> Proposals:
    """In the original picture's pixels."""
    found = []
    for view, maps in seen:
        of_view = test_proposals(bound, maps.pyramid, view.sizes, valid, settings)
        found.append(of_view._replace(boxes=out_of(view, of_view.boxes, original)))
    return found[0] if len(found) == 1 else _merged(found, settings.test_proposals)


def _merged(found: Sequence[Proposals], rule: Proposing) -> Proposals:
    boxes, scores, valid = (jnp.concatenate(parts, axis=1) for parts in zip(*found, strict=True))

    def of_picture(boxes: Array, scores: Array, valid: Array) -> Proposals:
        kept = nms(boxes, scores, valid, threshold=rule.threshold, most=rule.most)
        return Proposals(jnp.where(kept.valid[:, None], boxes[kept.rows], 0.0), kept.scores, kept.valid)

    return jax.vmap(of_picture)(boxes, scores, valid)


def _scored(
    bound: BoundModel,
    seen: Sequence[tuple[View, Maps]],
    rois: Proposals,
    original: Array,
    settings: TwoStage,
) -> tuple[Array, Array]:
    """Boxes in the original picture and probabilities of the classes, averaged over the views."""
    boxes, scores = [], []
    for view, maps in seen:
        moved, of_classes = score_boxes(bound, maps, into(view, rois.boxes, original), view.sizes, settings)
        boxes.append(out_of(view, moved, original))
        scores.append(of_classes)
    return mean(boxes), mean(scores)


def _selected(boxes: Array, scores: Array, valid: Array, settings: TwoStage) -> Detections:
    rule = settings.selecting

    def of_picture(boxes: Array, scores: Array, valid: Array) -> Detections:
        return detect(
            boxes,
            scores,
            valid,
            least_score=rule.least_score,
            threshold=rule.threshold,
            most=rule.most,
            candidates=rule.candidates,
            soft=rule.soft,
            least_soft_score=rule.least_soft_score,
        )

    return jax.vmap(of_picture)(boxes, scores, valid)


def out_of(view: View, boxes: Float[Array, "batch *n 4"], original: Array) -> Float[Array, "batch *n 4"]:
    """Boxes of a view in the pixels of the original pictures."""
    if view.mirrored:
        boxes = _flipped(boxes, view.sizes)
    return boxes / _factors(view, original, boxes.ndim)


def into(view: View, boxes: Float[Array, "batch *n 4"], original: Array) -> Float[Array, "batch *n 4"]:
    """Boxes of the original pictures in the pixels of a view: the inverse of `out_of`."""
    boxes = boxes * _factors(view, original, boxes.ndim)
    return _flipped(boxes, view.sizes) if view.mirrored else boxes


def _factors(view: View, original: Array, ndim: int) -> Array:
    """View over original, for x1, y1, x2, y2."""
    ratio = view.sizes.astype(jnp.float32) / jnp.maximum(original, 1).astype(jnp.float32)
    factors = jnp.concatenate([ratio[:, ::-1]] * 2, axis=1)
    return factors.reshape(-1, *(1,) * (ndim - 2), 4)


def _flipped(boxes: Array, sizes: Array) -> Array:
    width = sizes[:, 1].astype(jnp.float32).reshape(-1, *(1,) * (boxes.ndim - 2))
    x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
    return jnp.stack([width - x2, y1, width - x1, y2], axis=-1)


def _mirrored(masks: Array, view: View) -> Array:
    return masks[..., ::-1] if view.mirrored else masks
