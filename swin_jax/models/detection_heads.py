"""The heads of two-stage detectors: proposals on every cell of a pyramid, classes and boxes of RoIs, masks of RoIs.

Initialised as in OpenMMLab's detectors. Logits and deltas are f32 whatever the compute type. Biases are no norms:
published recipes decay them.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from swin_jax.models.convolutions import AnyMap, Conv, Deconv2x2
from swin_jax.models.layers import Dense, TypedModule

Levels = tuple[AnyMap, ...]


def _predictor(head: TypedModule, features: int, name: str) -> nn.Conv:
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
    """Two linear layers on the flattened features of a RoI, then its classes and boxes.

    Attributes:
      num_classes: K, without the background.
      channels: of the linear layers.
      class_agnostic: one box for all classes.

    Parameter paths: fc0, fc1, classes, deltas, each {kernel, bias}; the rows of fc0's kernel are in the order (row,
    column, channel) of the features.
    """

    num_classes: int
    channels: int = 1024
    class_agnostic: bool = False

    @nn.compact
    def __call__(
        self, features: Float[Array, "n size size channels"]
    ) -> tuple[Float[Array, "n classes_and_background"], Float[Array, "n classes_or_1 4"]]:
        """Logits `[N, K + 1]`, the background last, and deltas `[N, K or 1, 4]`."""
        x = features.reshape(features.shape[0], -1)
        for index in range(2):
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

    Parameter paths: conv{i}, upsample, logits, each {kernel, bias}.
    """

    num_classes: int
    channels: int = 256
    num_convs: int = 4

    @nn.compact
    def __call__(
        self, features: Float[Array, "n size size channels"]
    ) -> Float[Array, "n twice_size twice_size classes"]:
        """Logits `[N, 2 size, 2 size, K]`."""
        x = features
        for index in range(self.num_convs):
            x = nn.relu(Conv(self.channels, (3, 3), use_bias=True, name=f"conv{index}", **self.types)(x))
        x = nn.relu(Deconv2x2(self.channels, name="upsample", **self.types)(x))
        return _predictor(self, self.num_classes, "logits")(x)
