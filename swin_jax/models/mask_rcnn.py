"""Mask R-CNN (He et al., 2017) on any backbone of four maps, and Faster R-CNN where there are no masks.

The parts, which `tasks/two_stage.py` calls one after the other: between them boxes are chosen, which has no
parameters. Parameter paths:

    backbone/...     those of the backbone
    neck/...         `necks.FPN`
    rpn/...          `detection_heads.RPNHead`
    box_head/...     `detection_heads.BoxHead`
    mask_head/...    `detection_heads.MaskHead`; missing without masks
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from swin_jax.models import checks
from swin_jax.models.composed import Composed
from swin_jax.models.detection_heads import BoxHead, Levels, MaskHead, RPNHead
from swin_jax.models.necks import FPN

BOX_SIZE, MASK_SIZE = 7, 14
"""Cells a side of a RoI's features, as the two heads take them."""
STRIDES = (4, 8, 16, 32, 64)
"""Pixels per cell of the pyramid; boxes are read from all levels but the last."""


class MaskRCNN(Composed):
    """A two-stage detector.

    Attributes:
      backbone: a module `(images, train) -> maps` at strides 4, 8, 16 and 32.
      num_classes: K, without the background.
      channels: of the pyramid and of the proposal network.
      fc_channels: of the box head's linear layers.
      mask_channels: of the mask head.
      mask_convs: 3x3 convolutions of the mask head.
      anchors_per_cell: shapes of anchors.
      class_agnostic: one box for all classes of a RoI.
      with_masks: whether there is a mask head.
    """

    num_classes: int = 80
    channels: int = 256
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
        self.box_head = BoxHead(self.num_classes, self.fc_channels, self.class_agnostic, **self.types)
        if self.with_masks:
            self.mask_head = MaskHead(self.num_classes, self.mask_channels, self.mask_convs, **self.types)

    def __call__(self, images: Array | np.ndarray, train: bool = False) -> Levels:
        """The pyramid; while initialising it goes through all parts, so that all have their parameters."""
        pyramid = self.features(images, train)
        if self.is_initializing():
            self.propose(pyramid)
            self.classify(jnp.zeros((1, BOX_SIZE, BOX_SIZE, self.channels), self.dtype))
            if self.with_masks:
                self.segment(jnp.zeros((1, MASK_SIZE, MASK_SIZE, self.channels), self.dtype))
        return pyramid

    def features(self, images: Array | np.ndarray, train: bool = False) -> Levels:
        """Normalised pictures `[B, H, W, 3]` to maps `[B, h, w, channels]` at `STRIDES`."""
        return self.neck(self.backbone(images, train))

    def propose(self, pyramid: Levels) -> tuple[Levels, Levels]:
        """As `RPNHead`."""
        return self.rpn(pyramid)

    def classify(
        self, features: Float[Array, "n size size channels"]
    ) -> tuple[Float[Array, "n classes_and_background"], Float[Array, "n classes_or_1 4"]]:
        """As `BoxHead`, of features `[N, 7, 7, channels]`."""
        return self.box_head(features)

    def segment(
        self, features: Float[Array, "n size size channels"]
    ) -> Float[Array, "n twice_size twice_size classes"]:
        """As `MaskHead`, of features `[N, 14, 14, channels]`."""
        return self.mask_head(features)
