"""The pieces of a two-stage detector (Ren et al., 2015; He et al., 2017), as pure functions of static shape.

A batch's pictures lie in the upper left corner of one canvas. What lies beyond a picture padded to a multiple of 32
takes no part in anything, and neither do rows of padding: the numbers of a picture do not depend on its canvas, on the
batch around it or on the devices. Boxes, overlaps, losses and scores are f32 throughout.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from swin_jax.models.mask_rcnn import BOX_SIZE, MASK_SIZE, STRIDES, MaskRCNN
from swin_jax.ops import anchors as anchor_ops
from swin_jax.ops import boxes as box_ops
from swin_jax.ops.roi_align import ADAPTIVE, FINEST, level_of, roi_align
from swin_jax.ops.selection import Proposals, propose

METHODS, AUTO = ("gather", "separable"), "auto"
Pyramid = tuple[Float[Array, "batch _ _ _"], ...]


@dataclasses.dataclass(frozen=True)
class Matching:
    """From which IoU a candidate is positive, below which negative, and the least of the low-quality rule."""

    positive_iou: float
    negative_iou: float
    low_quality_iou: float | None


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How many candidates of a picture enter the loss, and how many of them may be positive."""

    total: int
    most_positive: int


@dataclasses.dataclass(frozen=True)
class Proposing:
    """How many boxes of a level are suppressed against each other, how many of a picture remain, above which IoU the
    worse one goes."""

    per_level: int
    most: int
    threshold: float = 0.7


@dataclasses.dataclass(frozen=True)
class Selecting:
    """Which detections of a picture are reported: see `ops.selection.detect`."""

    least_score: float = 0.05
    threshold: float = 0.5
    most: int = 100
    soft: str | None = None
    least_soft_score: float = 1e-3


@dataclasses.dataclass(frozen=True)
class TwoStage:
    """The numbers of a two-stage detector; the defaults are Mask R-CNN's as released with Swin (OpenMMLab 2.11).

    Attributes:
      anchor_scales: sides of the anchors, in strides of their level.
      anchor_ratios: heights over widths.
      allowed_border: pixels that an anchor may reach out of its picture and still be trained; None: any.
      anchor_matching, anchor_sampling: of the proposal network.
      train_proposals, test_proposals: what it hands on.
      roi_matching, roi_sampling: of the second stage; ground truth is among its candidates in training.
      roi_stds: of the box deltas.
      finest: pixels; RoIs up to twice that side read the finest level.
      points: RoIAlign's points per bin and axis, 0 for adaptive ones.
      roi_align: "gather", "separable", or "auto": the separable form on TPU.
      selecting: what is reported.
    """

    anchor_scales: tuple[float, ...] = (8.0,)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    allowed_border: float | None = None
    anchor_matching: Matching = Matching(0.7, 0.3, 0.3)
    anchor_sampling: Sampling = Sampling(256, 128)
    train_proposals: Proposing = Proposing(2000, 1000)
    test_proposals: Proposing = Proposing(1000, 1000)
    roi_matching: Matching = Matching(0.5, 0.5, 0.5)
    roi_sampling: Sampling = Sampling(512, 128)
    roi_stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    finest: float = FINEST
    points: int = ADAPTIVE
    roi_align: str = "auto"
    selecting: Selecting = Selecting()

    def __post_init__(self) -> None:
        if self.roi_align not in (AUTO, *METHODS):
            raise ValueError(
                f"detection.roi_align is {self.roi_align!r}; expected one of {', '.join((AUTO, *METHODS))}"
            )
        for field, drawn in (("anchor", self.anchor_sampling), ("roi", self.roi_sampling)):
            if not 0 < drawn.most_positive <= drawn.total:
                raise ValueError(
                    f"detection.{field}_positives is {drawn.most_positive}; expected 1 to the "
                    f"{field}_sample of {drawn.total}"
                )

    @property
    def anchors_per_cell(self) -> int:
        return len(self.anchor_scales) * len(self.anchor_ratios)


class Anchors(NamedTuple):
    """The anchors of a canvas, per level."""

    boxes: tuple[Float[Array, "_ 4"], ...]
    takes_part: tuple[Bool[Array, "batch _"], ...]
    names: tuple[Array, ...]


class Model:
    """A detector with its variables: what the functions below call. In training the model's state moves on."""

    def __init__(self, model: MaskRCNN, variables: Mapping[str, Any]) -> None:
        self.model = model
        self.variables = variables

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *arguments: self.model.apply(self.variables, *arguments, method=method)


def on_canvas(pyramid: Pyramid, sizes: Int32[Array, "batch 2"], valid: Array, settings: TwoStage) -> Anchors:
    """The anchors of a pyramid and which of them lie in each picture."""
    shapes = tuple((level.shape[1], level.shape[2]) for level in pyramid)
    strides = STRIDES[: len(pyramid)]
    count = settings.anchors_per_cell
    boxes = anchor_ops.pyramid_anchors(
        shapes, strides, scales=settings.anchor_scales, ratios=settings.anchor_ratios
    )
    inside = jax.vmap(lambda size: anchor_ops.valid_cells(shapes, strides, size, per_cell=count))(sizes)
    takes_part = tuple(level & valid[:, None] for level in inside)
    # Made once: where some are gathered or sorted, the TPU compiler would make each anew, and plans that for minutes.
    boxes, takes_part = jax.lax.optimization_barrier((boxes, takes_part))
    return Anchors(boxes, takes_part, anchor_ops.pyramid_names(shapes, per_cell=count))


def find_proposals(
    objectness: Pyramid, deltas: Pyramid, anchors: Anchors, sizes: Array, settings: Proposing
) -> Proposals:
    """The proposals of every picture."""

    def of_picture(objectness: Any, deltas: Any, takes_part: Any, size: Array) -> Proposals:
        return propose(
            objectness,
            deltas,
            anchors.boxes,
            takes_part,
            size,
            per_level=settings.per_level,
            most=settings.most,
            threshold=settings.threshold,
        )

    return jax.vmap(of_picture)(*per_anchor(objectness, deltas), list(anchors.takes_part), sizes)


def per_anchor(
    objectness: Pyramid, deltas: Pyramid
) -> tuple[list[Float[Array, "batch _"]], list[Float[Array, "batch _ 4"]]]:
    """The proposal network's maps as lists of anchors, level by level."""

    def flattened(level: Array) -> Array:
        # In two steps: of one, from a map of three channels to a line, the TPU compiler thinks for half a minute.
        batch, rows, *_ = level.shape
        return jax.lax.optimization_barrier(level.reshape(batch, rows, -1)).reshape(batch, -1)

    return [flattened(level) for level in objectness], [x.reshape(x.shape[0], -1, 4) for x in deltas]


def test_proposals(
    parts: Model,
    pyramid: Pyramid,
    sizes: Int32[Array, "batch 2"],
    valid: Bool[Array, " batch"],
    settings: TwoStage,
) -> Proposals:
    """The proposals of test pictures."""
    objectness, deltas = parts.propose(pyramid)
    anchors = on_canvas(pyramid, sizes, valid, settings)
    return find_proposals(objectness, deltas, anchors, sizes, settings.test_proposals)


def score_boxes(
    parts: Model, pyramid: Pyramid, rois: Float[Array, "batch n 4"], sizes: Array, settings: TwoStage
) -> tuple[Float[Array, "batch n classes_or_1 4"], Float[Array, "batch n classes"]]:
    """Where each class's object is for every RoI, clipped to the picture, and the classes' probabilities."""
    logits, deltas = classified(parts, pyramid, rois, settings)
    moved = box_ops.decode(jnp.broadcast_to(rois[:, :, None], deltas.shape), deltas, stds=settings.roi_stds)
    clipped = jax.vmap(box_ops.clip)(moved, sizes)
    return clipped, jax.nn.softmax(logits, axis=-1)[..., :-1]


def mask_probabilities(
    parts: Model, pyramid: Pyramid, boxes: Float[Array, "batch n 4"], labels: Array, settings: TwoStage
) -> Float[Array, "batch n size size"]:
    """The mask of each box's class."""
    logits = segmented(parts, pyramid, boxes, settings)
    of_class = labels[:, :, None, None, None] == jnp.arange(logits.shape[-1])[None, None, None, None]
    return jax.nn.sigmoid(jnp.sum(jnp.where(of_class, logits, 0.0), axis=-1))


def classified(parts: Model, pyramid: Pyramid, rois: Array, settings: TwoStage) -> tuple[Array, Array]:
    features = pool(pyramid, rois, BOX_SIZE, settings)
    logits, deltas = parts.classify(flat(features))
    count = rois.shape[:2]
    return logits.reshape(*count, -1), deltas.reshape(*count, -1, 4)


def segmented(parts: Model, pyramid: Pyramid, boxes: Array, settings: TwoStage) -> Array:
    features = pool(pyramid, boxes, MASK_SIZE, settings)
    logits = parts.segment(flat(features))
    return logits.reshape(*boxes.shape[:2], *logits.shape[1:])


def pool(
    pyramid: Pyramid, rois: Float[Array, "batch n 4"], size: int, settings: TwoStage
) -> Float[Array, "batch n size size channels"]:
    """RoIAlign on all levels but the last, which only proposals are made of."""
    levels = pyramid[:-1]
    read = level_of(rois, len(levels), finest=settings.finest)

    def pooled(method: str, *operands: Any) -> Array:
        pyramid, rois, read = operands
        return roi_align(
            pyramid,
            rois,
            strides=STRIDES[: len(levels)],
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
