"""What the kernels of both halves compute: norm, GELU and their gradients, in float32."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-5
"""Of every layer norm, as in `models/layers.py`."""


class Normed(NamedTuple):
    values: Float[Array, "tokens channels"]  # with scale and bias
    plain: Float[Array, "tokens channels"]  # without
    inverse: Float[Array, "tokens 1"]  # of the standard deviation


def norm(x: Array, scale: Float[Array, "1 channels"], bias: Float[Array, "1 channels"]) -> Normed:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + EPSILON)
    plain = centred * inverse
    return Normed(plain * scale + bias, plain, inverse)


def norm_backward(normed: Normed, scale: Array, gradient: Array, d_scale: Any, d_bias: Any) -> Array:
    """The gradient of `x`; those of scale and bias are added to their sums `[1, channels]`."""
    d_scale[:] += jnp.sum(gradient * normed.plain, axis=0, keepdims=True)
    d_bias[:] += jnp.sum(gradient, axis=0, keepdims=True)
    of_plain = gradient * scale
    mean = jnp.mean(of_plain, axis=-1, keepdims=True)
    along = jnp.mean(of_plain * normed.plain, axis=-1, keepdims=True)
    return normed.inverse * (of_plain - mean - normed.plain * along)


def normal_distribution(x: Array) -> Array:
    return 0.5 * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


def gelu(x: Array) -> Array:
    return x * normal_distribution(x)


def gelu_slope(x: Array) -> Array:
    return normal_distribution(x) + x * jnp.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))


def add_product(into: Any, rows: Array, gradients: Array) -> None:
    """Adds `rows^T gradients` to the sum of a kernel's gradient."""
    into[:] += jax.lax.dot_general(
        rows, gradients, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )


def times(x: Array, kernel: Array) -> Array:
    return jnp.dot(x, kernel, preferred_element_type=jnp.float32)


def times_transposed(x: Array, kernel: Array) -> Array:
    return jax.lax.dot_general(x, kernel, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def begin(*sums: Any) -> None:
    """Sets the sums of a kernel to zero."""
    for one in sums:
        one[:] = jnp.zeros_like(one)
