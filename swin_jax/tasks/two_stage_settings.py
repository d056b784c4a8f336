"""The numbers of two-stage detectors, and those that each kind of model was published with (OpenMMLab 2.11)."""

import dataclasses

from swin_jax.models.cascade import HybridTaskCascade
from swin_jax.models.mask_rcnn import MaskRCNN
from swin_jax.ops.roi_align import ADAPTIVE, FINEST

METHODS, AUTO = ("gather", "separable"), "auto"
SOFT = ("linear", "gaussian")
BOX_LOSSES = ("l1", "smooth_l1", "giou")
Four = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Matching:
    """From which IoU a candidate is positive, below which negative, and the least of the low-quality rule."""

    positive_iou: float
    negative_iou: float
    low_quality_iou: float | None

    def __post_init__(self) -> None:
        if not 0 < self.negative_iou <= self.positive_iou <= 1:
            raise ValueError(
                f"an IoU of detection.roi_ious is {self.positive_iou}; expected a share above 0 and at most 1"
            )


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
    candidates: int = 4096

    def __post_init__(self) -> None:
        if self.soft is not None and self.soft not in SOFT:
            raise ValueError(
                f"detection.soft_nms is {self.soft!r}; expected one of {', '.join(SOFT)}, or nothing"
            )


@dataclasses.dataclass(frozen=True)
class BoxLoss:
    """How far a box is from its target.

    Attributes:
      kind: "l1" or "smooth_l1" of deltas, "giou" of decoded boxes.
      weight: of the loss.
      beta: where the smooth one becomes linear.
    """

    kind: str = "l1"
    weight: float | int = 1.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in BOX_LOSSES:
            raise ValueError(f"detection.box_loss is {self.kind!r}; expected one of {', '.join(BOX_LOSSES)}")
        if self.weight < 0:
            raise ValueError(f"detection.box_weight is {self.weight}; expected 0 or more")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One of a detector's looks at a RoI.

    Attributes:
      matching: which RoIs it learns from as positives.
      stds: of its box deltas.
      weight: of its losses.
    """

    matching: Matching = Matching(0.5, 0.5, 0.5)
    stds: Four = (0.1, 0.1, 0.2, 0.2)
    weight: float | int = 1.0


@dataclasses.dataclass(frozen=True)
class TwoStage:
    """The numbers of a two-stage detector; the defaults are Mask R-CNN's as released with Swin.

    Attributes:
      anchor_scales: sides of the anchors, in strides of their level.
      anchor_ratios: heights over widths.
      allowed_border: pixels that an anchor may reach out of its picture and still be trained; None: any.
      anchor_matching, anchor_sampling, anchor_box_loss: of the proposal network.
      train_proposals, test_proposals: what it hands on.
      stages: of the heads; ground truth is among each one's candidates in training.
      test_stages: how many of the stages judge test pictures; None: all.
      roi_sampling: of every stage.
      box_loss: of every stage.
      interleaved: a stage's mask head learns from the boxes that its box head has moved (HTC).
      semantic_weight: of the loss of the semantic branch, where there is one.
      finest: pixels; RoIs up to twice that side read the finest level.
      points: RoIAlign's points per bin and axis, 0 for adaptive ones.
      roi_align: "gather", "separable", or "auto": the separable form on TPU.
      selecting: what is reported.
    """

    anchor_scales: tuple[float, ...] = (8.0,)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    allowed_border: float | int | None = None
    anchor_matching: Matching = Matching(0.7, 0.3, 0.3)
    anchor_sampling: Sampling = Sampling(256, 128)
    anchor_box_loss: BoxLoss = BoxLoss()
    train_proposals: Proposing = Proposing(2000, 1000)
    test_proposals: Proposing = Proposing(1000, 1000)
    stages: tuple[Stage, ...] = (Stage(),)
    test_stages: int | None = None
    roi_sampling: Sampling = Sampling(512, 128)
    box_loss: BoxLoss = BoxLoss()
    interleaved: bool = False
    semantic_weight: float | int = 0.2
    finest: float = FINEST
    points: int = ADAPTIVE
    roi_align: str = "auto"
    selecting: Selecting = Selecting()

    def __post_init__(self) -> None:
        if self.roi_align not in (AUTO, *METHODS):
            raise ValueError(
                f"detection.roi_align is {self.roi_align!r}; expected one of {', '.join((AUTO, *METHODS))}"
            )
        if self.test_stages is not None and not 0 < self.test_stages <= len(self.stages):
            raise ValueError(
                f"detection.test_stages is {self.test_stages}; expected 1 to the model's {len(self.stages)} stages"
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

    @property
    def tested(self) -> tuple[Stage, ...]:
        """The stages that judge test pictures."""
        return self.stages[: self.test_stages]


IOUS = (0.5, 0.6, 0.7)
STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
WEIGHTS = (1.0, 0.5, 0.25)


def published_settings(model: MaskRCNN) -> TwoStage:
    """The settings that models like this one were published with.

    Swin's cascades learn decoded boxes by GIoU with weight 10, the stock ones deltas by smooth L1; what tells them
    apart here is the box head's convolutions. HTC takes low-quality matches and reports what scores above .001.
    """
    if model.STAGES == 1:
        return TwoStage()
    hybrid = isinstance(model, HybridTaskCascade)
    stages = tuple(
        Stage(Matching(iou, iou, iou if hybrid else None), stds, weight)
        for iou, stds, weight in zip(IOUS, STDS, WEIGHTS, strict=True)
    )
    return TwoStage(
        allowed_border=0.0,
        anchor_box_loss=BoxLoss("smooth_l1", beta=1 / 9),
        train_proposals=Proposing(2000, 2000),
        stages=stages,
        box_loss=BoxLoss("giou", weight=10.0) if model.box_convs else BoxLoss("smooth_l1"),
        interleaved=hybrid,
        selecting=Selecting(least_score=1e-3, candidates=8192) if hybrid else Selecting(),
    )
