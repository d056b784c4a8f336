"""Window attention in plain XLA operations: the reference every other implementation is held to."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from swin_jax.ops import windows

Heads = Float[Array, "batch windows heads tokens head_channels"]


def window_attention(
    qkv: Float[Array, "batch height width channels3"],
    bias: Float[Array, "heads tokens tokens"],
    *,
    window: int,
    shift: int,
    pad_qkv: Float[Array, " channels3"],
    scale: float | Float[Array, " heads"],
    normalize_qk: bool,
    dropout_rate: float,
    dropout_key: Key[Array, ""] | None,
) -> Float[Array, "batch height width channels"]:
    """See `swin_jax.ops.window_attention.window_attention`; arguments are already checked."""
    height, width = qkv.shape[1:3]
    weights, values = weights_and_values(
        qkv,
        bias,
        window=window,
        shift=shift,
        pad_qkv=pad_qkv,
        scale=scale,
        normalize_qk=normalize_qk,
    )
    return windows.stitch(weighed(weights, values, dropout_rate, dropout_key), window, shift, height, width)


def weights_and_values(
    qkv: Float[Array, "batch height width channels3"],
    bias: Float[Array, "heads tokens tokens"],
    *,
    window: int,
    shift: int,
    pad_qkv: Float[Array, " channels3"],
    scale: float | Float[Array, " heads"],
    normalize_qk: bool,
) -> tuple[Float[Array, "batch windows heads tokens tokens"], Heads]:
    """The softmax of the logits, float32, and what it weighs."""
    mask = None
    if shift:
        height, width = (windows.padded_size(side, window) for side in qkv.shape[1:3])
        mask = windows.shift_mask(height, width, window, shift)
    return of_windows(
        windows.cut(qkv, window, shift, pad_qkv), bias, mask, scale=scale, normalize_qk=normalize_qk
    )


def of_windows(
    qkv: Float[Array, "batch windows tokens channels3"],
    bias: Float[Array, "heads tokens tokens"],
    mask: Float[Array, "windows tokens tokens"] | None,
    *,
    scale: float | Float[Array, " heads"],
    normalize_qk: bool = False,
) -> tuple[Float[Array, "batch windows heads tokens tokens"], Heads]:
    """`weights_and_values` of windows that are cut already; `mask` is added to the logits of all heads."""
    q, k, v = (windows.split_heads(part, bias.shape[0]) for part in jnp.split(qkv, 3, axis=-1))
    if normalize_qk:
        q, k = _unit(q), _unit(k)
    logits = jnp.einsum("bwhid,bwhjd->bwhij", _scaled(q, scale), k, preferred_element_type=jnp.float32)
    logits = logits + bias.astype(jnp.float32)[None, None]
    if mask is not None:
        logits = logits + mask[None, :, None]
    return jax.nn.softmax(logits, axis=-1), v


def weighed(
    weights: Float[Array, "batch windows heads tokens tokens"],
    values: Heads,
    dropout_rate: float,
    dropout_key: Key[Array, ""] | None,
) -> Float[Array, "batch windows tokens channels"]:
    """The attended values, heads concatenated; weights are dropped if there is a key."""
    weights = _dropout(weights, dropout_rate, dropout_key)
    return windows.merge_heads(jnp.einsum("bwhij,bwhjd->bwhid", weights.astype(values.dtype), values))


def _unit(x: Heads) -> Heads:
    """Divides by the norm over a head's channels, which counts as 1e-12 at least (Swin V2's floor)."""
    wide = x.astype(jnp.float32)
    square = jnp.sum(wide * wide, axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(jnp.maximum(square, 1e-24))).astype(x.dtype)


def _scaled(q: Heads, scale: float | Float[Array, " heads"]) -> Heads:
    """Multiplies before the product with the keys, as published; a per-head scale multiplies in float32."""
    if isinstance(scale, Array):
        return (q.astype(jnp.float32) * scale.astype(jnp.float32)[None, None, :, None, None]).astype(q.dtype)
    return q * scale


def _dropout(
    weights: Float[Array, "batch windows heads tokens tokens"], rate: float, key: Key[Array, ""] | None
) -> Float[Array, "batch windows heads tokens tokens"]:
    if key is None or rate == 0.0:
        return weights
    kept = jax.random.bernoulli(key, 1.0 - rate, weights.shape)
    return jnp.where(kept, weights / (1.0 - rate), 0.0)
