"""Multiply-accumulates of classifiers by the counting that gives the published figures.

A Swin's formula is in `complexity.py`. The others count products with weights and the two products of activations in
attention, nothing else, and so give what their tables print. Where that takes more saying:

- ViT and DeiT: Liu et al. (2021), table 1, leaves out the class token, and so does `classifier_macs`: 17.5 G of DeiT-B
  at 224, 55.4 G at 384 and 190.7 G of ViT-L are those of the patches alone (with it: 17.6, 55.5 and 191.1).
- ResNeXt-101 64x4d: 15.6 G counts what is no product too: two operations for each value of a batch norm, one for each
  ReLU, addition and compared value of the pooling make 15.56 of our 15.46. ResNet-101 is printed both as 7.8 and, with
  them, as 7.9.
- MLP-Mixer: so does 12.7 G, to which GELU adds most: half the operations that XLA counts in the whole program are 12.67
  with GELU's tanh form, which Flax takes by default, and 12.65 with the exact one; ours are 12.60.
"""

import flax.linen as nn

from swin_jax.models.all_mlp import AllMlp
from swin_jax.models.backbone_complexity import backbone_macs
from swin_jax.models.complexity import swin_macs
from swin_jax.models.mixer import MlpMixer
from swin_jax.models.resnet import ResNet
from swin_jax.models.swin import SwinTransformer
from swin_jax.models.vit import VisionTransformer


def classifier_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of one `height` x `width` picture through a classifier of the registry."""
    if isinstance(model, SwinTransformer):
        return swin_macs(model, height, width)
    if isinstance(model, ResNet):
        total, maps = backbone_macs(model, height, width, attention=True)
        return total + maps[-1][-1] * model.num_classes
    if isinstance(model, VisionTransformer):
        return _vit(model, height, width)
    if isinstance(model, AllMlp):
        return _all_mlp(model, height, width)
    raise TypeError(f"no formula is known for {type(model).__name__}")


def _vit(model: VisionTransformer, height: int, width: int) -> int:
    channels, patches = model.embed_dim, _patches(model.patch_size, height, width)
    with_weights = 4 * channels**2 + 2 * channels * int(channels * model.mlp_ratio)
    block = patches * with_weights + 2 * patches**2 * channels
    return _around(model, patches) + model.depth * block


def _all_mlp(model: AllMlp, height: int, width: int) -> int:
    channels, patches = model.embed_dim, _patches(model.patch_size, height, width)
    across_tokens = channels * patches * (2 * model.token_hidden if isinstance(model, MlpMixer) else patches)
    block = across_tokens + 2 * patches * channels * model.hidden
    return _around(model, patches) + model.depth * block


def _around(model: VisionTransformer | AllMlp, patches: int) -> int:
    """Patch embedding and head."""
    return patches * 3 * model.patch_size**2 * model.embed_dim + model.embed_dim * model.num_classes


def _patches(patch_size: int, height: int, width: int) -> int:
    return -(-height // patch_size) * -(-width // patch_size)
