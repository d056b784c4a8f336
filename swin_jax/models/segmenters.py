"""Segmentation models by name: UperNet on the backbones of the paper's table 3."""

from typing import Any

from swin_jax.models.composed import Entry, compose
from swin_jax.models.registry import BASE, LARGE, SMALL, TINY, Published
from swin_jax.models.resnet import ResNet
from swin_jax.models.swin import SwinTransformer
from swin_jax.models.upernet import UperNet
from swin_jax.models.vit import VisionTransformer

PUBLISHED_SIZE = (512, 2048)
"""Height and width of the picture that the published MACs are counted on."""


def _swin(shape: dict[str, Any], window: int, *published: float) -> Entry:
    fields = {**shape, "window_size": window, "window_policy": "dense", "features_only": True}
    return Entry(UperNet, SwinTransformer, fields, Published(*published))


def _resnet(depths: tuple[int, ...], *published: float) -> Entry:
    return Entry(UperNet, ResNet, {"depths": depths, "features_only": True}, Published(*published))


# Parameters and MACs at 512 x 2048 as printed: Liu et al. (2021), table 3, and the released models.
SEGMENTERS: dict[str, Entry] = {
    "upernet_swin_tiny": _swin(TINY, 7, 60e6, 945e9),
    "upernet_swin_small": _swin(SMALL, 7, 81e6, 1038e9),
    "upernet_swin_base": _swin(BASE, 7, 121e6, 1188e9),
    "upernet_swin_large": _swin(LARGE, 7, 234e6),
    "upernet_swin_base_window12": _swin(BASE, 12),
    "upernet_swin_large_window12": _swin(LARGE, 12),
    "upernet_resnet50": _resnet((3, 4, 6, 3)),
    "upernet_resnet101": _resnet((3, 4, 23, 3), 86e6, 1029e9),
    "upernet_deit_small": Entry(UperNet, VisionTransformer, {"features_only": True}, Published(52e6, 1099e9)),
}


def segmenter_names() -> tuple[str, ...]:
    """Every name of `create_segmenter`."""
    return tuple(SEGMENTERS)


def create_segmenter(name: str, num_classes: int = 150, **overrides: Any) -> UperNet:
    """Makes a segmenter.

    Args:
      name: one of `segmenter_names()`.
      num_classes: classes of a pixel; ADE20K has 150.
      **overrides: fields of `UperNet` and of the name's backbone that differ; `dtype` and `param_dtype` hold for
        both. The window sizes, depths and so on of the ablations are the backbone's.

    Raises:
      ValueError: if there is no such name or field (both naming the nearest), or if a value makes no sense.
    """
    return compose("segmenter", SEGMENTERS, name, num_classes, overrides)


def published(name: str) -> Published:
    """The published figures of a segmenter, at 512 x 2048."""
    return SEGMENTERS[name].published
