"""UperNet (Xiao et al., 2018, arXiv 1807.10221) on any backbone of four maps, with an auxiliary FCN head.

Parameter paths (`conv`, `bn` and batch statistics as in `models/convolutions.py`):

    backbone/...                                        those of the backbone
    decode_head/pool{1,2,3,6}/{conv,bn}/...             the branches of pyramid pooling, by their bins a side
    decode_head/bottleneck/{conv,bn}/...                joins them with the last map
    decode_head/lateral{i}/..., decode_head/fpn{i}/...  of the map at stride 4 * 2^i, i = 0 .. 2
    decode_head/fuse/..., decode_head/classifier/{kernel, bias}
    auxiliary_head/conv{i}/..., auxiliary_head/classifier/{kernel, bias}

Random numbers while training come from one collection, "dropout".
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from swin_jax.models import checks
from swin_jax.models.composed import Composed
from swin_jax.models.convolutions import AnyMap, Conv, ConvBatchNorm
from swin_jax.models.layers import TypedModule
from swin_jax.ops.resize import adaptive_average_pool, resize_bilinear

Pyramid = tuple[AnyMap, ...]
Logits = Float[Array, "batch rows columns classes"]


class SegmentationHead(TypedModule):
    """What the two heads share: the end, from features to logits.

    Attributes:
      num_classes: classes of a cell.
      channels: of the features that are classified.
      drop_rate: share of the channels dropped, whole, before the classifier.
    """

    num_classes: int
    channels: int
    drop_rate: float

    def classify(self, features: AnyMap, train: bool) -> Logits:
        """Logits in float32, whatever the compute type."""
        kept = nn.Dropout(self.drop_rate, broadcast_dims=(1, 2), deterministic=not train)(features)
        return Conv(
            self.num_classes,
            (1, 1),
            use_bias=True,
            kernel_init=nn.initializers.normal(0.01),
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            name="classifier",
        )(kept)

    def convolve(self, name: str, x: AnyMap, kernel_size: int, train: bool) -> AnyMap:
        """A convolution to `channels` with batch norm and ReLU."""
        return ConvBatchNorm(self.channels, kernel_size, name=name, **self.types)(x, train)


class UperHead(SegmentationHead):
    """Pyramid pooling of the coarsest map, a feature pyramid down to the finest, and their fusion.

    Attributes:
      pool_scales: bins a side of each branch of the pyramid pooling module.
      align_corners: of every resize, see `ops.resize.resize_bilinear`.
    """

    pool_scales: Sequence[int]
    align_corners: bool

    @nn.compact
    def __call__(self, maps: Pyramid, train: bool) -> Logits:
        """Logits at the size of the finest map."""
        *finer, last = maps
        levels = [self.convolve(f"lateral{index}", x, 1, train) for index, x in enumerate(finer)]
        levels.append(self._pool(last, train))
        for index in reversed(range(len(finer))):
            levels[index] += self._resize(levels[index + 1], levels[index])
        levels[:-1] = [self.convolve(f"fpn{index}", x, 3, train) for index, x in enumerate(levels[:-1])]
        joined = jnp.concatenate([self._resize(level, levels[0]) for level in levels], axis=-1)
        return self.classify(self.convolve("fuse", joined, 3, train), train)

    def _pool(self, x: AnyMap, train: bool) -> AnyMap:
        """The pyramid pooling module of PSPNet (Zhao et al., 2017)."""
        branches = [x]
        for scale in self.pool_scales:
            pooled = adaptive_average_pool(x, (scale, scale))
            branches.append(self._resize(self.convolve(f"pool{scale}", pooled, 1, train), x))
        return self.convolve("bottleneck", jnp.concatenate(branches, axis=-1), 3, train)

    def _resize(self, x: AnyMap, like: AnyMap) -> AnyMap:
        return resize_bilinear(x, (like.shape[1], like.shape[2]), align_corners=self.align_corners)


class FcnHead(SegmentationHead):
    """Convolutions on one map, then its logits: the auxiliary head (Long et al., 2015)."""

    num_convs: int

    @nn.compact
    def __call__(self, x: AnyMap, train: bool) -> Logits:
        for index in range(self.num_convs):
            x = self.convolve(f"conv{index}", x, 3, train)
        return self.classify(x, train)


class UperNet(Composed):
    """Normalised pictures `[B, H, W, 3]` of any size to logits of every 4x4 cell.

    Attributes:
      backbone: a module `(images, train) -> maps` at strides 4, 8, 16 and 32.
      num_classes: classes of a pixel.
      channels: of every convolution of the decode head.
      pool_scales: bins a side of the pyramid pooling module.
      head_drop_rate: dropout of whole channels before both classifiers.
      auxiliary_channels: of the auxiliary head.
      auxiliary_convs: its convolutions.
      auxiliary_index: the map it stands on.
      align_corners: of every resize in the decode head.
    """

    num_classes: int = 150
    channels: int = 512
    pool_scales: Sequence[int] = (1, 2, 3, 6)
    head_drop_rate: float = 0.1
    auxiliary_channels: int = 256
    auxiliary_convs: int = 1
    auxiliary_index: int = 2
    align_corners: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.pool_scales, list):
            self.pool_scales = tuple(self.pool_scales)
        checks.check_upernet(self)
        super().__post_init__()

    def setup(self) -> None:
        self.decode_head = UperHead(
            num_classes=self.num_classes,
            channels=self.channels,
            drop_rate=self.head_drop_rate,
            pool_scales=self.pool_scales,
            align_corners=self.align_corners,
            **self.types,
        )
        self.auxiliary_head = FcnHead(
            num_classes=self.num_classes,
            channels=self.auxiliary_channels,
            drop_rate=self.head_drop_rate,
            num_convs=self.auxiliary_convs,
            **self.types,
        )

    def __call__(
        self, images: Array | np.ndarray, train: bool = False
    ) -> tuple[Logits, Float[Array, "batch _ _ classes"] | None]:
        """Logits f32 `[B, ceil(H/4), ceil(W/4), K]`, and in training the auxiliary head's, at stride 16.

        Args:
          images: normalised pictures `[B, H, W, 3]`, RGB, of any float type and any height and width.
          train: batch norm takes the batch's statistics (apply with `mutable=["batch_stats"]`); dropout and
            drop path draw from the rng "dropout". Otherwise the second value is None.

        Raises:
          ValueError: if `images` are not float pictures with 3 channels.
        """
        maps = self.encode(images, train)
        # The auxiliary head has its parameters from the first call on, whatever that call is.
        auxiliary = self.auxiliary(maps, train) if train or self.is_initializing() else None
        return self.decode(maps, train), auxiliary if train else None

    def encode(self, images: Array | np.ndarray, train: bool = False) -> Pyramid:
        """The backbone's maps."""
        return self.backbone(images, train)

    def decode(self, maps: Pyramid, train: bool = False) -> Logits:
        """Maps to logits at the size of the finest."""
        return self.decode_head(maps, train)

    def auxiliary(self, maps: Pyramid, train: bool = False) -> Logits:
        """Maps to the logits of the auxiliary head."""
        return self.auxiliary_head(maps[self.auxiliary_index], train)
