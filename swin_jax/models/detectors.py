"""Detectors by name: Mask R-CNN, its cascades, HTC and HTC++ on the backbones of the released models and of table 2."""

from collections.abc import Callable
from typing import Any

from swin_jax.models.cascade import CascadeMaskRCNN, HybridTaskCascade
from swin_jax.models.composed import Entry, compose
from swin_jax.models.mask_rcnn import MaskRCNN
from swin_jax.models.registry import BASE, LARGE, SMALL, TINY, Published
from swin_jax.models.resnet import ResNet
from swin_jax.models.swin import SwinTransformer
from swin_jax.models.vit import VisionTransformer

PUBLISHED_SIZE = (800, 1280)
"""Height and width of the picture that the published MACs are counted on."""
R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
X101_32X4D, X101_64X4D = ({"groups": groups, "width_per_group": 4} for groups in (32, 64))
HTCPP = {"box_convs": 4, "class_agnostic": False, "global_attention": True}

Model = Callable[..., MaskRCNN]


def _swin(model: Model, shape: dict[str, Any], *published: float, **own: Any) -> Entry:
    fields = {**shape, "window_size": 7, "window_policy": "dense", "features_only": True}
    return Entry(model, SwinTransformer, fields, Published(*published), own)


def _resnet(model: Model, depths: tuple[int, ...], *published: float, width: Any = None, **own: Any) -> Entry:
    """As OpenMMLab fine-tunes one: stem and first stage frozen, batch norms with their running statistics."""
    fields = {"depths": depths, "features_only": True, "frozen_stages": 1, "norm_eval": True, **(width or {})}
    return Entry(model, ResNet, fields, Published(*published), own)


# Parameters and MACs as printed: the released models' tables and Liu et al. (2021), tables 2 and 9. Swin-B and L were
# not released with Mask R-CNN. The paper's count of DeiT-S is that of a pyramid without deconvolutions.
DETECTORS: dict[str, Entry] = {
    "mask_rcnn_swin_tiny": _swin(MaskRCNN, TINY, 48e6, 267e9),
    "mask_rcnn_swin_small": _swin(MaskRCNN, SMALL, 69e6, 359e9),
    "mask_rcnn_swin_base": _swin(MaskRCNN, BASE),
    "mask_rcnn_swin_large": _swin(MaskRCNN, LARGE),
    "mask_rcnn_resnet50": _resnet(MaskRCNN, R50, 44e6, 260e9),
    "cascade_mask_rcnn_swin_tiny": _swin(CascadeMaskRCNN, TINY, 86e6, 745e9),
    "cascade_mask_rcnn_swin_small": _swin(CascadeMaskRCNN, SMALL, 107e6, 838e9),
    "cascade_mask_rcnn_swin_base": _swin(CascadeMaskRCNN, BASE, 145e6, 982e9),
    "cascade_mask_rcnn_swin_large": _swin(CascadeMaskRCNN, LARGE),
    "cascade_mask_rcnn_resnet50": _resnet(CascadeMaskRCNN, R50, 82e6, 739e9),
    "cascade_mask_rcnn_resnext101_32x4d": _resnet(CascadeMaskRCNN, R101, 101e6, 819e9, width=X101_32X4D),
    "cascade_mask_rcnn_resnext101_64x4d": _resnet(CascadeMaskRCNN, R101, 140e6, 972e9, width=X101_64X4D),
    "cascade_mask_rcnn_deit_small": Entry(
        CascadeMaskRCNN, VisionTransformer, {"features_only": True}, Published(80e6, 889e9)
    ),
    "htc_resnet50": _resnet(HybridTaskCascade, R50),
    "htc_swin_tiny": _swin(HybridTaskCascade, TINY),
    "htcpp_swin_tiny": _swin(HybridTaskCascade, TINY, **HTCPP),
    "htcpp_swin_base": _swin(HybridTaskCascade, BASE, 160e6, 1043e9, **HTCPP),
    "htcpp_swin_large": _swin(HybridTaskCascade, LARGE, 284e6, 1470e9, **HTCPP),
    "htcpp_resnext101_64x4d": _resnet(HybridTaskCascade, R101, 155e6, 1033e9, width=X101_64X4D, **HTCPP),
}


def detector_names() -> tuple[str, ...]:
    """Every name of `create_detector`."""
    return tuple(DETECTORS)


def create_detector(name: str, num_classes: int = 80, **overrides: Any) -> MaskRCNN:
    """Makes a detector.

    Args:
      name: one of `detector_names()`.
      num_classes: of objects; COCO has 80.
      **overrides: fields of the name's model and of its backbone that differ; `dtype` and `param_dtype` hold for
        both.

    Raises:
      ValueError: if there is no such name or field (both naming the nearest), or if a value makes no sense.
    """
    return compose("detector", DETECTORS, name, num_classes, overrides)


def published(name: str) -> Published:
    """The published figures of a detector, at 800 x 1280."""
    return DETECTORS[name].published
