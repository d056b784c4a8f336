"""Which Swin a set of parameters is, read off its paths and shapes."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

from swin_jax.weights.kinds import Shape

TABLE = "attn/relative_position_bias_table"
# Liu et al. (2021), section 3.3: embedding and depths of the four sizes.
SIZES: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "Swin-T",
    (96, (2, 2, 18, 2)): "Swin-S",
    (128, (2, 2, 18, 2)): "Swin-B",
    (192, (2, 2, 18, 2)): "Swin-L",
}
# What other networks' names show, and what they are.
FAMILIES = (
    (r"_moe_layer\.", "a Swin-MoE"),
    (r"spatial_mlp\.", "a Swin-MLP"),
    (r"logit_scale$|cpb_mlp\.|continuous_position_bias_mlp\.", "a Swin V2"),
    (r"cls_token$", "a plain vision transformer (ViT, DeiT)"),
    (r"(^|\.)layer\d\.\d+\.conv1\.weight$", "a ResNet"),
    (r"(^|\.)(dwconv|conv_dw)\.weight$", "a ConvNeXt"),
)
# What stands beside a backbone in a file: pattern of the names, and what it is.
PARTS = (
    (r"^neck\.", "a feature pyramid"),
    (r"^rpn_head\.", "a proposal head"),
    (r"^(roi|bbox|mask|panoptic)_head\.", "a detection head"),
    (r"^(decode|auxiliary)_head\.", "a segmentation head"),
    (r"(^|\.)(decoder\.|mask_token$)", "a decoder of masked pictures"),
    (r"(^|\.)(projector|predictor|encoder_k|projector_k|queue)", "a part of self-supervised training"),
)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Fields of a Swin V1, as `create_model` calls them.

    Attributes:
      embed_dim, depths, num_heads, window_size, patch_size, mlp_ratio: of the model.
      num_classes: outputs of the head; 0 without one.
      dense: whether it is a backbone with a norm for each output.
      qkv_bias, patch_norm, absolute_position_embedding: whether it has these.
    """

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int
    patch_size: int
    mlp_ratio: float
    num_classes: int
    dense: bool
    qkv_bias: bool
    patch_norm: bool
    absolute_position_embedding: bool

    def __str__(self) -> str:
        size = SIZES.get((self.embed_dim, self.depths), "a Swin")
        kind = "dense backbone" if self.dense else f"{self.num_classes} classes"
        return (
            f"{size} (embed_dim {self.embed_dim}, depths {self.depths}, num_heads {self.num_heads}, "
            f"window {self.window_size}, {kind})"
        )


BODY = ("embed_dim", "depths", "num_heads", "patch_size", "mlp_ratio", "qkv_bias", "patch_norm")
"""Fields that must agree whatever is done about window, positions and head."""


def architecture(shapes: Mapping[str, Shape]) -> Architecture | None:
    """The Swin with parameters of these paths and shapes; None if too many are missing to tell."""
    embedding = shapes.get("patch_embed/proj/kernel")
    tables = [shape for path, shape in shapes.items() if path.endswith("block0/" + TABLE)]
    stages = _counts(shapes, r"stage(\d+)/")
    if embedding is None or len(embedding) != 4 or len(tables) != len(stages) or not stages:
        return None
    if any(len(table) != 2 for table in tables) or len(shapes.get("stage0/block0/mlp/fc1/kernel", ())) != 2:
        return None
    hidden = shapes["stage0/block0/mlp/fc1/kernel"]
    depths = tuple(len(_counts(shapes, rf"stage{stage}/block(\d+)/")) for stage in stages)
    heads = tuple(shapes[f"stage{stage}/block0/{TABLE}"][1] for stage in stages)
    return Architecture(
        embed_dim=embedding[3],
        depths=depths,
        num_heads=heads,
        window_size=window_of(tables[0]),
        patch_size=embedding[0],
        mlp_ratio=hidden[1] / hidden[0],
        num_classes=shapes.get("head/kernel", (0, 0))[-1],
        dense=any(re.match(r"norm\d+/", path) for path in shapes),
        qkv_bias=any(path.endswith("attn/qkv/bias") for path in shapes),
        patch_norm="patch_embed/norm/scale" in shapes,
        absolute_position_embedding="absolute_pos_embed" in shapes,
    )


def window_of(table: Shape) -> int:
    """The window that a bias table of this shape is for: it has (2 * window - 1)**2 rows."""
    return (math.isqrt(table[0]) + 1) // 2


def family(names: Iterable[str]) -> str:
    """What the names of a state dict seem to belong to, when it is no Swin V1; "" if nothing is known of them."""
    names = list(names)
    for pattern, what in FAMILIES:
        if any(re.search(pattern, name) for name in names):
            return what
    return ""


def parts(names: Iterable[str]) -> dict[str, list[str]]:
    """The names beside a backbone by what they belong to; "" for those not known."""
    found: dict[str, list[str]] = {}
    for name in names:
        what = next((what for pattern, what in PARTS if re.search(pattern, name)), "")
        found.setdefault(what, []).append(name)
    return found


def _counts(shapes: Mapping[str, Shape], pattern: str) -> list[int]:
    return sorted({int(match[1]) for path in shapes if (match := re.match(pattern, path))})
