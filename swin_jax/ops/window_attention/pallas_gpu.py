"""Window attention as one GPU kernel (NVIDIA, Ampere and later), written in Pallas and lowered through Triton.

A program takes one head of one window of several pictures: bias and mask are read once and stay in registers. Shift
and partition are addresses of what it reads and writes; scores never leave the registers. The backward kernel computes
them again from the same map, so that the forward pass saves nothing else, and gives one sum of the bias' gradient a
program, which XLA adds up in a fixed order.

Pallas calls this lowering deprecated since jax 0.11, in favour of Mosaic GPU. All that depends on it is in this module.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from swin_jax.ops import windows
from swin_jax.ops.window_attention import kernel_case
from swin_jax.ops.window_attention.kernel_case import ABSENT

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from jax.experimental.pallas import triton

LARGEST = 64
"""Tokens of a window whose scores fit into the registers of a program."""
PROGRAMS = 1024
"""About as many as keep a large GPU busy; more would write more sums of the bias' gradient."""
WARPS = 4


class Geometry(kernel_case.MapGeometry):
    """A map of whole windows, and how programs share it."""

    @property
    def tokens(self) -> int:
        """Of a window; products take the next power of two."""
        return self.window**2

    @property
    def padded(self) -> int:
        return max(16, 1 << (self.tokens - 1).bit_length())

    @property
    def windows(self) -> int:
        return self.rows * self.columns

    def groups(self, batch: int) -> int:
        """Of pictures, that a program goes through one by one."""
        wanted = max(1, PROGRAMS // (self.heads * self.windows))
        return max(count for count in range(1, min(wanted, batch) + 1) if batch % count == 0)


def unsupported(
    qkv: Float[Array, "batch height width channels3"],
    bias: Float[Array, "heads tokens tokens"],
    *,
    window: int,
    **fixed: Any,
) -> str:
    """Why the kernel cannot compute this, in a sentence; "" if it can. Arguments are those of `window_attention`."""
    if obstacle := kernel_case.unsupported(**fixed):
        return obstacle
    size = qkv.shape[-1] // (3 * bias.shape[0])
    if window**2 > LARGEST:
        return f"windows of {window} x {window} tokens exceed its {LARGEST}"
    if size < 16 or size & (size - 1):
        return f"heads have {size} channels, it takes powers of two from 16 on"
    return ""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(geometry: Geometry, qkv: Array, bias: Array) -> Array:
    out = jax.ShapeDtypeStruct((*qkv.shape[:3], qkv.shape[-1] // 3), qkv.dtype)
    return _call(_forward_kernel, geometry, (qkv, bias), (out,))[0]


def _attention_forward(geometry: Geometry, qkv: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
    return _attention(geometry, qkv, bias), (qkv, bias)


def _attention_backward(
    geometry: Geometry, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    qkv, bias = saved
    groups = geometry.groups(qkv.shape[0])
    sums = jax.ShapeDtypeStruct((groups * geometry.windows, *bias.shape), jnp.float32)
    results = (jax.ShapeDtypeStruct(qkv.shape, qkv.dtype), sums)
    d_qkv, d_bias = _call(_backward_kernel, geometry, (qkv, bias, gradient), results)
    return d_qkv, d_bias.sum(axis=0)


_attention.defvjp(_attention_forward, _attention_backward)


def _attend(geometry: Geometry, qkv: Array, bias: Array) -> Array:
    return _attention(geometry, qkv, bias)


window_attention = functools.partial(kernel_case.on_whole_windows, Geometry, _attend)


def _call(
    kernel: Callable[..., None],
    geometry: Geometry,
    arrays: tuple[Array, ...],
    results: tuple[jax.ShapeDtypeStruct, ...],
) -> tuple[Array, ...]:
    batch = arrays[0].shape[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return pl.pallas_call(
            functools.partial(kernel, geometry, batch // geometry.groups(batch)),
            out_shape=results,
            grid=(geometry.heads, geometry.windows, geometry.groups(batch)),
            compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
            interpret=geometry.interpret,
            name=kernel.__name__.strip("_"),
        )(*arrays)


class Place(NamedTuple):
    """What a program works on.

    Attributes:
      head: its number.
      present: `[padded]`, which tokens are of the window.
      rows, columns: `[padded]`, of the tokens in the map.
      added: `[padded, padded]`, to the logits.
    """

    head: Any
    present: Array
    rows: Array
    columns: Array
    added: Array


def _place(geometry: Geometry, bias: Any) -> Place:
    head, number = pl.program_id(0), pl.program_id(1)
    across = geometry.columns
    token = jnp.arange(geometry.padded, dtype=jnp.int32)
    row, column = token // geometry.window, token % geometry.window
    present = token < geometry.tokens
    both = present[:, None] & present[None, :]
    added = triton.load(_at(bias, head, token[:, None], token[None, :]), mask=both, other=0.0)
    if geometry.shift:
        edge = geometry.window - geometry.shift
        below = (number // across == geometry.rows - 1) & (row >= edge)
        beside = (number % across == across - 1) & (column >= edge)
        side = 2 * below.astype(jnp.int32) + beside.astype(jnp.int32)
        added = added + jnp.where(side[:, None] == side[None, :], 0.0, windows.MASKED)
    rows = number // across * geometry.window + row + geometry.shift
    return Place(
        head,
        present,
        # Outside of the map, and masked: a place in the map would be written twice where writes are interpreted.
        jnp.where(present, rows % geometry.height, geometry.height),
        (number % across * geometry.window + column + geometry.shift) % geometry.width,
        jnp.where(present[None, :], added, ABSENT),
    )


def _load(array: Any, picture: Any, place: Place, part: int, heads: int, size: int) -> Array:
    source = _address(array, picture, place, part * heads + place.head, size)
    return triton.load(source, mask=place.present[:, None], other=0.0)


def _store(array: Any, picture: Any, place: Place, part: int, heads: int, values: Array) -> None:
    target = _address(array, picture, place, part * heads + place.head, values.shape[-1])
    triton.store(target, values.astype(array.dtype), mask=place.present[:, None])


def _address(array: Any, picture: Any, place: Place, number: Any, size: int) -> Any:
    """The `size` channels with this number of a window's tokens."""
    channels = number * size + jnp.arange(size, dtype=jnp.int32)
    return _at(array, picture, place.rows[:, None], place.columns[:, None], channels[None, :])


def _at(array: Any, *indices: Any) -> Any:
    """All indices as arrays of one shape, which is what an interpreted kernel can follow too."""
    shape = jnp.broadcast_shapes(*(jnp.shape(index) for index in indices))
    return array.at[tuple(jnp.broadcast_to(jnp.asarray(index, jnp.int32), shape) for index in indices)]


def _of_head(geometry: Geometry, qkv: Any, picture: Any, place: Place) -> tuple[Array, Array, Array]:
    size = qkv.shape[-1] // (3 * geometry.heads)
    q, k, v = (_load(qkv, picture, place, part, geometry.heads, size) for part in range(3))
    return (q.astype(jnp.float32) * geometry.scale).astype(q.dtype), k, v


def _weights(q: Array, k: Array, added: Array) -> Float[Array, "padded padded"]:
    logits = _product(q, k, (1, 1)) + added
    powers = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    return powers / jnp.sum(powers, axis=-1, keepdims=True)


def _product(a: Array, b: Array, axes: tuple[int, int]) -> Array:
    """Sums over one axis of each, in float32."""
    numbers = (((axes[0],), (axes[1],)), ((), ()))
    return jax.lax.dot_general(a, b, numbers, preferred_element_type=jnp.float32)


def _forward_kernel(geometry: Geometry, pictures: int, qkv: Any, bias: Any, out: Any) -> None:
    place, first = _place(geometry, bias), pl.program_id(2) * pictures

    def attend(index: Any, _: None) -> None:
        q, k, v = _of_head(geometry, qkv, first + index, place)
        attended = _product(_weights(q, k, place.added).astype(v.dtype), v, (1, 0))
        _store(out, first + index, place, 0, geometry.heads, attended)

    jax.lax.fori_loop(0, pictures, attend, None)


def _backward_kernel(
    geometry: Geometry, pictures: int, qkv: Any, bias: Any, gradient: Any, d_qkv: Any, d_bias: Any
) -> None:
    place, group = _place(geometry, bias), pl.program_id(2)
    size = gradient.shape[-1] // geometry.heads

    def differentiate(index: Any, total: Array) -> Array:
        picture = group * pictures + index
        q, k, v = _of_head(geometry, qkv, picture, place)
        of_out = _load(gradient, picture, place, 0, geometry.heads, size)
        weights = _weights(q, k, place.added)
        of_v = _product(weights.astype(v.dtype), of_out, (0, 0))
        of_weights = _product(of_out, v, (1, 1))
        of_logits = weights * (of_weights - jnp.sum(of_weights * weights, axis=-1, keepdims=True))
        rounded = of_logits.astype(q.dtype)
        _store(d_qkv, picture, place, 0, geometry.heads, _product(rounded, k, (1, 0)) * geometry.scale)
        _store(d_qkv, picture, place, 1, geometry.heads, _product(rounded, q, (0, 0)))
        _store(d_qkv, picture, place, 2, geometry.heads, of_v)
        return total + of_logits

    nothing = jnp.zeros((geometry.padded, geometry.padded), jnp.float32)
    total = jax.lax.fori_loop(0, pictures, differentiate, nothing)
    token = jnp.arange(geometry.padded, dtype=jnp.int32)
    sum_of = group * geometry.windows + pl.program_id(1)
    target = _at(d_bias, sum_of, place.head, token[:, None], token[None, :])
    triton.store(target, total, mask=place.present[:, None] & place.present[None, :])
