"""The heads of two-stage detectors: proposals on every cell of a pyramid; classes, boxes and masks of RoIs; semantics.

Initialised as in OpenMMLab's detectors. Logits and deltas are f32 whatever the compute type. Biases are no norms:
published recipes decay them.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from swin_jax.models.convolutions import AnyMap, Conv, ConvBatchNorm, Deconv2x2
from swin_jax.models.layers import Dense, TypedModule
from swin_jax.ops.resize import resize_bilinear

Levels = tuple[AnyMap, ...]
SEMANTIC_LEVEL = 1
"""The level of the pyramid that the semantic branch has the size of."""


def _predictor(head: TypedModule, features: int, name: str | None) -> nn.Conv:
    """A 1x1 convolution whose outputs are f32."""
    return Conv(
        features,
        (1, 1),
        use_bias=True,
        kernel_init=nn.initializers.normal(0.01),
        dtype=jnp.float32,
        param_dtype=head.param_dtype,
        name=name,
    )


class RPNHead(TypedModule):
    """The region proposal network (Ren et al., 2015), shared by the levels of a pyramid.

    Attributes:
      channels: of its 3x3 convolution.
      anchors_per_cell: shapes of anchors that every cell has.

    Parameter paths: conv, objectness, deltas, each {kernel, bias}.
    """

    channels: int = 256
    anchors_per_cell: int = 3

    @nn.compact
    def __call__(self, pyramid: Levels) -> tuple[Levels, Levels]:
        """Per level, objectness logits `[B, h, w, A]` and box deltas `[B, h, w, 4 A]`, A groups of (x, y, w, h)."""
        conv = Conv(
            self.channels,
            (3, 3),
            use_bias=True,
            kernel_init=nn.initializers.normal(0.01),
            name="conv",
            **self.types,
        )
        objectness = _predictor(self, self.anchors_per_cell, "objectness")
        deltas = _predictor(self, 4 * self.anchors_per_cell, "deltas")
        shared = [nn.relu(conv(level)) for level in pyramid]
        return tuple(objectness(x) for x in shared), tuple(deltas(x) for x in shared)


class BoxHead(TypedModule):
    """Convolutions, if any, and linear layers on the features of a RoI, then its classes and boxes.

    Two linear layers are the head of Mask R-CNN and of the stock cascades; four 3x3 convolutions with batch norm and
    one linear layer that of Swin's cascades.

    Attributes:
      num_classes: K, without the background.
      channels: of the linear layers.
      class_agnostic: one box for all classes.
      num_convs: convolutions, of as many channels as the features; with any there is one linear layer, else two.

    Parameter paths: conv{i}/{conv/kernel, bn/{scale, bias}} with running statistics, then fc0, fc1, classes, deltas,
    each {kernel, bias}; the rows of fc0's kernel are in the order (row, column, channel) of the features.
    """

    num_classes: int
    channels: int = 1024
    class_agnostic: bool = False
    num_convs: int = 0

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "n size size channels"],
        train: bool = False,
        valid: Bool[Array, " n"] | None = None,
    ) -> tuple[Float[Array, "n classes_and_background"], Float[Array, "n classes_or_1 4"]]:
        """Logits `[N, K + 1]`, the background last, and deltas `[N, K or 1, 4]`.

        Args:
          features: of RoIs.
          train: batch norms take the statistics of the batch,
          valid: of these RoIs of it.
        """
        x = features
        for index in range(self.num_convs):
            x = ConvBatchNorm(features.shape[-1], 3, name=f"conv{index}", **self.types)(x, train, valid)
        x = x.reshape(x.shape[0], -1)
        for index in range(1 if self.num_convs else 2):
            init = nn.initializers.xavier_uniform()
            x = nn.relu(Dense(self.channels, kernel_init=init, name=f"fc{index}", **self.types)(x))
        predict = functools.partial(Dense, dtype=jnp.float32, param_dtype=self.param_dtype)
        logits = predict(self.num_classes + 1, kernel_init=nn.initializers.normal(0.01), name="classes")(x)
        boxes = 1 if self.class_agnostic else self.num_classes
        deltas = predict(4 * boxes, kernel_init=nn.initializers.normal(0.001), name="deltas")(x)
        return logits, deltas.reshape(-1, boxes, 4)


class MaskHead(TypedModule):
    """Convolutions on the features of a RoI, then a mask of twice their side for every class (He et al., 2017).

    Attributes:
      num_classes: K.
      channels: of all convolutions.
      num_convs: 3x3 convolutions before the deconvolution.
      flow: takes up what the head before it knows, through a 1x1 convolution (HTC: Chen et al., 2019).

    Parameter paths: flow, with `flow`; conv{i}, upsample, logits, each {kernel, bias}.
    """

    num_classes: int
    channels: int = 256
    num_convs: int = 4
    flow: bool = False

    def setup(self) -> None:
        conv = functools.partial(Conv, self.channels, use_bias=True, **self.types)
        if self.flow:
            self.from_before = conv((1, 1), name="flow")
        self.convs = [conv((3, 3), name=f"conv{index}") for index in range(self.num_convs)]
        self.upsample = Deconv2x2(self.channels, **self.types)
        self.logits = _predictor(self, self.num_classes, None)

    def __call__(
        self, features: Float[Array, "n size size channels"]
    ) -> Float[Array, "n twice_size twice_size classes"]:
        """Logits `[N, 2 size, 2 size, K]` of a head on its own."""
        return self.predict(self.transform(features))

    def transform(
        self,
        features: Float[Array, "n size size channels"],
        before: Float[Array, "n size size _"] | None = None,
    ) -> Float[Array, "n size size _"]:
        """What the convolutions make of the features, and of the same of the head `before`."""
        x = features if before is None else features + nn.relu(self.from_before(before))
        for conv in self.convs:
            x = nn.relu(conv(x))
        return x

    def predict(self, x: Float[Array, "n size size _"]) -> Float[Array, "n twice_size twice_size classes"]:
        """Logits of what `transform` gives."""
        return self.logits(nn.relu(self.upsample(x)))


class SemanticHead(TypedModule):
    """The semantic branch of HTC (Chen et al., 2019): classes of every cell of the pyramid's second level.

    The levels are brought to the second one's size, bilinearly with the corners' centres aligned, projected, added up,
    and go through 3x3 convolutions; each with ReLU.

    Attributes:
      num_classes: of the label maps; COCO's stuff maps have 183.
      channels: of all convolutions.
      num_convs: 3x3 convolutions.

    Parameter paths: lateral{i}, conv{i}, embedding, logits, each {kernel, bias}.
    """

    num_classes: int
    channels: int = 256
    num_convs: int = 4

    @nn.compact
    def __call__(
        self, pyramid: Levels
    ) -> tuple[Float[Array, "batch rows columns classes"], Float[Array, "batch rows columns channels"]]:
        """Logits f32 of the cells, and features that RoIs read."""
        conv = functools.partial(Conv, self.channels, use_bias=True, **self.types)
        rows, columns = pyramid[SEMANTIC_LEVEL].shape[1:3]
        x = sum(
            nn.relu(
                conv((1, 1), name=f"lateral{index}")(
                    resize_bilinear(level, (rows, columns), align_corners=True)
                )
            )
            for index, level in enumerate(pyramid)
        )
        for index in range(self.num_convs):
            x = nn.relu(conv((3, 3), name=f"conv{index}")(x))
        logits = _predictor(self, self.num_classes, "logits")(x)
        return logits, nn.relu(conv((1, 1), name="embedding")(x))
