"""Convolution, batch norm, ReLU, deconvolution: the parts of ResNets and of segmentation and detection heads.

Parameters of a `ConvBatchNorm`: `conv/kernel [k, k, inputs, features]` and `bn/{scale, bias}`; its running
statistics `bn/{mean, var}` are in the collection "batch_stats". The norm is called bn because published dense
recipes spare the parameters called "norm" from weight decay, and these are not among them.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from swin_jax.models.layers import EPSILON, TypedModule, matmul

MOMENTUM = 0.9
"""Share of the running statistics that a step keeps (PyTorch calls the rest, 0.1, the momentum)."""

Map = Float[Array, "batch height width channels"]
AnyMap = Float[Array, "batch _ _ _"]
"""A map whose axes stay unnamed: within one signature a name stands for one size."""

# He et al. (2015), by the number of outputs, as the published ResNets and heads are initialised.
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
Conv = functools.partial(nn.Conv, use_bias=False, kernel_init=he_normal)


class BatchNorm(TypedModule):
    """Batch norm (Ioffe and Szegedy, 2015) with the statistics of the whole batch, in float32.

    Under `jit` the batch is the global one, however it is sharded: nothing needs synchronising. The batch is
    normalised by its biased variance while the running variance takes the unbiased one, as in PyTorch; Flax's
    own batch norm keeps the biased one.

    Attributes:
      zero_scale: start at scale 0, which makes a residual branch the identity (Goyal et al., 2017).
    """

    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: Map, train: bool, valid: Bool[Array, " batch"] | None = None) -> Map:
        """Normalises over all axes but the last; `train` takes the batch's statistics and moves the running ones.

        Args:
          x: to be normalised.
          train: whose statistics.
          valid: rows that count in the batch's statistics; all by default. Without any the running ones stay.

        Raises:
          ValueError: in training, if the batch holds a single value per channel.
        """
        shape = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale_init = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self.param("scale", scale_init, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        wide = x.astype(jnp.float32)
        if train:
            centre, spread, values = _statistics(wide, valid)
            if not self.is_initializing():
                self._move(mean, centre, values)
                self._move(var, spread * (values / jnp.maximum(values - 1, 1)), values)
        else:
            centre, spread = jnp.asarray(mean.value), jnp.asarray(var.value)
        factor = jax.lax.rsqrt(spread + EPSILON) * jnp.asarray(scale, jnp.float32)
        out = (wide - _per_channel(centre)) * _per_channel(factor)
        out += _per_channel(jnp.asarray(bias, jnp.float32))
        return out.astype(self.dtype)

    @staticmethod
    def _move(running: nn.Variable, of_batch: Float[Array, " channels"], values: Array | int) -> None:
        moved = MOMENTUM * running.value + (1.0 - MOMENTUM) * of_batch
        running.value = jnp.where(values > 0, moved, running.value)


def _per_channel(values: Float[Array, " channels"]) -> Float[Array, "1 1 1 channels"]:
    return values[None, None, None]


def _statistics(
    x: Map, valid: Bool[Array, " batch"] | None
) -> tuple[Float[Array, " channels"], Float[Array, " channels"], Array | int]:
    """Mean and biased variance per channel, the variance around the mean: E[x^2] - E[x]^2 loses digits; and of how many
    values."""
    if x.size == x.shape[-1]:
        raise ValueError(
            f"batch norm needs more than one value per channel in training, got a map {x.shape}: "
            "train with a larger batch (or picture)"
        )
    axes = tuple(range(x.ndim - 1))
    if valid is None:
        centre = jnp.mean(x, axis=axes)
        return centre, jnp.mean(jnp.square(x - _per_channel(centre)), axis=axes), x.size // x.shape[-1]
    counts = valid[:, None, None, None]
    values = jnp.sum(valid) * (x.shape[1] * x.shape[2])
    share = 1.0 / jnp.maximum(values, 1)
    centre = jnp.sum(jnp.where(counts, x, 0.0), axis=axes) * share
    apart = jnp.where(counts, x - _per_channel(centre), 0.0)
    return centre, jnp.sum(jnp.square(apart), axis=axes) * share, values


class ConvBatchNorm(TypedModule):
    """Convolution without bias, batch norm, and ReLU unless `relu` is False. Sides shrink by `stride` alone."""

    features: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    relu: bool = True
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: Map, train: bool, valid: Bool[Array, " batch"] | None = None) -> AnyMap:
        """`train` and `valid` as of `BatchNorm`."""
        x = Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            padding=self.dilation * (self.kernel_size // 2),
            kernel_dilation=self.dilation,
            feature_group_count=self.groups,
            name="conv",
            **self.types,
        )(x)
        x = BatchNorm(self.zero_scale, name="bn", **self.types)(x, train, valid)
        return nn.relu(x) if self.relu else x


class Deconv2x2(TypedModule):
    """Transposed convolution of kernel 2 and stride 2, with bias: every cell becomes four.

    Its kernel is `[2, 2, inputs, features]`, the first two axes the place of the new cell in the old. As the new
    cells do not overlap it is one matrix product.
    """

    features: int

    @nn.compact
    def __call__(self, x: Map) -> Float[Array, "batch twice_height twice_width features"]:
        batch, height, width, inputs = x.shape
        kernel = self.param("kernel", he_normal, (2, 2, inputs, self.features), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        flat = jnp.asarray(kernel, self.dtype).transpose(2, 0, 1, 3).reshape(inputs, 4 * self.features)
        cells = matmul(x.astype(self.dtype), flat).reshape(batch, height, width, 2, 2, self.features)
        cells = cells.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, self.features)
        return cells + jnp.asarray(bias, self.dtype)[None, None, None]
