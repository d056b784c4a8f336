"""The pictures a person looks at: curves, confusion, class bars, contact sheets. The only place that draws.

Every function returns uint8 `[H, W, 3]`; `png` makes a file of it. Nothing here touches matplotlib's global
state, so pictures may be drawn from any thread and next to anyone else's figures.
"""

import functools
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image, ImageDraw, ImageFont

DPI = 110
INK, FAINT, GRID, PAPER = "#22272e", "#6b7480", "#e3e7ec", "#ffffff"
BLUE, ORANGE, GREEN, RED = "#2463b0", "#d9741a", "#2e9e5b", "#cf3a3a"
FONT = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
# Up to so many classes the confusion has names, and up to so many a number in each cell.
NAMED_CLASSES, NUMBERED_CLASSES = 40, 20
# More points than this and a training curve gets a smoothed line over the faint raw one.
SMOOTHED_POINTS = 60
TILE = 128


class Panel(NamedTuple):
    """One axes of `curves`: its title, and the keys of `metrics.jsonl` it shows with their legend."""

    title: str
    lines: Mapping[str, str]
    form: str = "plain"  # or "percent", "scientific"


CLASSIFICATION_PANELS = (
    Panel("loss", {"loss": "training", "eval/loss": "evaluation"}),
    Panel("evaluation accuracy", {"eval/top1": "top-1", "eval/top5": "top-5"}, "percent"),
    Panel("learning rate", {"learning_rate": ""}, "scientific"),
    Panel("images per second", {"images_per_second": ""}),
)


def png(picture: np.ndarray) -> bytes:
    """A PNG file of uint8 `[H, W, 3]`."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def curves(
    records: Sequence[Mapping[str, Any]], *, title: str = "", panels: Sequence[Panel] = CLASSIFICATION_PANELS
) -> np.ndarray:
    """The course of a run, one panel each for loss, accuracy, learning rate and speed.

    Args:
        records: lines of `metrics.jsonl`; missing and null values are skipped.
        title: over all panels.
        panels: what to show.
    """
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = _figure(width=5.2 * columns, height=3.1 * rows + 0.5, title=title)
    for place, panel in enumerate(panels, start=1):
        axes = _axes(figure, rows, columns, place)
        axes.set_title(panel.title, loc="left", fontsize=10, color=INK)
        axes.set_xlabel("step", fontsize=8.5, color=FAINT)
        shown = [
            _curve(axes, records, key, label, color)
            for (key, label), color in zip(panel.lines.items(), (BLUE, ORANGE, GREEN, RED), strict=False)
        ]
        _finish_panel(axes, panel, any(shown))
    return _pixels(figure)


def confusion(
    matrix: np.ndarray, class_names: Sequence[str], *, title: str = "confusion", worst: int = 18
) -> np.ndarray:
    """Which class is taken for which, and the accuracy of each.

    Up to 40 classes are named, with a bar for each; beyond that the map has no names and the accuracies are a
    sorted curve, beside the list of the commonest confusions.

    Args:
        matrix: integers `[K, K]`, row: true class, column: predicted class.
        class_names: K names.
        title: over the picture.
        worst: how many confusions to list.
    """
    matrix = np.asarray(matrix)
    if matrix.shape != (len(class_names), len(class_names)):
        raise ValueError(f"confusion got a matrix {matrix.shape} for {len(class_names)} class names")
    seen = matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):
        shares = matrix / np.where(seen, seen, np.nan)[:, None]
    total = matrix.sum()
    right = np.trace(matrix) / total if total else math.nan
    title = f"{title}: {int(total):,} examples, {right:.2%} right"
    if len(class_names) <= NAMED_CLASSES:
        return _named_confusion(matrix, shares, class_names, title)
    return _large_confusion(matrix, shares, class_names, title, worst)


def class_bars(
    values: np.ndarray, class_names: Sequence[str], *, title: str, label: str = "accuracy", most: int = 40
) -> np.ndarray:
    """A bar for each class, from the lowest value up; of more than `most` classes only both ends.

    Args:
        values: shares in 0..1, `[K]`; NaN for a class without examples.
        class_names: K names.
        title: over the picture.
        label: of the axis.
        most: how many bars are legible.
    """
    values = np.asarray(values, np.float64)
    if values.shape != (len(class_names),):
        raise ValueError(f"class_bars got values {values.shape} for {len(class_names)} class names")
    order = np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")
    if len(order) > most:
        known = order[: np.count_nonzero(~np.isnan(values))]
        order = np.concatenate([known[: most // 2], known[-(most - most // 2) :]])
        title = f"{title}: the {most // 2} lowest and {most - most // 2} highest of {len(values)} classes"
    figure = _figure(width=7, height=1.3 + 0.24 * len(order), title=title)
    axes = _axes(figure, 1, 1, 1)
    _bars(axes, values[order], [str(class_names[index]) for index in order])
    axes.set_xlabel(label, fontsize=8.5, color=FAINT)
    return _pixels(figure)


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
                _cut(text, width),
                fill=INK if row == 0 else color,
                font=_font(),
            )
    return np.array(sheet)


def _curve(axes: Axes, records: Sequence[Mapping[str, Any]], key: str, label: str, color: str) -> bool:
    """Draws one key over the steps; whether it had any value."""
    points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    points = [(step, value) for step, value in points if math.isfinite(value)]
    if not points:
        return False
    steps, values = np.array(points, np.float64).T
    smooth = len(points) > SMOOTHED_POINTS and not key.startswith("eval/") and key != "learning_rate"
    marker = "o" if len(points) <= 20 else ""
    axes.plot(
        steps,
        values,
        color=color,
        marker=marker,
        markersize=4,
        linewidth=0.8 if smooth else 1.6,
        alpha=0.3 if smooth else 1.0,
        label="" if smooth else label,
    )
    if smooth:
        axes.plot(steps, _running_mean(values), color=color, linewidth=1.6, label=label)
    return True


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of about a thirtieth of the curve, cut off at its ends."""
    half = max(1, len(values) // 60)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _finish_panel(axes: Axes, panel: Panel, shown: bool) -> None:
    if not shown:
        axes.text(
            0.5,
            0.5,
            "no values yet",
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=9,
            color=FAINT,
        )
        axes.set_xticks([])
        axes.set_yticks([])
        return
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: _thousands(step)))
    if panel.form == "percent":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))
    elif panel.form == "scientific":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.3g}"))
        axes.set_ylim(bottom=0)
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.5g}"))
    handles, labels = axes.get_legend_handles_labels()
    if any(labels):
        axes.legend(handles, labels, fontsize=8.5, frameon=False, labelcolor=INK)


def _thousands(step: float) -> str:
    return f"{step / 1000:g}k" if abs(step) >= 10_000 else f"{step:,.0f}"


def _named_confusion(
    matrix: np.ndarray, shares: np.ndarray, class_names: Sequence[str], title: str
) -> np.ndarray:
    count = len(class_names)
    names = [_printable(_shortened(name)) for name in class_names]
    cell = 0.52 if count <= 12 else 0.4 if count <= NUMBERED_CLASSES else 0.24
    side = max(3.2, cell * count)
    figure = _figure(width=side + 5.4, height=side + 2.2, title=title)
    grid = figure.add_gridspec(1, 2, width_ratios=(side, 2.6))
    axes = figure.add_subplot(grid[0])
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    size = 8.5 if count <= NUMBERED_CLASSES else 7
    axes.set_xticks(
        range(count), names, rotation=45 if count <= 12 else 90, fontsize=size, color=INK, parse_math=False
    )
    for tick in axes.get_xticklabels():
        tick.set_horizontalalignment("right" if count <= 12 else "center")
        tick.set_rotation_mode("anchor" if count <= 12 else "default")
    axes.set_yticks(range(count), names, fontsize=size, color=INK, parse_math=False)
    axes.set_xlabel("predicted", fontsize=9, color=FAINT)
    axes.set_ylabel("true", fontsize=9, color=FAINT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if count <= NUMBERED_CLASSES:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            color = PAPER if shares[row, column] > 0.5 else INK
            text = f"{matrix[row, column]}"
            axes.text(
                column, row, text, ha="center", va="center", fontsize=8 if len(text) < 5 else 6, color=color
            )
    bars = figure.add_subplot(grid[1], sharey=axes)
    _style(bars)
    _bars(bars, np.diagonal(shares), None)
    bars.tick_params(labelleft=False)
    bars.set_title("accuracy of each class", loc="left", fontsize=9, color=INK)
    return _pixels(figure)


def _large_confusion(
    matrix: np.ndarray, shares: np.ndarray, class_names: Sequence[str], title: str, worst: int
) -> np.ndarray:
    count = len(class_names)
    figure = _figure(width=14.5, height=7.4, title=title)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.35, 1), height_ratios=(1, 1.9))
    axes = figure.add_subplot(grid[:, 0])
    # The square root lifts rare confusions out of the paper's white; cells too small for the eye are gathered
    # into blocks, of which the largest share shows.
    image = axes.imshow(
        np.sqrt(_block_maximum(np.nan_to_num(shares), 400)),
        cmap="Blues",
        vmin=0,
        vmax=1,
        extent=(0, count, count, 0),
        interpolation="nearest",
    )
    axes.set_xlabel("predicted class number", fontsize=9, color=FAINT)
    axes.set_ylabel("true class number", fontsize=9, color=FAINT)
    axes.tick_params(labelsize=8.5, color=GRID, labelcolor=INK)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=np.sqrt([0, 0.01, 0.1, 0.25, 0.5, 1]))
    bar.ax.set_yticklabels(["0", "1%", "10%", "25%", "50%", "100%"], fontsize=8, color=INK)
    bar.set_label("share of the true class", fontsize=8.5, color=FAINT)
    ranks = figure.add_subplot(grid[0, 1])
    _style(ranks)
    accuracy = np.sort(np.diagonal(shares)[~np.isnan(np.diagonal(shares))])
    ranks.fill_between(np.arange(len(accuracy)), accuracy, color=BLUE, alpha=0.25, linewidth=0)
    ranks.plot(np.arange(len(accuracy)), accuracy, color=BLUE, linewidth=1.6)
    ranks.set_ylim(0, 1.02)
    ranks.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    ranks.set_title("accuracy of each class, from the worst to the best", loc="left", fontsize=9.5, color=INK)
    ranks.grid(True, color=GRID, linewidth=0.8)
    _list_worst(figure.add_subplot(grid[1, 1]), matrix, shares, class_names, worst)
    return _pixels(figure)


def _list_worst(
    axes: Axes, matrix: np.ndarray, shares: np.ndarray, class_names: Sequence[str], worst: int
) -> None:
    axes.axis("off")
    axes.set_title("commonest confusions: true, taken for, how often", loc="left", fontsize=9.5, color=INK)
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    # A partial sort: 21,841 classes have half a billion pairs.
    flat = off.ravel()
    top = np.argpartition(flat, -min(worst, flat.size))[-min(worst, flat.size) :]
    top = top[flat[top] > 0]
    for place, pair in enumerate(top[np.argsort(-flat[top], kind="stable")]):
        row, column = divmod(int(pair), len(class_names))
        height = 1 - (place + 0.7) / worst
        cells = (
            (0.0, _shortened(class_names[row], 24), "left"),
            (0.42, _shortened(class_names[column], 24), "left"),
            (1.0, f"{matrix[row, column]} ({shares[row, column]:.0%})", "right"),
        )
        for left, text, side in cells:
            axes.text(
                left,
                height,
                _printable(text),
                transform=axes.transAxes,
                ha=side,
                va="center",
                fontsize=8.5,
                color=INK,
                parse_math=False,
            )


def _bars(axes: Axes, values: np.ndarray, names: Sequence[str] | None) -> None:
    """Horizontal bars of shares from the top down, each with its number."""
    places = range(len(values))
    axes.barh(places, np.nan_to_num(values), color=BLUE, alpha=0.85, height=0.68)
    for place, value in zip(places, values, strict=True):
        value = float(value)
        text = "no examples" if math.isnan(value) else f"{value:.1%}"
        axes.text(
            (0 if math.isnan(value) else value) + 0.015, place, text, va="center", fontsize=8, color=INK
        )
    axes.set_xlim(0, 1.18)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    if names is not None:
        axes.set_yticks(places, [_printable(_shortened(name)) for name in names], parse_math=False)
        axes.set_ylim(len(values) - 0.4, -0.6)
    axes.grid(True, axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _block_maximum(values: np.ndarray, most: int) -> np.ndarray:
    """`values` `[K, K]` with at most `most` rows and columns: the maximum of each block."""
    block = math.ceil(len(values) / most)
    pad = -len(values) % block
    padded = np.pad(values, ((0, pad), (0, pad)))
    side = len(padded) // block
    return padded.reshape(side, block, side, block).max(axis=(1, 3))


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(_printable(title), fontsize=11.5, color=INK, parse_math=False, fontweight="bold")
    return figure


def _axes(figure: Figure, rows: int, columns: int, place: int) -> Axes:
    axes = figure.add_subplot(rows, columns, place)
    _style(axes)
    return axes


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(labelsize=8.5, color=GRID, labelcolor=INK)


def _pixels(figure: Figure) -> np.ndarray:
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        raise TypeError(f"the figure's canvas is {type(canvas).__name__}; expected Agg's")
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])


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
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT, 11)


def _cut(text: str, width: int) -> str:
    """As much of the text as is at most `width` pixels wide."""
    text = _printable(text)
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _shortened(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(FT2Font(FONT).get_charmap())


def _printable(text: str) -> str:
    """The text with a box for each character that the font lacks, as folder names may be in any script."""
    return "".join(character if ord(character) in _glyphs() else "□" for character in text)
