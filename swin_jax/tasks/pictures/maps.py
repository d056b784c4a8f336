"""Maps of classes over pictures, with a legend."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from swin_jax.ops.losses import IGNORE
from swin_jax.tasks.pictures.sheets import cut, font
from swin_jax.tasks.pictures.style import INK, PAPER

IGNORED_GREY = 235  # an ignored pixel in a map
STRENGTH = 0.55  # of the colours over a picture
WIDTH = 260  # of a column of a sheet
LINE = 16
MOST_NAMES = 24  # in a legend

# A picture uint8 [H, W, 3], its labels and its prediction, class numbers uint8 of one size each, or None.
MapRow = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


def palette_png(classes: np.ndarray, palette: np.ndarray) -> bytes:
    """A PNG file that stores class numbers uint8 `[H, W]` and shows their colours; 255 is light grey."""
    table = np.full((256, 3), IGNORED_GREY, np.uint8)
    table[: len(palette)] = palette
    picture = Image.fromarray(classes)
    picture.putpalette(table.tobytes())
    return _file(picture)


def grey_png(values: np.ndarray) -> bytes:
    """A PNG file with one channel of uint8 `[H, W]` as they are."""
    return _file(Image.fromarray(values))


def overlay(image: np.ndarray, classes: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The classes' colours over a picture uint8 `[H, W, 3]`; ignored pixels show the picture."""
    if image.shape[:2] != classes.shape:
        raise ValueError(f"overlay got a picture {image.shape} and a map {classes.shape}; expected one size")
    colours = np.zeros((256, 3), np.float32)
    colours[: len(palette)] = palette
    mixed = (1 - STRENGTH) * image + STRENGTH * colours[classes]
    return np.where((classes == IGNORE)[..., None], image, np.rint(mixed)).astype(np.uint8)


def with_legend(
    picture: np.ndarray, shares: np.ndarray, class_names: Sequence[str], palette: np.ndarray
) -> np.ndarray:
    """A picture uint8 `[H, W, 3]` with a list on its right: the classes by falling share.

    Args:
        picture: of any size.
        shares: of each class, 0 to 1; a class of share 0 is left out.
        class_names: K names.
        palette: K colours.
    """
    order = [index for index in np.argsort(-shares, kind="stable") if shares[index] > 0]
    texts = [f"{class_names[index]}  {shares[index]:.1%}" for index in order[:MOST_NAMES]]
    if len(order) > MOST_NAMES:
        texts.append(f"and {len(order) - MOST_NAMES} more")
    height = max(picture.shape[0], LINE * len(texts) + 12)
    sheet = Image.new("RGB", (picture.shape[1] + 230, height), PAPER)
    sheet.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(sheet)
    left = picture.shape[1] + 10
    for row, text in enumerate(texts):
        top = 6 + row * LINE
        if row < MOST_NAMES:
            draw.rectangle(
                (left, top + 2, left + 11, top + 13), fill=tuple(int(v) for v in palette[order[row]])
            )
        draw.text((left + 18, top), cut(text, 190), fill=INK, font=font())
    return np.array(sheet)


def map_sheet(rows: Sequence[MapRow], class_names: Sequence[str], palette: np.ndarray) -> np.ndarray:
    """Pictures, each with its labels and its prediction over it, and the legend of what occurs.

    Args:
        rows: labels and predictions may have another size than the picture, of the same aspect.
        class_names: K names.
        palette: K colours.
    """
    if not rows:
        raise ValueError("map_sheet got no pictures")
    titles = ("picture", "labels", "prediction")
    gap, counts = 8, np.zeros(256, np.int64)
    tiles = []
    for image, labels, guesses in rows:
        size = WIDTH, max(round(image.shape[0] * WIDTH / image.shape[1]), 1)
        picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        line = [picture]
        for classes in (labels, guesses):
            if classes is None:
                continue
            small = np.asarray(Image.fromarray(classes).resize(size, Image.Resampling.NEAREST))
            counts += np.bincount(small.ravel(), minlength=256)
            line.append(overlay(picture, small, palette))
        tiles.append(line)
    width = gap + (WIDTH + gap) * max(len(line) for line in tiles)
    sheet = Image.new("RGB", (width, 22 + sum(line[0].shape[0] + gap for line in tiles)), PAPER)
    draw = ImageDraw.Draw(sheet)
    shown = titles if any(labels is not None for _, labels, _ in rows) else ("picture", "prediction")
    for column, title in enumerate(shown):
        draw.text((gap + column * (WIDTH + gap), 4), title, fill=INK, font=font())
    top = 22
    for line in tiles:
        for column, tile in enumerate(line):
            sheet.paste(Image.fromarray(tile), (gap + column * (WIDTH + gap), top))
        top += line[0].shape[0] + gap
    present = counts[: len(class_names)]
    return with_legend(np.array(sheet), present / max(present.sum(), 1), class_names, palette)


def _file(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
