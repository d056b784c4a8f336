"""Swin Transformer in JAX and Flax.

For people who write their own loops: `load`, `features`, `load_segmenter` and `load_detector` give a model with weights
from any known file, `detect` runs a detector,
`create_model` one without, `read_pictures` makes its input of files as `preprocessing` says, `attention` shows what it
attends to. Everything is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swin_jax.inputs import read_pictures
    from swin_jax.models.attention import attention
    from swin_jax.models.detectors import create_detector, detector_names
    from swin_jax.models.registry import create_model, model_names, preprocessing
    from swin_jax.models.segmenters import create_segmenter, segmenter_names
    from swin_jax.pretrained import (
        detect,
        features,
        load,
        load_detector,
        load_segmenter,
        save_composed,
    )

_HOMES = {
    "attention": "swin_jax.models.attention",
    "load": "swin_jax.pretrained",
    "features": "swin_jax.pretrained",
    "load_segmenter": "swin_jax.pretrained",
    "load_detector": "swin_jax.pretrained",
    "detect": "swin_jax.pretrained",
    "save_composed": "swin_jax.pretrained",
    "create_model": "swin_jax.models.registry",
    "create_detector": "swin_jax.models.detectors",
    "detector_names": "swin_jax.models.detectors",
    "create_segmenter": "swin_jax.models.segmenters",
    "segmenter_names": "swin_jax.models.segmenters",
    "model_names": "swin_jax.models.registry",
    "preprocessing": "swin_jax.models.registry",
    "read_pictures": "swin_jax.inputs",
}
__all__ = [
    "attention",
    "create_detector",
    "create_model",
    "create_segmenter",
    "detect",
    "detector_names",
    "features",
    "load",
    "load_detector",
    "load_segmenter",
    "model_names",
    "preprocessing",
    "read_pictures",
    "save_composed",
    "segmenter_names",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'swin_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
