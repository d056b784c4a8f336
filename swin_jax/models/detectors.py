"""Detectors by name: Mask R-CNN on the backbones of the released models and of the paper's table 2."""

from typing import Any

from swin_jax.models.composed import Entry, compose
from swin_jax.models.mask_rcnn import MaskRCNN
from swin_jax.models.registry import BASE, LARGE, SMALL, TINY, Published
from swin_jax.models.resnet import ResNet
from swin_jax.models.swin import SwinTransformer

PUBLISHED_SIZE = (800, 1280)
"""Height and width of the picture that the published MACs are counted on."""


def _swin(shape: dict[str, Any], *published: float) -> Entry:
    fields = {**shape, "window_size": 7, "window_policy": "dense", "features_only": True}
    return Entry(SwinTransformer, fields, Published(*published))


def _resnet(depths: tuple[int, ...], *published: float) -> Entry:
    """As OpenMMLab fine-tunes one: stem and first stage frozen, batch norms with their running statistics."""
    fields = {"depths": depths, "features_only": True, "frozen_stages": 1, "norm_eval": True}
    return Entry(ResNet, fields, Published(*published))


# Parameters and MACs as printed: the released models' tables; Swin-B and L were not released with Mask R-CNN.
DETECTORS: dict[str, Entry] = {
    "mask_rcnn_swin_tiny": _swin(TINY, 48e6, 267e9),
    "mask_rcnn_swin_small": _swin(SMALL, 69e6, 359e9),
    "mask_rcnn_swin_base": _swin(BASE),
    "mask_rcnn_swin_large": _swin(LARGE),
    "mask_rcnn_resnet50": _resnet((3, 4, 6, 3), 44e6, 260e9),
}


def detector_names() -> tuple[str, ...]:
    """Every name of `create_detector`."""
    return tuple(DETECTORS)


def create_detector(name: str, num_classes: int = 80, **overrides: Any) -> MaskRCNN:
    """Makes a detector.

    Args:
      name: one of `detector_names()`.
      num_classes: of objects; COCO has 80.
      **overrides: fields of `MaskRCNN` and of the name's backbone that differ; `dtype` and `param_dtype` hold for
        both.

    Raises:
      ValueError: if there is no such name or field (both naming the nearest), or if a value makes no sense.
    """
    return compose("detector", MaskRCNN, DETECTORS, name, num_classes, overrides)


def published(name: str) -> Published:
    """The published figures of a detector, at 800 x 1280."""
    return DETECTORS[name].published
