"""Multiply-accumulates of a model by the published formula, for comparison with the published figures.

The formula (that of the official code, which calls them FLOPs) counts matrix products and norms; it leaves
out softmax, GELU, the position bias and the shift.
"""

from swin_jax.models.swin import SwinTransformer, window_and_shift
from swin_jax.ops.windows import padded_size


def swin_macs(model: SwinTransformer, height: int, width: int) -> int:
    """Multiply-accumulates of one `height` x `width` picture through a Swin V1 classifier."""
    rows, columns = -(-height // model.patch_size), -(-width // model.patch_size)
    patch = rows * columns
    total = patch * model.embed_dim * 3 * model.patch_size**2
    total += patch * model.embed_dim * model.patch_norm
    stages = len(model.depths)
    for stage, (depth, heads) in enumerate(zip(model.depths, model.num_heads, strict=True)):
        channels = model.embed_dim * 2**stage
        total += depth * _block(model, rows, columns, channels, heads)
        if stage < stages - 1:
            rows, columns = -(-rows // 2), -(-columns // 2)
            total += 4 * rows * columns * channels + rows * columns * 4 * channels * 2 * channels
    features = model.embed_dim * 2 ** (stages - 1)
    # The official code divides the patches by 2**stages here, not by the 4**(stages - 1) that merging leaves.
    total += features * patch // 2**stages
    return total + features * model.num_classes


def _block(model: SwinTransformer, rows: int, columns: int, channels: int, heads: int) -> int:
    window, _ = window_and_shift(rows, columns, model.window_size, False, model.window_policy)
    tokens = window * window
    windows = padded_size(rows, window) * padded_size(columns, window) // tokens
    qkv = 3 * tokens * channels**2
    scores_and_values = 2 * heads * tokens**2 * (channels // heads)
    output = tokens * channels**2
    norms = 2 * channels * rows * columns
    mlp = 2 * rows * columns * channels * int(channels * model.mlp_ratio)
    return windows * (qkv + scores_and_values + output) + norms + mlp
