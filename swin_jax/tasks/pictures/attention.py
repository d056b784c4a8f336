"""Attention within windows over the picture it was computed from."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from swin_jax.tasks.pictures.sheets import cut, font
from swin_jax.tasks.pictures.style import FAINT, INK, PAPER

PANEL = 224  # longer side of a picture
GAP, LINE = 10, 15
STRENGTH = 0.65  # of the heat over the picture
WINDOW, QUERY = (79, 209, 255), (255, 255, 255)


class AttentionMaps(NamedTuple):
    """What is shown of a block; the maps have a value for each token.

    Attributes:
        title: of the row.
        attended: f32 `[rows, columns]`, what the query attends to.
        received: f32 `[rows, columns]`, what each token receives.
        window: bool `[rows, columns]`, the tokens of the query's window.
        query: bool `[rows, columns]`, the query.
        token_side: of a token in pixels of the picture.
    """

    title: str
    attended: np.ndarray
    received: np.ndarray
    window: np.ndarray
    query: np.ndarray
    token_side: int


def attention_sheet(image: np.ndarray, blocks: Sequence[AttentionMaps]) -> np.ndarray:
    """A row for each block: window and query on the picture, what the query attends to, what tokens receive.

    Each token is a square of its own pixels: nothing is smoothed, so that heat ends where a window does.

    Args:
        image: uint8 `[H, W, 3]` as the model saw it.
        blocks: at least one.
    """
    if not blocks:
        raise ValueError("attention_sheet got no blocks")
    scale = PANEL / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    plain = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    row_height = height + 2 * LINE + GAP + 3
    sheet = Image.new("RGB", (3 * (width + GAP) + GAP, len(blocks) * row_height + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, maps in enumerate(blocks):
        for column, (panel, captions) in enumerate(_panels(plain, image.shape[:2], maps)):
            left, top = GAP + column * (width + GAP), GAP + row * row_height
            sheet.paste(Image.fromarray(panel), (left, top))
            for line, (text, color) in enumerate(zip(captions, (INK, FAINT), strict=True)):
                place = (left, top + height + 3 + line * LINE)
                draw.text(place, cut(text, width), fill=color, font=font())
    return np.array(sheet)


def _panels(
    plain: np.ndarray, size: Sequence[int], maps: AttentionMaps
) -> list[tuple[np.ndarray, tuple[str, str]]]:
    """The pictures of a row with two lines each."""
    # The token of each row and column of pixels of the panel, whose picture may have been of another size.
    rows, columns = (
        ((np.arange(shown) + 0.5) * side / shown).astype(int) // maps.token_side
        for shown, side in zip(plain.shape[:2], size, strict=True)
    )

    def enlarged(values: np.ndarray) -> np.ndarray:
        return values[rows][:, columns]

    window, query = _edge(enlarged(maps.window)), _edge(enlarged(maps.query))

    def outlined(panel: np.ndarray) -> np.ndarray:
        return np.where(query[..., None], QUERY, np.where(window[..., None], WINDOW, panel)).astype(np.uint8)

    most, (least, largest) = maps.attended.max(), (maps.received.min(), maps.received.max())
    return [
        (outlined(plain), (maps.title, "query and window")),
        (
            outlined(_heat(plain, enlarged(maps.attended / most))),
            ("attention of the query", f"dark 0, bright {most:.2%}"),
        ),
        (
            _heat(plain, enlarged((maps.received - least) / max(largest - least, 1e-6))),
            ("attention received", f"dark {least:.2f}, bright {largest:.2f}; even: 1"),
        ),
    ]


def _heat(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values 0 to 1 as colours over the picture without its own."""
    grey = np.asarray(Image.fromarray(picture).convert("L"), np.float32)[..., None]
    colors = 255 * matplotlib.colormaps["inferno"](values)[..., :3]
    return np.rint((1 - STRENGTH) * grey + STRENGTH * colors).astype(np.uint8)


def _edge(inside: np.ndarray) -> np.ndarray:
    """The outermost two pixels of an area, also where it ends with the picture."""
    height, width = inside.shape
    around = np.pad(inside, 2)
    near = [
        around[2 + down : 2 + down + height, 2 + right : 2 + right + width]
        for down in range(-2, 3)
        for right in range(-2, 3)
    ]
    return inside & ~np.all(near, axis=0)
