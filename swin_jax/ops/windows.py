"""Windows: partition and reverse, cyclic shift, region ids, relative positions.

Swin Transformer (Liu et al., 2021), section 3.2. A map is `[batch, height, width, channels]`; its windows are
`[batch, windows, tokens, channels]`, windows and the tokens inside a window both counted row by row. All
index tables are numpy arrays that depend on static sizes only: they become small constants of the compiled
program.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

MASKED = -100.0
"""Added to the logits between tokens of different regions. Finite, as published; exp(-100) is 4e-44."""


def padded_size(size: int, window: int) -> int:
    """The next multiple of `window` that is not below `size`."""
    return -(-size // window) * window


def pad_to_windows(
    x: Shaped[Array, "batch height width channels"], window: int, value: Shaped[Array, " channels"]
) -> Shaped[Array, "batch padded_height padded_width channels"]:
    """Pads below and to the right to multiples of `window`; every padded token is `value`."""
    batch, height, width, channels = x.shape
    below, right = padded_size(height, window) - height, padded_size(width, window) - width
    value = value.astype(x.dtype)
    if right:
        x = jnp.concatenate([x, jnp.broadcast_to(value, (batch, height, right, channels))], axis=2)
    if below:
        x = jnp.concatenate([x, jnp.broadcast_to(value, (batch, below, width + right, channels))], axis=1)
    return x


def cyclic_shift(
    x: Shaped[Array, "batch height width channels"], shift: int
) -> Shaped[Array, "batch height width channels"]:
    """Moves the picture up and left by `shift` tokens (down and right if negative); what leaves re-enters."""
    return jnp.roll(x, (-shift, -shift), axis=(1, 2)) if shift else x


def partition(
    x: Shaped[Array, "batch height width channels"], window: int
) -> Shaped[Array, "batch windows tokens channels"]:
    """Cuts a map into windows of `window` x `window` tokens; height and width must be multiples of it."""
    batch, height, width, channels = x.shape
    if height % window or width % window:
        raise ValueError(f"a map of {height}x{width} does not divide into windows of {window}: pad it first")
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, window * window, channels)


def reverse(
    x: Shaped[Array, "batch windows tokens channels"], window: int, height: int, width: int
) -> Shaped[Array, "batch height width channels"]:
    """Puts windows back into a map of `height` x `width`: the inverse of `partition`."""
    batch, channels = x.shape[0], x.shape[-1]
    x = x.reshape(batch, height // window, width // window, window, window, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels)


def cut(
    x: Shaped[Array, "batch height width channels"],
    window: int,
    shift: int,
    padding: Shaped[Array, " channels"],
) -> Shaped[Array, "batch windows tokens channels"]:
    """The (shifted) windows of a map of any size: padded with `padding`, shifted, partitioned."""
    return partition(cyclic_shift(pad_to_windows(x, window, padding), shift), window)


def stitch(
    x: Shaped[Array, "batch windows tokens channels"], window: int, shift: int, height: int, width: int
) -> Shaped[Array, "batch height width channels"]:
    """Puts the windows of `cut` back where they were in the map of `height` x `width`; drops the padding."""
    canvas = reverse(x, window, padded_size(height, window), padded_size(width, window))
    return cyclic_shift(canvas, -shift)[:, :height, :width]


def window_and_token(
    row: int, column: int, window: int, shift: int, height: int, width: int
) -> tuple[int, int]:
    """Where `cut` puts the token at `row`, `column` of a map of `height` x `width`: its window, its place in it."""
    row, column = (row - shift) % padded_size(height, window), (column - shift) % padded_size(width, window)
    across = padded_size(width, window) // window
    return row // window * across + column // window, row % window * window + column % window


def region_ids(height: int, width: int, window: int, shift: int) -> Int[np.ndarray, "height width"]:
    """Which of the nine regions each token of the SHIFTED canvas came from, 0 to 8 row by row.

    Both axes are cut at `size - window` and `size - shift`: tokens of one window that were not neighbours
    before the shift get different ids. `height` and `width` are those of the padded canvas.
    """

    def bands(size: int) -> Int[np.ndarray, " size"]:
        place = np.arange(size, dtype=np.int32)
        return (place >= size - window).astype(np.int32) + (place >= size - shift)

    return 3 * bands(height)[:, None] + bands(width)[None, :]


def window_region_ids(height: int, width: int, window: int, shift: int) -> Int[np.ndarray, "windows tokens"]:
    """`region_ids` in window order."""
    ids = region_ids(height, width, window, shift)
    ids = ids.reshape(height // window, window, width // window, window)
    return ids.transpose(0, 2, 1, 3).reshape(-1, window * window)


def shift_mask(height: int, width: int, window: int, shift: int) -> Float[Array, "windows tokens tokens"]:
    """Added to the attention logits of shifted windows: 0 within a region, `MASKED` across regions.

    Compared on device from the ids, so that a large map does not put a large mask into the compiled program.
    """
    ids = jnp.asarray(window_region_ids(height, width, window, shift))
    return jnp.where(ids[:, :, None] == ids[:, None, :], 0.0, MASKED)


def relative_position_index(window: int, table_window: int | None = None) -> Int[np.ndarray, "tokens tokens"]:
    """The row of the bias table for query i and key j: `(dr + w - 1) * (2w - 1) + (dc + w - 1)`.

    `dr`, `dc` are the query's row and column minus the key's, `w` the window the table was made for
    (`table_window`, by default `window`). A window smaller than the table's reads the table's centre, because
    the offsets keep their meaning.

    Raises:
      ValueError: if `window` exceeds `table_window`.
    """
    table_window = window if table_window is None else table_window
    if window > table_window:
        raise ValueError(
            f"a window of {window} needs offsets that a bias table for {table_window} does not hold"
        )
    row, column = np.divmod(np.arange(window * window, dtype=np.int32), window)
    rows = row[:, None] - row[None, :] + table_window - 1
    columns = column[:, None] - column[None, :] + table_window - 1
    return rows * (2 * table_window - 1) + columns


def relative_position_bias(
    table: Float[Array, "offsets heads"], window: int, table_window: int | None = None
) -> Float[Array, "heads tokens tokens"]:
    """Gathers the attention bias of one window from its table of `(2w - 1)^2` offsets."""
    index = relative_position_index(window, table_window)
    return jnp.moveaxis(jnp.take(table, jnp.asarray(index), axis=0), -1, 0)


def split_heads(
    x: Shaped[Array, "batch windows tokens channels"], heads: int
) -> Shaped[Array, "batch windows heads tokens head_channels"]:
    """Channels are head-major: head `n` holds channels `[n * d, (n + 1) * d)`."""
    batch, windows, tokens, channels = x.shape
    return x.reshape(batch, windows, tokens, heads, channels // heads).transpose(0, 1, 3, 2, 4)


def merge_heads(
    x: Shaped[Array, "batch windows heads tokens head_channels"],
) -> Shaped[Array, "batch windows tokens channels"]:
    """The inverse of `split_heads`."""
    batch, windows, heads, tokens, head_channels = x.shape
    return x.transpose(0, 1, 3, 2, 4).reshape(batch, windows, tokens, heads * head_channels)
