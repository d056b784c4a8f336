"""Pictures with what was said of them."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swin_jax.tasks.pictures.style import FAINT, FONT, GREEN, INK, PAPER, RED, printable

TILE = 128


def contact_sheet(
    images: Sequence[np.ndarray] | np.ndarray,
    captions: Sequence[str],
    *,
    correct: Sequence[bool | None],
    columns: int = 6,
) -> np.ndarray:
    """A grid of pictures with captions, framed green where right, red where wrong, grey where unknown.

    Args:
        images: uint8 `[H, W, 3]` each, of any size; they are fitted into squares.
        captions: a text for each; line breaks count, what does not fit is cut with an ellipsis.
        correct: True, False, or None where the truth is not known, for each.
        columns: pictures in a row.
    """
    if not len(images) == len(captions) == len(correct):
        raise ValueError(
            f"contact_sheet got {len(images)} images, {len(captions)} captions and {len(correct)} flags; "
            "expected one of each for every picture"
        )
    if not len(images):
        raise ValueError("contact_sheet got no images")
    frame, gap, line = 4, 10, 15
    lines = [caption.split("\n") for caption in captions]
    text_height = line * max(len(split) for split in lines) + 6
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    width, height = TILE + 2 * frame, TILE + 2 * frame + text_height
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (image, split, flag) in enumerate(zip(images, lines, correct, strict=True)):
        left, top = gap + index % columns * (width + gap), gap + index // columns * (height + gap)
        color = FAINT if flag is None else GREEN if flag else RED
        draw.rectangle((left, top, left + width - 1, top + width - 1), fill=color)
        sheet.paste(_fitted(image), (left + frame, top + frame))
        for row, text in enumerate(split):
            draw.text(
                (left, top + width + 3 + row * line),
                cut(text, width),
                fill=INK if row == 0 else color,
                font=font(),
            )
    return np.array(sheet)


def _fitted(image: np.ndarray) -> Image.Image:
    """The picture within a square tile, its shape kept."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"contact_sheet got an image {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
    picture = Image.fromarray(image)
    scale = TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    tile = Image.new("RGB", (TILE, TILE), PAPER)
    tile.paste(picture.resize(size, Image.Resampling.BICUBIC), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile


@functools.cache
def font() -> ImageFont.FreeTypeFont:
    """What captions are written in."""
    return ImageFont.truetype(FONT, 11)


def cut(text: str, width: int) -> str:
    """As much of the text as is at most `width` pixels wide."""
    text = printable(text)
    if font().getlength(text) <= width:
        return text
    while text and font().getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
