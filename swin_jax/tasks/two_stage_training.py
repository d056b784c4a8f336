"""What a two-stage detector learns from a batch: assignment, sampling and losses of both stages.

Targets are made on device, inside the step, from padded ground truth.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from swin_jax.models.mask_rcnn import MaskRCNN
from swin_jax.ops import anchors as anchor_ops
from swin_jax.ops import boxes as box_ops
from swin_jax.ops import detection_losses as losses
from swin_jax.ops import masks as mask_ops
from swin_jax.ops.assign import Assignment, max_iou
from swin_jax.ops.augment import row_keys
from swin_jax.ops.sample import Sample, balanced, with_truth
from swin_jax.tasks.task import Batch, Terms
from swin_jax.tasks.two_stage import (
    Anchors,
    Matching,
    Model,
    Pyramid,
    Sampling,
    TwoStage,
    classified,
    find_proposals,
    flat,
    on_canvas,
    per_anchor,
    segmented,
)


class RoIs(NamedTuple):
    """What the second stage learns from, padded: the positives first."""

    boxes: Float[Array, "batch n 4"]
    truth: Int32[Array, "batch n"]
    positive: Bool[Array, "batch n"]
    valid: Bool[Array, "batch n"]


def training_terms(
    model: MaskRCNN,
    variables: Mapping[str, Any],
    images: Float[Array, "batch height width 3"],
    batch: Batch,
    key: Array,
    settings: TwoStage,
) -> tuple[Terms, Terms, Any]:
    """The losses of a batch: terms `rpn_cls`, `rpn_box`, `cls`, `box` and with a mask head `mask`; metrics; the model's
    state afterwards.

    The two stages' losses are divided by the number of sampled anchors and of sampled RoIs, positive or not, of all
    pictures; that of masks by the number of positive RoIs, each the mean over its pixels. Denominators that are 0 make
    a term 0. The published code divides each device's sums by that device's counts.

    Args:
      model: with its `variables`.
      images: normalised, 0 beyond their size.
      batch: `size`, `boxes`, `labels`, `box_valid`, `valid`, and `masks` (crops) or `bitmaps` where there is a mask
        head; see the detection task.
      key: of this batch; a picture's draws follow from it and from the picture's row.
      settings: of the detector.
    """
    drop_key, *keys = jax.random.split(key, 3)
    pyramid, state = model.apply(
        variables,
        images,
        True,
        method="features",
        rngs={"dropout": drop_key},
        mutable=[name for name in variables if name != "params"],
    )
    parts = Model(model, variables)
    objectness, deltas = parts.propose(pyramid)
    anchors = on_canvas(pyramid, batch["size"], batch["valid"], settings)
    rows = batch["box_valid"] & batch["valid"][:, None]
    first = _first_stage(objectness, deltas, anchors, batch, rows, keys[0], settings)
    proposals = find_proposals(objectness, deltas, anchors, batch["size"], settings.train_proposals)
    rois = jax.tree.map(
        jax.lax.stop_gradient,
        jax.vmap(lambda *of_picture: _sample_rois(*of_picture, settings=settings))(
            proposals.boxes, proposals.valid, batch["boxes"], rows, row_keys(keys[1], rows.shape[0])
        ),
    )
    labels = jnp.where(
        rois.positive, jnp.take_along_axis(batch["labels"], rois.truth, axis=1), model.num_classes
    )
    second, metrics = _box_terms(parts, pyramid, rois, labels, batch["boxes"], settings)
    terms = {**first, **second}
    if model.with_masks:
        terms["mask"] = _mask_term(parts, pyramid, rois, labels, batch, settings)
    return terms, metrics, state


def _first_stage(
    objectness: Pyramid,
    deltas: Pyramid,
    anchors: Anchors,
    batch: Batch,
    box_valid: Array,
    key: Array,
    settings: TwoStage,
) -> Terms:
    count = batch["boxes"].shape[0]
    every = jnp.concatenate(anchors.boxes)
    takes_part = jnp.concatenate(anchors.takes_part, axis=1)
    names = jnp.concatenate(anchors.names)

    def sampled(takes_part: Array, size: Array, boxes: Array, valid: Array, key: Array) -> Any:
        if settings.allowed_border is not None:
            takes_part &= anchor_ops.inside(every, size, border=settings.allowed_border)
        found = _matched(every, boxes, valid, takes_part, settings.anchor_matching)
        sample = _drawn(key, names, found, settings.anchor_sampling)
        targets = box_ops.encode(every[sample.rows], boxes[found.truth[sample.rows]])
        return sample, targets

    sample, targets = jax.lax.stop_gradient(
        jax.vmap(sampled)(takes_part, batch["size"], batch["boxes"], box_valid, row_keys(key, count))
    )
    logits, moves = (jnp.concatenate(levels, axis=1) for levels in per_anchor(objectness, deltas))
    logits = jnp.take_along_axis(logits, sample.rows, axis=1)
    moves = jnp.take_along_axis(moves, sample.rows[..., None], axis=1)
    number = _count(sample.valid)
    scores = losses.sigmoid_cross_entropy(logits, sample.positive)
    return {
        "rpn_cls": (losses.total(scores, sample.valid), number),
        "rpn_box": (losses.total(losses.l1(moves, targets), sample.positive), number),
    }


def _sample_rois(
    proposals: Array, proposal_valid: Array, boxes: Array, box_valid: Array, key: Array, *, settings: TwoStage
) -> RoIs:
    candidates, valid, names = with_truth(proposals, proposal_valid, boxes, box_valid)
    found = _matched(candidates, boxes, box_valid, valid, settings.roi_matching)
    sample = _drawn(key, names, found, settings.roi_sampling)
    return RoIs(candidates[sample.rows], found.truth[sample.rows], sample.positive, sample.valid)


def _matched(candidates: Array, boxes: Array, box_valid: Array, valid: Array, rule: Matching) -> Assignment:
    return max_iou(candidates, boxes, box_valid, candidate_valid=valid, **dataclasses.asdict(rule))


def _drawn(key: Array, names: Array, found: Assignment, rule: Sampling) -> Sample:
    return balanced(key, names, found.positive, found.negative, **dataclasses.asdict(rule))


def _box_terms(
    parts: Model, pyramid: Pyramid, rois: RoIs, labels: Array, truth_boxes: Array, settings: TwoStage
) -> tuple[Terms, Terms]:
    logits, deltas = classified(parts, pyramid, rois.boxes, settings)
    number = _count(rois.valid)
    own = jnp.take_along_axis(truth_boxes, rois.truth[..., None], axis=1)
    targets = box_ops.encode(rois.boxes, own, stds=settings.roi_stds)
    moves = _of_label(deltas, labels)
    classes = losses.softmax_cross_entropy(logits, labels)
    right = (jnp.argmax(logits, axis=-1) == labels) & rois.valid
    terms = {
        "cls": (losses.total(classes, rois.valid), number),
        "box": (losses.total(losses.l1(moves, targets), rois.positive), number),
    }
    return terms, {
        "roi_accuracy": (_count(right), number),
        "roi_positives": (_count(rois.positive), _count(jnp.any(rois.valid, axis=1))),
    }


def _mask_term(
    parts: Model, pyramid: Pyramid, rois: RoIs, labels: Array, batch: Batch, settings: TwoStage
) -> tuple[Array, Array]:
    """Positives stand first: only so many rows as can hold one go through the mask head."""
    most = settings.roi_sampling.most_positive
    boxes, truth, positive, labels = (x[:, :most] for x in (rois.boxes, rois.truth, rois.positive, labels))
    logits = segmented(parts, pyramid, boxes, settings)
    size = logits.shape[2]
    if "bitmaps" in batch:
        made = jax.vmap(lambda *of_picture: mask_ops.targets_from_bitmaps(*of_picture, size=size))
        targets = made(batch["bitmaps"], boxes, truth)
    else:
        made = jax.vmap(lambda *of_picture: mask_ops.targets_from_crops(*of_picture, size=size))
        targets = made(batch["masks"], batch["boxes"], boxes, truth)
    safe = jnp.where(positive, labels, 0)
    values = losses.mask_cross_entropy(flat(logits), safe.ravel(), flat(targets))
    return losses.total(values, positive.ravel()), _count(positive)


def _of_label(
    deltas: Float[Array, "batch n classes_or_1 4"], labels: Int32[Array, "batch n"]
) -> Float[Array, "batch n 4"]:
    """The deltas of each RoI's own class; 0 for the background. A comparison: a gather's gradient is a scatter."""
    classes = deltas.shape[2]
    if classes == 1:
        return deltas[:, :, 0]
    of_label = labels[..., None] == jnp.arange(classes)[None, None]
    return jnp.sum(jnp.where(of_label[..., None], deltas, 0.0), axis=2)


def _count(chosen: Array) -> Float[Array, ""]:
    return jnp.sum(chosen, dtype=jnp.float32)
