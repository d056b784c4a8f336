"""The parts that Swin models share: patch embedding, patch merging, MLP, stochastic depth, and their initialisation.

Maps are `[batch, height, width, channels]`. `dtype` is the type computed in, `param_dtype` the type
parameters are kept in; every norm computes in float32 whatever they are.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

EPSILON = 1e-5
"""Of every layer norm. Flax's default, 1e-6, gives other numbers than the published models."""

# Published as a normal distribution truncated at +-2, which is 100 standard deviations: no truncation.
small_normal = nn.initializers.normal(stddev=0.02)


@jax.custom_vjp
def matmul(
    x: Float[Array, "... inputs"], kernel: Float[Array, "inputs outputs"]
) -> Float[Array, "... outputs"]:
    """`x @ kernel`, whose gradient for the kernel is one product of two matrices.

    The derived one contracts batch, height and width as three axes, which XLA's CPU compiler answers with slow
    transposed copies: a training step of a small Swin took a quarter longer. Compiled for TPU both are the same
    program; flattening the forward product too would cost copies there.
    """
    return x @ kernel


def _matmul_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _matmul_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rows, gradients = (value.reshape(-1, value.shape[-1]) for value in (x, gradient))
    return gradient @ kernel.T, rows.T @ gradients


matmul.defvjp(_matmul_forward, _matmul_backward)


def _dot_general(x: Array, kernel: Array, dimension_numbers: Any, precision: Any = None) -> Array:
    """`matmul` in the form in which `nn.Dense` takes it; Dense asks for nothing but `x @ kernel`."""
    del dimension_numbers, precision
    return matmul(x, kernel)


Dense = functools.partial(nn.Dense, kernel_init=small_normal, dot_general=_dot_general)
# The one-pass variance E[x^2] - E[x]^2 that Flax takes by default loses digits in float32.
LayerNorm = functools.partial(nn.LayerNorm, epsilon=EPSILON, use_fast_variance=False)


class TypedModule(nn.Module, kw_only=True):
    """A module that is told which type to compute in (`dtype`) and to keep parameters in (`param_dtype`)."""

    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @property
    def types(self) -> dict[str, Any]:
        """Both, as keyword arguments for the modules inside."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


def uniform_of_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what the published code leaves the patch embedding at."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


@jax.custom_vjp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU in its exact form, x * Phi(x), computed in float32. The backward pass keeps x alone."""
    wide = x.astype(jnp.float32)
    return (wide * _normal_distribution(wide)).astype(x.dtype)


def _normal_distribution(x: Array) -> Array:
    return 0.5 * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    return gelu(x), x


def _gelu_backward(x: Array, gradient: Array) -> tuple[Array]:
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide * wide) / math.sqrt(2.0 * math.pi)
    return ((gradient * (_normal_distribution(wide) + wide * density)).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def pad_to_multiple(
    x: Float[Array, "batch height width channels"], multiple: int
) -> Float[Array, "batch padded_height padded_width channels"]:
    """Adds zeros below and to the right until height and width are multiples of `multiple`."""
    below, right = -x.shape[1] % multiple, -x.shape[2] % multiple
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0))) if below or right else x


def drop_path_scales(
    key: Key[Array, ""], rates: Sequence[float], examples: int
) -> Float[Array, "blocks branches=2 examples"]:
    """Stochastic depth (Huang et al., 2016): the factor of each residual branch of each example, float32.

    A branch of block `i` is dropped, 0, with probability `rates[i]`, else divided by the probability of keeping
    it. Both branches of every block draw for themselves.
    """
    keep = jnp.asarray([1.0 - rate for rate in rates], jnp.float32)[:, None, None]
    return jax.random.bernoulli(key, keep, (len(rates), 2, examples)) / keep


def scale_examples(
    x: Float[Array, "batch *positions channels"], scale: Float[Array, " batch"] | None
) -> Float[Array, "batch *positions channels"]:
    """Multiplies each example by its factor. None multiplies nothing."""
    if scale is None:
        return x
    # The factor stays float32: rounded to bfloat16 it would scale the kept branches wrongly.
    return (x * scale.reshape(-1, *(1,) * (x.ndim - 1))).astype(x.dtype)


class PatchProjection(TypedModule):
    """The same linear map of every patch. Its kernel is a convolution's, `[p, p, 3, features]`."""

    features: int
    patch_size: int

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch rows columns features"]:
        size, inputs = self.patch_size, images.shape[-1]
        fan_in = size * size * inputs
        init = uniform_of_fan_in(fan_in)
        kernel = self.param("kernel", init, (size, size, inputs, self.features), self.param_dtype)
        bias = self.param("bias", init, (self.features,), self.param_dtype)
        images = pad_to_multiple(images.astype(self.dtype), size)
        batch, height, width, _ = images.shape
        patches = images.reshape(batch, height // size, size, width // size, size, inputs)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // size, width // size, fan_in)
        tokens = matmul(patches, jnp.asarray(kernel, self.dtype).reshape(fan_in, self.features))
        return tokens + bias.astype(self.dtype)[None, None, None]


class PatchEmbed(TypedModule):
    """Embeds the patches of pictures (section 3.1), which are padded with zeros to whole patches."""

    features: int
    patch_size: int
    norm: bool = True

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch rows columns features"]:
        tokens = PatchProjection(self.features, self.patch_size, name="proj", **self.types)(images)
        return LayerNorm(name="norm", **self.types)(tokens) if self.norm else tokens


class PatchMerging(TypedModule):
    """Halves a map: joins 2x2 neighbours, normalises, projects 4C to 2C without bias (section 3.1).

    The quarters are joined in the published order (row, column) = (0,0), (1,0), (0,1), (1,1): rows run
    fastest. An odd side gets a line of zeros first.
    """

    features: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch half_height half_width features"]:
        x = merge_quarters(pad_to_multiple(x, 2))
        x = LayerNorm(name="norm", **self.types)(x)
        return Dense(self.features, use_bias=False, name="reduction", **self.types)(x)


def merge_quarters(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch half_height half_width channels4"]:
    """2x2 neighbours side by side in the channels, in the order of `PatchMerging`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, 4 * channels)


class Mlp(TypedModule):
    """Linear, GELU, linear, with dropout after each; `dense` makes the linear maps."""

    hidden: int
    drop_rate: float = 0.0
    dense: Callable[..., nn.Module] = Dense

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *positions channels"], train: bool
    ) -> Float[Array, "batch *positions channels"]:
        hidden = gelu(self.dense(self.hidden, name="fc1", **self.types)(x))
        hidden = nn.Dropout(self.drop_rate, deterministic=not train)(hidden)
        out = self.dense(x.shape[-1], name="fc2", **self.types)(hidden)
        return nn.Dropout(self.drop_rate, deterministic=not train)(out)
