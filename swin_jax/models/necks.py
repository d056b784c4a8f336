"""Between a backbone and a head: maps to maps."""

import flax.linen as nn
import jax.numpy as jnp

from swin_jax.models.convolutions import AnyMap, BatchNorm, Deconv2x2
from swin_jax.models.layers import TypedModule, gelu

Pyramid = tuple[AnyMap, ...]


class DeconvPyramid(TypedModule):
    """The one map of a plain ViT at stride 16 as four at strides 4, 8, 16 and 32, of the same channels.

    The Swin paper builds the pyramid of its DeiT-S baselines (tables 2 and 3) "by deconvolution" and gives no
    details. Here: two 2x2 deconvolutions with batch norm and GELU between them, one deconvolution, nothing, a
    2x2 max pooling. The paper's parameter count of 52M is that of a pyramid without these deconvolutions'
    1.8M. Parameter paths: up4_0/{kernel,bias}, bn/{scale,bias}, up4_1/..., up8/....
    """

    @nn.compact
    def __call__(self, x: AnyMap, train: bool) -> Pyramid:
        channels = x.shape[-1]
        finest = Deconv2x2(channels, name="up4_0", **self.types)(x)
        finest = gelu(BatchNorm(name="bn", **self.types)(finest, train))
        finest = Deconv2x2(channels, name="up4_1", **self.types)(finest)
        finer = Deconv2x2(channels, name="up8", **self.types)(x)
        below, right = x.shape[1] % 2, x.shape[2] % 2
        lowest = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
        return finest, finer, x, nn.max_pool(lowest, (2, 2), strides=(2, 2))
