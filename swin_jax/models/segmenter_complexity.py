"""Multiply-accumulates of segmenters by the rule of the paper's table 3, for comparison with its figures.

Only products with weights count: convolutions, deconvolutions and linear layers (of windows filled up to their
size, as in the published code), the auxiliary head with them. Products of activations, which attention is made
of, norms, activation functions and resizing do not. The paper's 1099G of DeiT-S seem to count its attention,
155G, and no deconvolutions.
"""

from collections.abc import Callable

from swin_jax.models.resnet import EXPANSION, ResNet
from swin_jax.models.swin import SwinTransformer
from swin_jax.models.upernet import UperNet
from swin_jax.models.vit import VisionTransformer
from swin_jax.ops.windows import padded_size

Map = tuple[int, int, int]
"""Rows, columns and channels."""


def upernet_macs(model: UperNet, height: int, width: int) -> int:
    """Multiply-accumulates of one `height` x `width` picture through a UperNet and its auxiliary head."""
    backbone, maps = BACKBONES[type(model.backbone)](model.backbone, height, width)
    return backbone + _decode_head(model, maps) + _auxiliary_head(model, maps[model.auxiliary_index])


def _decode_head(model: UperNet, maps: list[Map]) -> int:
    channels = model.channels
    *finer, (rows, columns, inputs) = maps
    total = sum(scale * scale * inputs * channels for scale in model.pool_scales)
    total += _convolution(rows, columns, inputs + len(model.pool_scales) * channels, channels, 3)
    for rows, columns, inputs in finer:
        total += _convolution(rows, columns, inputs, channels, 1)
        total += _convolution(rows, columns, channels, channels, 3)
    rows, columns, _ = maps[0]
    total += _convolution(rows, columns, len(maps) * channels, channels, 3)
    return total + _convolution(rows, columns, channels, model.num_classes, 1)


def _auxiliary_head(model: UperNet, stands_on: Map) -> int:
    rows, columns, inputs = stands_on
    total = 0
    for _ in range(model.auxiliary_convs):
        total += _convolution(rows, columns, inputs, model.auxiliary_channels, 3)
        inputs = model.auxiliary_channels
    return total + _convolution(rows, columns, inputs, model.num_classes, 1)


def _swin(model: SwinTransformer, height: int, width: int) -> tuple[int, list[Map]]:
    rows, columns = -(-height // model.patch_size), -(-width // model.patch_size)
    total = rows * columns * 3 * model.patch_size**2 * model.embed_dim
    maps = []
    for stage, depth in enumerate(model.depths):
        channels = model.embed_dim * 2**stage
        in_windows = padded_size(rows, model.window_size) * padded_size(columns, model.window_size)
        mlp = 2 * rows * columns * channels * int(channels * model.mlp_ratio)
        total += depth * (in_windows * 4 * channels**2 + mlp)
        maps.append((rows, columns, channels))
        if stage < len(model.depths) - 1:
            rows, columns = -(-rows // 2), -(-columns // 2)
            total += rows * columns * 4 * channels * 2 * channels
    return total, maps


def _resnet(model: ResNet, height: int, width: int) -> tuple[int, list[Map]]:
    rows, columns = -(-height // 2), -(-width // 2)
    parts = ((3, 32, 3), (32, 32, 3), (32, 64, 3)) if model.deep_stem else ((3, 64, 7),)
    total = sum(_convolution(rows, columns, *part) for part in parts)
    rows, columns, inputs = -(-rows // 2), -(-columns // 2), 64
    maps = []
    for stage, depth in enumerate(model.depths):
        middle, outputs = model.groups * model.width_per_group * 2**stage, 64 * 2**stage * EXPANSION
        for block in range(depth):
            total += _convolution(rows, columns, inputs, middle, 1)
            stride = model.strides[stage] if block == 0 else 1
            rows, columns = -(-rows // stride), -(-columns // stride)
            total += _convolution(rows, columns, middle // model.groups, middle, 3)
            total += _convolution(rows, columns, middle, outputs, 1)
            if stride > 1 or inputs != outputs:
                total += _convolution(rows, columns, inputs, outputs, 1)
            inputs = outputs
        maps.append((rows, columns, outputs))
    return total, maps


def _vit(model: VisionTransformer, height: int, width: int) -> tuple[int, list[Map]]:
    channels = model.embed_dim
    rows, columns = -(-height // model.patch_size), -(-width // model.patch_size)
    block = 4 * channels**2 + 2 * channels * int(channels * model.mlp_ratio)
    total = rows * columns * 3 * model.patch_size**2 * channels + model.depth * (rows * columns + 1) * block
    # Deconvolutions: to stride 8 once from the map, to stride 4 in two steps.
    total += (1 + 1 + 4) * rows * columns * 4 * channels**2
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]
    return total, [(*size, channels) for size in sizes]


def _convolution(rows: int, columns: int, inputs: int, outputs: int, size: int) -> int:
    return rows * columns * inputs * outputs * size**2


BACKBONES: dict[type, Callable[..., tuple[int, list[Map]]]] = {
    SwinTransformer: _swin,
    ResNet: _resnet,
    VisionTransformer: _vit,
}
