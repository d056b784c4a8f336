"""Shifted windows by padding: the form that the cyclic shift is measured against (section 3.2, table 5).

Nothing re-enters on the other side. The map gets `window - shift` empty rows and columns above and to the left and
`shift` below and to the right, which no token attends to. There is one more window along each axis; every token
attends to the same tokens as with the cyclic shift and its mask.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from swin_jax.ops import windows
from swin_jax.ops.window_attention import xla


def shifted_by_padding(
    qkv: Float[Array, "batch height width channels3"],
    bias: Float[Array, "heads tokens tokens"],
    *,
    window: int,
    shift: int,
    pad_qkv: Float[Array, " channels3"],
    scale: float,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, "batch height width channels"]:
    """`window_attention` for a shift above 0, and its arguments; what fills the map up to whole windows is attended to
    as there."""
    _, height, width, _ = qkv.shape
    filled = windows.pad_to_windows(qkv, window, pad_qkv)
    above, below = window - shift, shift
    canvas = jnp.pad(filled, ((0, 0), (above, below), (above, below), (0, 0)))
    of_windows = window_parts(filled.shape[1], filled.shape[2], window, shift)
    mask = jnp.where(of_windows[:, :, None] == of_windows[:, None, :], 0.0, windows.MASKED)
    weights, values = xla.of_windows(windows.partition(canvas, window), bias, mask, scale=scale)
    out = xla.weighed(weights, values, dropout_rate, dropout_key)
    out = windows.reverse(out, window, canvas.shape[1], canvas.shape[2])
    return out[:, above : above + height, above : above + width]


def window_parts(height: int, width: int, window: int, shift: int) -> Int[np.ndarray, "windows tokens"]:
    """1 for the tokens of a map of whole windows and 0 for what surrounds it, in the order of the padded windows."""
    inside = np.pad(np.ones((height, width), np.int32), (window - shift, shift))
    rows, columns = (side // window for side in inside.shape)
    return inside.reshape(rows, window, columns, window).transpose(0, 2, 1, 3).reshape(-1, window * window)
