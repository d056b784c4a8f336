"""Multiply-accumulates of backbones, as segmenters and detectors have them: products with weights, and of attention.

Norms, activation functions and biases are not counted.
"""

from collections.abc import Callable

import flax.linen as nn

from swin_jax.models.complexity import mixer_macs
from swin_jax.models.resnet import EXPANSION, ResNet
from swin_jax.models.swin import SwinTransformer
from swin_jax.models.vit import VisionTransformer

Map = tuple[int, int, int]
"""Rows, columns and channels."""


def backbone_macs(model: nn.Module, height: int, width: int, *, attention: bool) -> tuple[int, list[Map]]:
    """Of one `height` x `width` picture, and the maps that come out.

    Args:
      model: a Swin, a ResNet or a ViT.
      height, width: of the picture.
      attention: whether the two products of activations in attention count.
    """
    return BACKBONES[type(model)](model, height, width, attention)


def convolution(rows: int, columns: int, inputs: int, outputs: int, size: int) -> int:
    """A `size` x `size` convolution to a map of `rows` x `columns`."""
    return rows * columns * inputs * outputs * size**2


def _swin(model: SwinTransformer, height: int, width: int, attention: bool) -> tuple[int, list[Map]]:
    rows, columns = -(-height // model.patch_size), -(-width // model.patch_size)
    total = rows * columns * 3 * model.patch_size**2 * model.embed_dim
    maps = []
    for stage, depth in enumerate(model.depths):
        channels = model.embed_dim * 2**stage
        mlp = 2 * rows * columns * channels * int(channels * model.mlp_ratio)
        for block in range(depth):
            weights, products = mixer_macs(
                model, rows, columns, channels, model.num_heads[stage], block % 2 == 1
            )
            total += weights + products * attention + mlp
        maps.append((rows, columns, channels))
        if stage < len(model.depths) - 1:
            rows, columns = -(-rows // 2), -(-columns // 2)
            total += rows * columns * 4 * channels * 2 * channels
    return total, maps


def _resnet(model: ResNet, height: int, width: int, attention: bool) -> tuple[int, list[Map]]:
    del attention  # it has none
    rows, columns = -(-height // 2), -(-width // 2)
    parts = ((3, 32, 3), (32, 32, 3), (32, 64, 3)) if model.deep_stem else ((3, 64, 7),)
    total = sum(convolution(rows, columns, *part) for part in parts)
    rows, columns, inputs = -(-rows // 2), -(-columns // 2), 64
    maps = []
    for stage, depth in enumerate(model.depths):
        middle, outputs = model.groups * model.width_per_group * 2**stage, 64 * 2**stage * EXPANSION
        for block in range(depth):
            total += convolution(rows, columns, inputs, middle, 1)
            stride = model.strides[stage] if block == 0 else 1
            rows, columns = -(-rows // stride), -(-columns // stride)
            total += convolution(rows, columns, middle // model.groups, middle, 3)
            total += convolution(rows, columns, middle, outputs, 1)
            if stride > 1 or inputs != outputs:
                total += convolution(rows, columns, inputs, outputs, 1)
            inputs = outputs
        maps.append((rows, columns, outputs))
    return total, maps


def _vit(model: VisionTransformer, height: int, width: int, attention: bool) -> tuple[int, list[Map]]:
    channels = model.embed_dim
    rows, columns = -(-height // model.patch_size), -(-width // model.patch_size)
    tokens = rows * columns + 1
    of_token = 4 * channels**2 + 2 * channels * int(channels * model.mlp_ratio)
    block = tokens * of_token + 2 * tokens**2 * channels * attention
    total = rows * columns * 3 * model.patch_size**2 * channels + model.depth * block
    # Deconvolutions: to stride 8 once from the map, to stride 4 in two steps.
    total += (1 + 1 + 4) * rows * columns * 4 * channels**2
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]
    return total, [(*size, channels) for size in sizes]


BACKBONES: dict[type, Callable[..., tuple[int, list[Map]]]] = {
    SwinTransformer: _swin,
    ResNet: _resnet,
    VisionTransformer: _vit,
}
