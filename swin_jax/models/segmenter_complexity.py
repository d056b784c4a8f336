"""Multiply-accumulates of segmenters by the rule of the paper's table 3, for comparison with its figures.

Only products with weights count: convolutions, deconvolutions and linear layers (of windows filled up to their
size, as in the published code), the auxiliary head with them. Products of activations, which attention is made
of, norms, activation functions and resizing do not. The paper's 1099G of DeiT-S seem to count its attention,
155G, and no deconvolutions.
"""

from swin_jax.models.backbone_complexity import Map, backbone_macs, convolution
from swin_jax.models.upernet import UperNet


def upernet_macs(model: UperNet, height: int, width: int) -> int:
    """Multiply-accumulates of one `height` x `width` picture through a UperNet and its auxiliary head."""
    backbone, maps = backbone_macs(model.backbone, height, width, attention=False)
    return backbone + _decode_head(model, maps) + _auxiliary_head(model, maps[model.auxiliary_index])


def _decode_head(model: UperNet, maps: list[Map]) -> int:
    channels = model.channels
    *finer, (rows, columns, inputs) = maps
    total = sum(scale * scale * inputs * channels for scale in model.pool_scales)
    total += convolution(rows, columns, inputs + len(model.pool_scales) * channels, channels, 3)
    for rows, columns, inputs in finer:
        total += convolution(rows, columns, inputs, channels, 1)
        total += convolution(rows, columns, channels, channels, 3)
    rows, columns, _ = maps[0]
    total += convolution(rows, columns, len(maps) * channels, channels, 3)
    return total + convolution(rows, columns, channels, model.num_classes, 1)


def _auxiliary_head(model: UperNet, stands_on: Map) -> int:
    rows, columns, inputs = stands_on
    total = 0
    for _ in range(model.auxiliary_convs):
        total += convolution(rows, columns, inputs, model.auxiliary_channels, 3)
        inputs = model.auxiliary_channels
    return total + convolution(rows, columns, inputs, model.num_classes, 1)
