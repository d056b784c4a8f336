"""What a two-stage detector learns from a batch: assignment, sampling and losses of the proposals and of all stages.

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
from swin_jax.ops.losses import IGNORE, segmentation_cross_entropy
from swin_jax.ops.sample import Sample, balanced, with_truth
from swin_jax.tasks.roi_heads import classified, flat, of_label, refined, segmented
from swin_jax.tasks.task import Batch, Terms
from swin_jax.tasks.two_stage import (
    Anchors,
    BoundModel,
    Maps,
    Pyramid,
    find_proposals,
    on_canvas,
    per_anchor,
    see,
)
from swin_jax.tasks.two_stage_settings import BoxLoss, Four, Matching, Sampling, TwoStage


class RoIs(NamedTuple):
    """What a stage learns from, padded: the positives first."""

    boxes: Float[Array, "batch n 4"]
    truth: Int32[Array, "batch n"]
    labels: Int32[Array, "batch n"]  # the number of classes for the background
    positive: Bool[Array, "batch n"]
    valid: Bool[Array, "batch n"]
    injected: Bool[Array, "batch n"]  # a ground-truth box itself


class Candidates(NamedTuple):
    """Boxes that a stage draws its RoIs from, beside the ground truth."""

    boxes: Float[Array, "batch n 4"]
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
    state afterwards. Of a cascade the last three are those of each stage, `stage0_cls` and so on, times its weight; a
    semantic branch adds `semantic`.

    The losses are divided by the number of sampled anchors and of the stage's sampled RoIs, positive or not, of all
    pictures; that of masks by the number of positive RoIs, each the mean over its pixels; the semantic one by the
    number of labelled cells. Denominators that are 0 make a term 0. The published code divides each device's sums by
    that device's counts.

    Args:
      model: with its `variables`.
      images: normalised, 0 beyond their size.
      batch: `size`, `boxes`, `labels`, `box_valid`, `valid`, and `masks` (crops) or `bitmaps` where there is a mask
        head, `semantic` where there is a semantic branch; see the detection task.
      key: of this batch; a picture's draws follow from it and from the picture's row.
      settings: of the detector.
    """
    draws = 2 if settings.interleaved else 1
    drop_key, anchor_key, *roi_keys = jax.random.split(key, 2 + draws * len(settings.stages))
    bound = BoundModel(model, variables, drop_key)
    maps = see(bound, images)
    objectness, deltas = bound.propose(maps.pyramid)
    anchors = on_canvas(maps.pyramid, batch["size"], batch["valid"], settings)
    batch = {**batch, "box_valid": batch["box_valid"] & batch["valid"][:, None]}
    terms = _first_stage(objectness, deltas, anchors, batch, anchor_key, settings)
    if maps.semantic_logits is not None:
        terms["semantic"] = _semantic_term(maps.semantic_logits, batch, settings.semantic_weight)
    proposals = find_proposals(objectness, deltas, anchors, batch["size"], settings.train_proposals)
    candidates, metrics = Candidates(proposals.boxes, proposals.valid), {}
    for stage in range(len(settings.stages)):
        found, candidates = _stage(
            bound, maps, candidates, batch, roi_keys[draws * stage :][:draws], settings, stage
        )
        prefix = f"stage{stage}_" if len(settings.stages) > 1 else ""
        terms |= {prefix + name: pair for name, pair in found[0].items()}
        metrics |= {prefix + name: pair for name, pair in found[1].items()}
    return terms, metrics, bound.state


def _stage(
    bound: BoundModel,
    maps: Maps,
    candidates: Candidates,
    batch: Batch,
    keys: list[Array],
    settings: TwoStage,
    number: int,
) -> tuple[tuple[Terms, Terms], Candidates]:
    """Terms and metrics of a stage, and the candidates of the next: its RoIs, moved, without the ground truth."""
    stage = settings.stages[number]
    classes = bound.model.num_classes
    rois = _sample(candidates, batch, keys[0], settings, stage.matching, classes)
    logits, deltas = classified(bound, maps, rois.boxes, settings, number, rois.valid)
    terms, metrics = _box_terms(logits, deltas, rois, batch["boxes"], stage.stds, settings.box_loss)
    moved = refined(rois.boxes, logits, deltas, batch["size"], stage, rois.labels)
    following = Candidates(moved, rois.valid & ~rois.injected)
    if bound.model.with_masks:
        if settings.interleaved:
            rois = _sample(following, batch, keys[1], settings, stage.matching, classes)
        terms["mask"] = _mask_term(bound, maps, rois, batch, settings, number)
    weighted = {name: (stage.weight * total, count) for name, (total, count) in terms.items()}
    return (weighted, metrics), following


def _first_stage(
    objectness: Pyramid,
    deltas: Pyramid,
    anchors: Anchors,
    batch: Batch,
    key: Array,
    settings: TwoStage,
) -> dict[str, Any]:
    count = batch["boxes"].shape[0]
    every = jnp.concatenate(anchors.boxes)
    takes_part = jnp.concatenate(anchors.takes_part, axis=1)
    names = jnp.concatenate(anchors.names)

    def sampled(takes_part: Array, size: Array, boxes: Array, valid: Array, key: Array) -> Any:
        if settings.allowed_border is not None:
            takes_part &= anchor_ops.inside(every, size, border=settings.allowed_border)
        found = _matched(every, boxes, valid, takes_part, settings.anchor_matching)
        sample = _drawn(key, names, found, settings.anchor_sampling)
        return sample, every[sample.rows], boxes[found.truth[sample.rows]]

    sample, priors, own = jax.lax.stop_gradient(
        jax.vmap(sampled)(takes_part, batch["size"], batch["boxes"], batch["box_valid"], row_keys(key, count))
    )
    logits, moves = (jnp.concatenate(levels, axis=1) for levels in per_anchor(objectness, deltas))
    logits = jnp.take_along_axis(logits, sample.rows, axis=1)
    moves = jnp.take_along_axis(moves, sample.rows[..., None], axis=1)
    number = _count(sample.valid)
    scores = losses.sigmoid_cross_entropy(logits, sample.positive)
    apart = _box_loss(settings.anchor_box_loss, priors, moves, own, NO_STDS)
    return {
        "rpn_cls": (losses.total(scores, sample.valid), number),
        "rpn_box": (losses.total(apart, sample.positive), number),
    }


def _sample(
    candidates: Candidates, batch: Batch, key: Array, settings: TwoStage, matching: Matching, classes: int
) -> RoIs:
    """What a stage learns from, drawn for every picture from the candidates and the ground truth. No gradient."""

    def of_picture(
        boxes: Array, valid: Array, truth: Array, labels: Array, present: Array, key: Array
    ) -> RoIs:
        found = _matched(boxes, truth, present, valid, matching)
        every, found, names = with_truth(boxes, found, truth, present)
        sample = _drawn(key, names, found, settings.roi_sampling)
        own = found.truth[sample.rows]
        return RoIs(
            every[sample.rows],
            own,
            jnp.where(sample.positive, labels[own], classes),
            sample.positive,
            sample.valid,
            sample.valid & (sample.rows >= boxes.shape[0]),
        )

    keys = row_keys(key, batch["boxes"].shape[0])
    truth = batch["boxes"], batch["labels"], batch["box_valid"]
    return jax.lax.stop_gradient(jax.vmap(of_picture)(*candidates, *truth, keys))


def _matched(candidates: Array, boxes: Array, box_valid: Array, valid: Array, rule: Matching) -> Assignment:
    return max_iou(candidates, boxes, box_valid, candidate_valid=valid, **dataclasses.asdict(rule))


def _drawn(key: Array, names: Array, found: Assignment, rule: Sampling) -> Sample:
    return balanced(key, names, found.positive, found.negative, **dataclasses.asdict(rule))


def _box_terms(
    logits: Array, deltas: Array, rois: RoIs, truth_boxes: Array, stds: Four, rule: BoxLoss
) -> tuple[dict[str, Any], dict[str, Any]]:
    number = _count(rois.valid)
    own = jnp.take_along_axis(truth_boxes, rois.truth[..., None], axis=1)
    classes = losses.softmax_cross_entropy(logits, rois.labels)
    apart = _box_loss(rule, rois.boxes, of_label(deltas, rois.labels), own, stds)
    right = (jnp.argmax(logits, axis=-1) == rois.labels) & rois.valid
    terms = {
        "cls": (losses.total(classes, rois.valid), number),
        "box": (losses.total(apart, rois.positive), number),
    }
    return terms, {
        "roi_accuracy": (_count(right), number),
        "roi_positives": (_count(rois.positive), _count(jnp.any(rois.valid, axis=1))),
    }


NO_STDS = (1.0, 1.0, 1.0, 1.0)


def _box_loss(
    rule: BoxLoss,
    priors: Float[Array, "batch n 4"],
    deltas: Float[Array, "batch n 4"],
    targets: Float[Array, "batch n 4"],
    stds: Four,
) -> Float[Array, "batch n"]:
    """Of the boxes that deltas make of priors."""
    if rule.kind == "giou":
        return rule.weight * losses.giou(box_ops.decode(priors, deltas, stds=stds), targets)
    wanted = box_ops.encode(priors, targets, stds=stds)
    if rule.kind == "smooth_l1":
        return rule.weight * losses.smooth_l1(deltas, wanted, beta=rule.beta)
    return rule.weight * losses.l1(deltas, wanted)


def _mask_term(
    bound: BoundModel, maps: Maps, rois: RoIs, batch: Batch, settings: TwoStage, stage: int
) -> tuple[Array, Array]:
    """Positives stand first: only so many rows as can hold one go through the mask head."""
    most = settings.roi_sampling.most_positive
    boxes, truth, positive, labels = (
        x[:, :most] for x in (rois.boxes, rois.truth, rois.positive, rois.labels)
    )
    (logits,) = segmented(bound, maps, boxes, settings, stages=(stage,))
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


def _semantic_term(
    logits: Float[Array, "batch rows columns classes"], batch: Batch, weight: float | int
) -> tuple[Array, Array]:
    """Cross-entropy of the labelled cells, `batch["semantic"]` uint8 [batch, rows, columns]."""
    labels = jnp.where(batch["valid"][:, None, None], batch["semantic"], jnp.uint8(IGNORE))
    total, number = segmentation_cross_entropy(logits, labels, avg_non_ignore=True)
    return weight * total, number


def _count(chosen: Array) -> Float[Array, ""]:
    return jnp.sum(chosen, dtype=jnp.float32)
