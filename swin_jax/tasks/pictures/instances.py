"""Boxes, masks, names and scores on pictures; precision over recall."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from swin_jax.tasks.pictures.sheets import cut, font
from swin_jax.tasks.pictures.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    add_axes,
    new_figure,
    pixels,
)

STRENGTH = 0.45  # of a mask's colour over the picture
LEAST_SIDE = 420  # pixels; smaller pictures are enlarged, or names would cover them
COLUMN = 400  # width of a picture on a sheet
RECALLS = np.linspace(0.0, 1.0, 101)


class Shown(NamedTuple):
    """What is drawn on a picture: boxes f32 [n, 4], class numbers [n], scores [n] or None, masks bool [n, H, W] or
    None."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    masks: np.ndarray | None = None


def draw_instances(
    image: np.ndarray, shown: Shown, class_names: Sequence[str], palette: np.ndarray
) -> np.ndarray:
    """A picture uint8 `[H, W, 3]`, enlarged if it is small, with objects in the colours of their classes.

    Args:
        image: of the picture.
        shown: its objects; better ones are drawn over worse ones.
        class_names: K names.
        palette: K colours.
    """
    order = np.arange(len(shown.boxes))
    if shown.scores is not None:
        order = np.argsort(shown.scores, kind="stable")
    colours = [tuple(int(value) for value in palette[label]) for label in shown.labels]
    painted = image.copy()
    if shown.masks is not None:
        for place in order:
            painted = _masked(painted, shown.masks[place], colours[place])
    scale = max(1.0, LEAST_SIDE / max(image.shape[:2]))
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    picture = Image.fromarray(painted).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for place in order:
        x1, y1, x2, y2 = (float(value) * scale for value in shown.boxes[place])
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colours[place], width=2)
    for place in order:
        text = class_names[int(shown.labels[place])]
        if shown.scores is not None:
            text += f" {shown.scores[place]:.2f}"
        _label(draw, text, shown.boxes[place] * scale, colours[place], size)
    return np.array(picture)


def _masked(image: np.ndarray, mask: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    mixed = (1 - STRENGTH) * image + STRENGTH * np.asarray(colour, np.float32)
    painted = np.where(mask[..., None], np.rint(mixed), image).astype(np.uint8)
    rim = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    painted[rim] = colour
    return painted


def _label(
    draw: ImageDraw.ImageDraw,
    text: str,
    box: np.ndarray,
    colour: tuple[int, ...],
    size: tuple[int, int],
) -> None:
    """The name on a strip of its colour at the box's upper left corner, within the picture."""
    text = cut(text, 160)
    width, height = int(font().getlength(text)) + 6, 15
    left = int(min(max(box[0], 0), max(size[0] - width, 0)))
    top = int(min(max(box[1], 0), max(size[1] - height, 0)))
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    draw.text((left + 3, top), text, fill="#000000" if luminance > 128 else "#ffffff", font=font())


def instance_sheet(
    rows: Sequence[tuple[np.ndarray, Shown | None, Shown]], class_names: Sequence[str], palette: np.ndarray
) -> np.ndarray:
    """Pictures with their annotated objects (where known) beside what was found.

    Args:
        rows: picture, annotated, found.
        class_names: K names.
        palette: K colours.
    """
    if not rows:
        raise ValueError("instance_sheet got no pictures")
    known = any(annotated is not None for _, annotated, _ in rows)
    titles = ("annotated", "found") if known else ("found",)
    gap, lines = 8, []
    for image, annotated, found in rows:
        parts = [annotated or Shown(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))] if known else []
        tiles = [draw_instances(image, part, class_names, palette) for part in (*parts, found)]
        height = max(round(tiles[0].shape[0] * COLUMN / tiles[0].shape[1]), 1)
        lines.append(
            [Image.fromarray(tile).resize((COLUMN, height), Image.Resampling.BICUBIC) for tile in tiles]
        )
    width = gap + (COLUMN + gap) * len(titles)
    sheet = Image.new("RGB", (width, 22 + sum(line[0].height + gap for line in lines)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((gap + column * (COLUMN + gap), 4), title, fill=INK, font=font())
    top = 22
    for line in lines:
        for column, tile in enumerate(line):
            sheet.paste(tile, (gap + column * (COLUMN + gap), top))
        top += line[0].height + gap
    return np.array(sheet)


def precision_recall(curves: Mapping[str, Mapping[str, np.ndarray]]) -> np.ndarray:
    """Precision over recall, the mean over classes, an axes for each kind.

    Args:
        curves: kind ("box", "mask") -> name of a line -> precision at the recalls 0, .01, ..., 1.
    """
    figure = new_figure(width=4.6 * len(curves), height=3.9, title="precision over recall, mean over classes")
    for place, (kind, lines) in enumerate(curves.items(), start=1):
        axes = add_axes(figure, 1, len(curves), place)
        for colour, (name, values) in zip((BLUE, ORANGE, GREEN), lines.items(), strict=False):
            axes.plot(RECALLS, values, color=colour, linewidth=1.6, label=f"{name} (AP {values.mean():.3f})")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_title(kind, fontsize=10, color=INK)
        axes.set_xlabel("recall", fontsize=8.5, color=FAINT)
        axes.set_ylabel("precision", fontsize=8.5, color=FAINT)
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    return pixels(figure)
