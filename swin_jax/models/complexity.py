"""Multiply-accumulates of a model by the published formula, for comparison with the published figures.

The formula (that of the official code, which calls them FLOPs) counts matrix products and norms; it leaves
out softmax, GELU, the position bias and the shift.
"""

from swin_jax.models.swin import SwinTransformer
from swin_jax.models.token_mixing import window_and_shift
from swin_jax.ops.performer import feature_count
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
        total += sum(_block(model, rows, columns, channels, heads, block % 2 == 1) for block in range(depth))
        if stage < stages - 1:
            rows, columns = -(-rows // 2), -(-columns // 2)
            total += 4 * rows * columns * channels + rows * columns * 4 * channels * 2 * channels
    features = model.embed_dim * 2 ** (stages - 1)
    # The official code divides the patches by 2**stages here, not by the 4**(stages - 1) that merging leaves.
    total += features * patch // 2**stages
    return total + features * model.num_classes


def _block(model: SwinTransformer, rows: int, columns: int, channels: int, heads: int, shifted: bool) -> int:
    norms = 2 * channels * rows * columns
    mlp = 2 * rows * columns * channels * int(channels * model.mlp_ratio)
    return sum(mixer_macs(model, rows, columns, channels, heads, shifted)) + norms + mlp


def mixer_macs(
    model: SwinTransformer, rows: int, columns: int, channels: int, heads: int, shifted: bool
) -> tuple[int, int]:
    """Of what mixes the tokens of a block: products with weights, and products of activations.

    Windows count with what fills the map up to whole ones; shifts by padding have one more along each axis.
    """
    shifted = shifted and model.shift != "none"
    window, shift = window_and_shift(rows, columns, model.window_size, shifted, model.window_policy)
    window = model.window_size if model.mixer == "mlp" else window
    more = window if shift and model.shift == "padding" else 0
    in_windows = (padded_size(rows, window) + more) * (padded_size(columns, window) + more)
    tokens = rows * columns
    if model.mixer == "mlp":
        return in_windows * window**2 * channels, 0
    if model.mixer == "window":
        return in_windows * 4 * channels**2, in_windows * 2 * window**2 * channels
    if model.mixer == "performer":
        features = model.performer_features or feature_count(channels // heads)
        # Features of queries and keys, then the two products with values; sums over features are not counted.
        return tokens * 4 * channels**2, tokens * 4 * features * channels
    keys = tokens if model.mixer == "global" else model.window_size**2
    return tokens * 4 * channels**2, tokens * 2 * keys * channels
