"""Cascade Mask R-CNN (Cai and Vasconcelos, 2019) and Hybrid Task Cascade (Chen et al., 2019), and HTC++ of the paper.

Parameter paths beside those of the backbone, the neck and the proposal network, for the stages t:

    box_head{t}/...     `detection_heads.BoxHead`
    mask_head{t}/...    `detection_heads.MaskHead`; missing without masks
    semantic_head/...   `detection_heads.SemanticHead`, of HTC
    global_block/...    `GlobalBlock`, of HTC++
"""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from swin_jax.models import checks
from swin_jax.models.convolutions import AnyMap
from swin_jax.models.detection_heads import Levels, SemanticHead
from swin_jax.models.layers import TypedModule
from swin_jax.models.mask_rcnn import MaskRCNN, Masks
from swin_jax.models.vit import VitBlock

HEAD_CHANNELS, MLP_RATIO, QUERIES = 32, 4.0, 512
"""Of the global block: the channels of a head are Swin's; logits of so many queries are held at a time."""


class GlobalBlock(TypedModule):
    """One pre-norm Transformer block on a map: attention of all its cells, without position, and an MLP.

    Parameter paths: those of `vit.VitBlock`, below block/.
    """

    @nn.compact
    def __call__(self, x: AnyMap, train: bool) -> AnyMap:
        """Raises ValueError where the channels are no multiple of `HEAD_CHANNELS`, unless they are fewer."""
        batch, rows, columns, channels = x.shape
        if channels > HEAD_CHANNELS and channels % HEAD_CHANNELS:
            raise ValueError(
                f"global_attention needs a last map of a multiple of {HEAD_CHANNELS} channels, got {channels}"
            )
        heads = max(channels // HEAD_CHANNELS, 1)
        block = VitBlock(heads, MLP_RATIO, QUERIES, name="block", **self.types)
        return block(x.reshape(batch, rows * columns, channels), train).reshape(x.shape)


class CascadeMaskRCNN(MaskRCNN):
    """Three stages, each with a box and a mask head of its own, which sees the boxes of the stage before.

    The defaults are the box head of the cascades released with Swin: four convolutions with batch norm, a box for each
    class. The stock cascade has `box_convs=0` and `class_agnostic=True`.
    """

    STAGES: ClassVar[int] = 3

    box_convs: int = 4


class HybridTaskCascade(CascadeMaskRCNN):
    """A cascade whose mask heads pass on what they know, beside a semantic branch that all heads see.

    The defaults are the stock HTC's. HTC++, of which neither code nor configuration was released, is here what its
    published parameters and MACs fit: the cascades' box head of convolutions, and `global_attention`: one pre-norm
    Transformer block (attention of all tokens without position, MLP of 4 times the channels) on the backbone's last
    map, canvas and all.

    Attributes:
      semantic_classes: of the semantic branch; COCO's stuff maps have 183.
      global_attention: whether there is that block.
    """

    MASK_FLOW: ClassVar[bool] = True

    box_convs: int = 0
    class_agnostic: bool = True
    semantic_classes: int = 183
    global_attention: bool = False

    def __post_init__(self) -> None:
        checks.check_htc(self)
        super().__post_init__()

    def setup(self) -> None:
        super().setup()
        if self.global_attention:
            self.global_block = GlobalBlock(**self.types)
        self.semantic_head = SemanticHead(self.semantic_classes, self.channels, **self.types)

    def __call__(self, images: Array | np.ndarray, train: bool = False) -> Levels:
        """As `MaskRCNN`."""
        pyramid = super().__call__(images, train)
        if self.is_initializing():
            self.semantics(pyramid)
        return pyramid

    def features(self, images: Array | np.ndarray, train: bool = False) -> Levels:
        """As `MaskRCNN`."""
        *maps, last = self.backbone(images, train)
        return self.neck((*maps, self.global_block(last, train) if self.global_attention else last))

    def semantics(
        self, pyramid: Levels
    ) -> tuple[Float[Array, "batch rows columns classes"], Float[Array, "batch rows columns channels"]]:
        """As `SemanticHead`."""
        return self.semantic_head(pyramid)

    def segment(
        self, features: Float[Array, "n size size channels"], stages: Sequence[int] = (0,)
    ) -> tuple[Masks, ...]:
        """As `MaskRCNN`; each head takes up what the one before it makes of the same features."""
        known, logits = None, []
        for stage, head in enumerate(self.mask_heads[: max(stages) + 1]):
            known = head.transform(features, known)
            if stage in stages:
                logits.append(head.predict(known))
        return tuple(logits)
