"""The pictures a person looks at: curves, confusion, class bars, contact sheets, attention, maps, detections.

The only place that draws.

Every function returns uint8 `[H, W, 3]`; `png` makes a file of it. Nothing here touches matplotlib's global
state, so pictures may be drawn from any thread and next to anyone else's figures.
"""

import io

import numpy as np
from PIL import Image

from swin_jax.tasks.pictures.attention import AttentionMaps, attention_sheet
from swin_jax.tasks.pictures.classes import class_bars, confusion
from swin_jax.tasks.pictures.instances import Shown, draw_instances, instance_sheet, precision_recall
from swin_jax.tasks.pictures.maps import grey_png, map_sheet, overlay, palette_png, with_legend
from swin_jax.tasks.pictures.run_curves import (
    CLASSIFICATION_PANELS,
    DETECTION_PANELS,
    SEGMENTATION_PANELS,
    Panel,
    curves,
)
from swin_jax.tasks.pictures.sheets import contact_sheet
from swin_jax.tasks.pictures.speeds import Speed, speed_picture

__all__ = [
    "CLASSIFICATION_PANELS",
    "DETECTION_PANELS",
    "SEGMENTATION_PANELS",
    "AttentionMaps",
    "Panel",
    "Shown",
    "Speed",
    "attention_sheet",
    "class_bars",
    "confusion",
    "contact_sheet",
    "curves",
    "draw_instances",
    "grey_png",
    "instance_sheet",
    "map_sheet",
    "overlay",
    "palette_png",
    "png",
    "precision_recall",
    "speed_picture",
    "with_legend",
]


def png(picture: np.ndarray) -> bytes:
    """A PNG file of uint8 `[H, W, 3]`."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
