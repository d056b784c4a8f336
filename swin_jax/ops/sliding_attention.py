"""Sliding-window attention: every token attends to the window around it (Ramachandran et al., 2019; tables 5 and 6).

The border is padded with zeros: a neighbour outside of the map has the key and value 0, so that its logit is the bias
alone and every token has `window**2` keys.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from swin_jax.ops import windows

Heads = Float[Array, "batch height width heads head_channels"]


def sliding_attention_naive(
    qkv: Float[Array, "batch height width channels3"], bias: Float[Array, "offsets heads"], *, window: int
) -> Float[Array, "batch height width channels"]:
    """The keys and values of every token's window written out: `window**2` times the memory of the map.

    Args:
      qkv: as `window_attention` takes it.
      bias: added to the logit of the key at each offset, row by row from the upper left corner of the window.
      window: odd side of the window.

    Returns:
      The attended values in the type of `qkv`; logits and softmax are float32.

    Raises:
      ValueError: if the window is even or the bias has another number of offsets.
    """
    _check(bias, window)
    q, k, v = _heads(qkv, bias.shape[1])
    keys, values = _unfolded(k, window), _unfolded(v, window)
    logits = jnp.einsum("byxhd,byxohd->byxho", q, keys, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits + bias.T.astype(jnp.float32)[None, None, None], axis=-1)
    out = jnp.einsum("byxho,byxohd->byxhd", weights.astype(v.dtype), values)
    return out.reshape(*qkv.shape[:3], -1)


def sliding_attention(
    qkv: Float[Array, "batch height width channels3"], bias: Float[Array, "offsets heads"], *, window: int
) -> Float[Array, "batch height width channels"]:
    """The same numbers by tiles: `window` x `window` queries share the `(2 window - 1)**2` keys of their windows, of
    which each query counts its own. Matrix products only; keys are repeated fourfold at most, not `window**2` times.

    Arguments, result and errors as `sliding_attention_naive`.
    """
    _check(bias, window)
    batch, height, width, _ = qkv.shape
    q, k, v = _heads(qkv, bias.shape[1])
    queries = _tiles(q, window)
    keys, values = (_with_halo(x, window) for x in (k, v))
    index, near = _tile_offsets(window)
    own = jnp.take(bias.astype(jnp.float32), jnp.asarray(index), axis=0)
    own = jnp.where(jnp.asarray(near)[..., None], own, -jnp.inf)
    logits = jnp.einsum("bwqhd,bwkhd->bwhqk", queries, keys, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits + jnp.moveaxis(own, -1, 0)[None, None], axis=-1)
    out = jnp.einsum("bwhqk,bwkhd->bwqhd", weights.astype(v.dtype), values)
    out = out.reshape(batch, out.shape[1], window * window, -1)
    canvas = windows.reverse(
        out, window, windows.padded_size(height, window), windows.padded_size(width, window)
    )
    return canvas[:, :height, :width]


def _check(bias: Array, window: int) -> None:
    if window % 2 == 0:
        raise ValueError(f"a sliding window has a token in its middle: its side must be odd, got {window}")
    if bias.shape[0] != window * window:
        raise ValueError(f"the bias of a window of {window} has {window}**2 offsets, got {bias.shape[0]}")


def _heads(qkv: Array, heads: int) -> tuple[Heads, Heads, Heads]:
    """Queries, scaled as in window attention, keys and values by head."""
    batch, height, width, channels = qkv.shape
    parts = qkv.reshape(batch, height, width, 3, heads, channels // (3 * heads))
    q, k, v = (parts[:, :, :, part] for part in range(3))
    return q * q.shape[-1] ** -0.5, k, v


def _unfolded(x: Heads, window: int) -> Float[Array, "batch height width offsets heads head_channels"]:
    _, height, width, _, _ = x.shape
    radius = window // 2
    padded = jnp.pad(x, ((0, 0), (radius, radius), (radius, radius), (0, 0), (0, 0)))
    shifts = [(row, column) for row in range(window) for column in range(window)]
    return jnp.stack(
        [padded[:, row : row + height, column : column + width] for row, column in shifts], axis=3
    )


def _tiles(x: Heads, window: int) -> Float[Array, "batch tiles tokens heads head_channels"]:
    batch, height, width, heads, channels = x.shape
    flat = x.reshape(batch, height, width, heads * channels)
    cut = windows.partition(windows.pad_to_windows(flat, window, jnp.zeros(heads * channels)), window)
    return cut.reshape(batch, cut.shape[1], window * window, heads, channels)


def _with_halo(x: Heads, window: int) -> Float[Array, "batch tiles keys heads head_channels"]:
    """The `2 window - 1` rows and columns around each tile: its own and those of the next one that it reaches."""
    batch, height, width, heads, channels = x.shape
    radius, side = window // 2, 2 * window - 1
    rows, columns = (windows.padded_size(size, window) // window for size in (height, width))
    after = [
        (radius, (count + 1) * window - radius - size) for count, size in ((rows, height), (columns, width))
    ]
    x = jnp.pad(x, ((0, 0), *after, (0, 0), (0, 0)))
    x = x.reshape(batch, rows + 1, window, -1, heads, channels)
    x = jnp.concatenate([x[:, :-1], x[:, 1:, : window - 1]], axis=2)
    x = x.reshape(batch, rows, side, columns + 1, window, heads, channels)
    x = jnp.concatenate([x[:, :, :, :-1], x[:, :, :, 1:, : window - 1]], axis=4)
    return x.transpose(0, 1, 3, 2, 4, 5, 6).reshape(batch, rows * columns, side * side, heads, channels)


def _tile_offsets(window: int) -> tuple[Int[np.ndarray, "tokens keys"], Bool[np.ndarray, "tokens keys"]]:
    """For each query of a tile and each key around it: the number of their offset, and whether it is in the window."""
    query, key = np.arange(window), np.arange(2 * window - 1)
    offset = key[None] - query[:, None]  # along one axis, counted from the window's first
    near = (offset >= 0) & (offset < window)
    index = offset[:, None, :, None] * window + offset[None, :, None, :]
    both = near[:, None, :, None] & near[None, :, None, :]
    shape = window * window, (2 * window - 1) ** 2
    return np.where(both, index, 0).reshape(shape).astype(np.int32), both.reshape(shape)
