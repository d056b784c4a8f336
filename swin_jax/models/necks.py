"""Between a backbone and a head: maps to maps."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from swin_jax.models.convolutions import AnyMap, BatchNorm, Conv, Deconv2x2
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


class FPN(TypedModule):
    """A feature pyramid (Lin et al., 2017): maps at strides 4 to 32 as maps of equal channels at strides 4 to 64.

    Each map is projected (1x1), takes up the coarser one by nearest neighbours, and is smoothed (3x3); all with bias
    and without norm or activation. The map at stride 64 is every second cell of that at 32. Parameter paths:
    lateral{i}/{kernel,bias}, output{i}/{kernel,bias}, from the finest map on.
    """

    channels: int = 256

    @nn.compact
    def __call__(self, maps: Pyramid) -> Pyramid:
        conv = functools.partial(
            Conv, self.channels, use_bias=True, kernel_init=nn.initializers.xavier_uniform(), **self.types
        )
        levels = [conv((1, 1), name=f"lateral{index}")(x) for index, x in enumerate(maps)]
        for index in reversed(range(len(levels) - 1)):
            levels[index] += doubled(levels[index + 1], like=levels[index])
        levels = [conv((3, 3), name=f"output{index}")(x) for index, x in enumerate(levels)]
        return (*levels, levels[-1][:, ::2, ::2])


def doubled(x: AnyMap, *, like: AnyMap) -> AnyMap:
    """Every cell four times, cut to the sides of `like` where those are odd: nearest neighbours."""
    twice = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return twice[:, : like.shape[1], : like.shape[2]]
