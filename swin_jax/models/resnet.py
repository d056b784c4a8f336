"""ResNet (He et al., 2016, arXiv 1512.03385) and ResNeXt (Xie et al., 2017), as classifier and dense backbone.

The variant with the stride on the 3x3 convolution, which torchvision and the published detectors use. Parameter
paths (`conv`, `bn` and batch statistics as in `models/convolutions.py`):

    stem/{conv,bn}/...                                 or, with deep_stem, stem{0,1,2}/{conv,bn}/...
    stage{i}/block{j}/conv{1,2,3}/{conv,bn}/...        stage{i}/block0/shortcut/{conv,bn}/...
    head/{kernel, bias}                                (not with features_only)

Random numbers while training come from one collection, "dropout".
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from swin_jax.models import checks
from swin_jax.models.convolutions import AnyMap, ConvBatchNorm
from swin_jax.models.layers import TypedModule, drop_path_scales, scale_examples, uniform_of_fan_in

Pyramid = tuple[AnyMap, ...]
EXPANSION = 4
"""Channels of a block's output per channel of its (ungrouped) 3x3 convolution."""


class Bottleneck(TypedModule):
    """1x1, 3x3 and 1x1 convolution beside a shortcut, which is a convolution where the shape changes."""

    width: int
    features: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x: AnyMap, train: bool, branch_scale: Float[Array, " batch"] | None = None) -> AnyMap:
        """`branch_scale` is the block's of `drop_path_scales`; None drops no branch."""

        def convolve(name: str, x: AnyMap, features: int, kernel_size: int, **options: int) -> AnyMap:
            return ConvBatchNorm(features, kernel_size, name=name, **options, **self.types)(x, train)

        options = {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}
        out = convolve("conv1", x, self.width, 1)
        out = convolve("conv2", out, self.width, 3, **options)
        # Starting at scale 0 makes the block the identity at first (Goyal et al., 2017).
        out = convolve("conv3", out, self.features, 1, relu=False, zero_scale=True)
        if self.stride > 1 or x.shape[-1] != self.features:
            x = convolve("shortcut", x, self.features, 1, stride=self.stride, relu=False)
        return nn.relu(scale_examples(out, branch_scale) + x)


class ResNetStage(TypedModule):
    """Blocks on maps of one size; the first one shrinks."""

    depth: int
    width: int
    features: int
    stride: int
    dilation: int
    groups: int

    @nn.compact
    def __call__(
        self, x: AnyMap, train: bool, branch_scales: Float[Array, "blocks batch"] | None = None
    ) -> AnyMap:
        for index in range(self.depth):
            stride = self.stride if index == 0 else 1
            block = Bottleneck(
                self.width,
                self.features,
                stride,
                self.dilation,
                self.groups,
                name=f"block{index}",
                **self.types,
            )
            x = block(x, train, None if branch_scales is None else branch_scales[index])
        return x


class ResNet(TypedModule):
    """ResNet with bottleneck blocks: normalised pictures `[B, H, W, 3]` to logits, or maps at strides 4 to 32.

    Attributes:
      depths: blocks per stage.
      num_classes: outputs of the head; 0 leaves the pooled features `[B, C]`.
      groups: of the 3x3 convolutions (ResNeXt: 32 or 64).
      width_per_group: channels of a group in the first stage (ResNeXt: 4), doubled in every further stage.
      strides: of the first block of each stage.
      dilations: of the 3x3 convolutions of each stage.
      deep_stem: three 3x3 convolutions instead of one 7x7 (OpenMMLab's ResNetV1c).
      drop_path_rate: stochastic depth of the last block; grows linearly from 0 at the first.
      features_only: return the maps of `out_indices` instead of logits.
      out_indices: stages whose maps are returned; None means all.
      norm_eval: batch norm uses its running statistics and leaves them alone in training too, while scales and
        biases are trained: how detectors fine-tune a ResNet.
      frozen_stages: -1 trains everything, 0 freezes the stem, k the first k stages as well. Frozen parts get no
        gradient and run as in evaluation; `frozen` tells the optimizer.
      constrain: applied to the map after the stem and every stage: the place for a sharding constraint.
      dtype: type of activations; batch norm and the head are float32.
      param_dtype: type parameters are kept in.

    Raises:
      ValueError: when it is made, if a field makes no sense or fields do not fit together.
    """

    depths: Sequence[int] = (3, 4, 6, 3)
    num_classes: int = 1000
    groups: int = 1
    width_per_group: int = 64
    strides: Sequence[int] = (1, 2, 2, 2)
    dilations: Sequence[int] = (1, 1, 1, 1)
    deep_stem: bool = False
    drop_path_rate: float | int = 0.0
    features_only: bool = False
    out_indices: Sequence[int] | None = None
    norm_eval: bool = False
    frozen_stages: int = -1
    constrain: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        # Lists, as configs hold them, would make the module unhashable.
        for name in ("depths", "strides", "dilations", "out_indices"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, tuple(getattr(self, name)))
        checks.check_resnet(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Array | np.ndarray, train: bool = False) -> Array | Pyramid:
        """Logits `[B, num_classes]` float32, or with `features_only` a tuple of maps `[B, h, w, c]`.

        Args:
          images: normalised pictures `[B, H, W, 3]`, RGB, of any float type and any height and width.
          train: batch norm takes the batch's statistics (apply with `mutable=["batch_stats"]`), and drop path is
            on; with a rate above 0 it draws from the rng "dropout".

        Raises:
          ValueError: if `images` are not float pictures with 3 channels.
        """
        checks.check_images(images)
        scales = self._branch_scales(len(images)) if train and self.drop_path_rate > 0.0 else None
        train = train and not self.norm_eval
        x = self._keep(self._stem(jnp.asarray(images), train and self.frozen_stages < 0), 0)
        maps = []
        for index, depth in enumerate(self.depths):
            stage = ResNetStage(
                depth,
                width=self.groups * self.width_per_group * 2**index,
                features=64 * 2**index * EXPANSION,
                stride=self.strides[index],
                dilation=self.dilations[index],
                groups=self.groups,
                name=f"stage{index}",
                **self.types,
            )
            frozen, start = index + 1 <= self.frozen_stages, sum(self.depths[:index])
            branches = None if scales is None or frozen else scales[start : start + depth]
            x = stage(x, train and not frozen, branches)
            x = self._keep(x, index + 1)
            maps.append(x)
        if self.features_only:
            chosen = range(len(maps)) if self.out_indices is None else self.out_indices
            return tuple(maps[index] for index in chosen)
        return self._head(x)

    @property
    def num_layers(self) -> int:
        """Number of values of `layer_of`: the stem, every block, the head."""
        return sum(self.depths) + 2

    @nn.nowrap
    def layer_of(self, path: str) -> int:
        """The depth of a parameter, for layer-wise learning rates: the stem is 0, then every block is one."""
        first, *rest = path.split("/")
        if first.startswith("stem"):
            return 0
        if not first.startswith("stage"):
            return self.num_layers - 1
        stage = int(first.removeprefix("stage"))
        return sum(self.depths[:stage]) + int(rest[0].removeprefix("block")) + 1

    @nn.nowrap
    def frozen(self, path: str) -> bool:
        """Whether `frozen_stages` holds the parameter: an optimizer must not decay it either."""
        first = path.split("/")[0]
        if first.startswith("stem"):
            return self.frozen_stages >= 0
        return first.startswith("stage") and int(first.removeprefix("stage")) < self.frozen_stages

    def _branch_scales(self, examples: int) -> Float[Array, "blocks batch"]:
        rates = np.linspace(0.0, self.drop_path_rate, sum(self.depths))
        return drop_path_scales(self.make_rng("dropout"), rates.tolist(), examples)[:, 0]

    def _stem(self, images: Array, train: bool) -> AnyMap:
        """Pictures to 64 channels at stride 4."""
        if self.deep_stem:
            parts = (("stem0", 32, 3, 2), ("stem1", 32, 3, 1), ("stem2", 64, 3, 1))
        else:
            parts = (("stem", 64, 7, 2),)
        x = images.astype(self.dtype)
        for name, features, size, stride in parts:
            x = ConvBatchNorm(features, size, stride, name=name, **self.types)(x, train)
        # Zeros never win: after ReLU nothing is below them.
        return nn.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), strides=(2, 2))

    def _keep(self, x: AnyMap, part: int) -> AnyMap:
        """The map after a part, stopped for gradients if it is frozen."""
        x = x if self.constrain is None else self.constrain(x)
        return jax.lax.stop_gradient(x) if part <= self.frozen_stages else x

    def _head(self, x: AnyMap) -> Float[Array, "batch outputs"]:
        pooled = x.astype(jnp.float32).mean(axis=(1, 2))
        if not self.num_classes:
            return pooled
        init = uniform_of_fan_in(x.shape[-1])
        return nn.Dense(
            self.num_classes, kernel_init=init, bias_init=init, param_dtype=self.param_dtype, name="head"
        )(pooled)
