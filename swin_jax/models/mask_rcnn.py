"""Mask R-CNN (He et al., 2017) on any backbone of four maps, and Faster R-CNN where there are no masks.

The parts, which `tasks/two_stage.py` and `roi_heads.py` call one after the other: between them boxes are chosen, which
has no parameters. Parameter paths:

    backbone/...     those of the backbone
    neck/...         `necks.FPN`
    rpn/...          `detection_heads.RPNHead`
    box_head/...     `detection_heads.BoxHead`
    mask_head/...    `detection_heads.MaskHead`; missing without masks

A cascade (`cascade.py`) has several heads, box_head{t} and mask_head{t}.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from swin_jax.models import checks
from swin_jax.models.composed import Composed
from swin_jax.models.detection_heads import BoxHead, Levels, MaskHead, RPNHead
from swin_jax.models.necks import FPN

BOX_SIZE, MASK_SIZE = 7, 14
"""Cells a side of a RoI's features, as the two heads take them."""
STRIDES = (4, 8, 16, 32, 64)
"""Pixels per cell of the pyramid; boxes are read from all levels but the last."""

Masks = Float[Array, "n twice_size twice_size classes"]


class MaskRCNN(Composed):
    """A two-stage detector.

    Attributes:
      backbone: a module `(images, train) -> maps` at strides 4, 8, 16 and 32.
      num_classes: K, without the background.
      channels: of the pyramid, of the proposal network and of the box head's convolutions.
      box_convs: 3x3 convolutions of a box head; with any it has one linear layer, else two.
      fc_channels: of the box head's linear layers.
      mask_channels: of the mask head.
      mask_convs: 3x3 convolutions of the mask head.
      anchors_per_cell: shapes of anchors.
      class_agnostic: one box for all classes of a RoI.
      with_masks: whether there is a mask head.
    """

    STAGES: ClassVar[int] = 1
    """How often a RoI is judged, each time by heads of its own."""
    MASK_FLOW: ClassVar[bool] = False
    """Whether a mask head takes up what that of the stage before knows."""

    num_classes: int = 80
    channels: int = 256
    box_convs: int = 0
    fc_channels: int = 1024
    mask_channels: int = 256
    mask_convs: int = 4
    anchors_per_cell: int = 3
    class_agnostic: bool = False
    with_masks: bool = True

    def __post_init__(self) -> None:
        checks.check_mask_rcnn(self)
        super().__post_init__()

    def setup(self) -> None:
        self.neck = FPN(self.channels, **self.types)
        self.rpn = RPNHead(self.channels, self.anchors_per_cell, **self.types)
        box = (self.num_classes, self.fc_channels, self.class_agnostic, self.box_convs)
        self.box_heads = [BoxHead(*box, name=f"box_head{number}", **self.types) for number in self._numbers()]
        if self.with_masks:
            mask = (self.num_classes, self.mask_channels, self.mask_convs)
            self.mask_heads = [
                MaskHead(*mask, flow=self.MASK_FLOW and stage > 0, name=f"mask_head{number}", **self.types)
                for stage, number in enumerate(self._numbers())
            ]

    def _numbers(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.STAGES))) if self.STAGES > 1 else ("",)

    def __call__(self, images: Array | np.ndarray, train: bool = False) -> Levels:
        """The pyramid; while initialising it goes through all parts, so that all have their parameters."""
        pyramid = self.features(images, train)
        if self.is_initializing():
            self.propose(pyramid)
            for stage in range(self.STAGES):
                self.classify(jnp.zeros((1, BOX_SIZE, BOX_SIZE, self.channels), self.dtype), stage)
            if self.with_masks:
                roi = jnp.zeros((1, MASK_SIZE, MASK_SIZE, self.channels), self.dtype)
                self.segment(roi, tuple(range(self.STAGES)))
        return pyramid

    def features(self, images: Array | np.ndarray, train: bool = False) -> Levels:
        """Normalised pictures `[B, H, W, 3]` to maps `[B, h, w, channels]` at `STRIDES`."""
        return self.neck(self.backbone(images, train))

    def propose(self, pyramid: Levels) -> tuple[Levels, Levels]:
        """As `RPNHead`."""
        return self.rpn(pyramid)

    def classify(
        self,
        features: Float[Array, "n size size channels"],
        stage: int = 0,
        train: bool = False,
        valid: Bool[Array, " n"] | None = None,
    ) -> tuple[Float[Array, "n classes_and_background"], Float[Array, "n classes_or_1 4"]]:
        """As the `BoxHead` of a stage, of features `[N, 7, 7, channels]`."""
        return self.box_heads[stage](features, train, valid)

    def segment(
        self, features: Float[Array, "n size size channels"], stages: Sequence[int] = (0,)
    ) -> tuple[Masks, ...]:
        """As the `MaskHead` of each of the stages, of features `[N, 14, 14, channels]`."""
        return tuple(self.mask_heads[stage](features) for stage in stages)
