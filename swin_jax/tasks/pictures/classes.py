"""How well each class is told from the others."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from swin_jax.tasks.pictures.style import (
    BLUE,
    FAINT,
    GRID,
    INK,
    PAPER,
    add_axes,
    new_figure,
    pixels,
    printable,
    shortened,
    style,
)

# Up to so many classes the confusion has names, and up to so many a number in each cell.
NAMED_CLASSES, NUMBERED_CLASSES = 40, 20


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
    places = list(range(len(values)))
    order = np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")
    known = order[: np.count_nonzero(~np.isnan(values))]
    if len(known) > most:
        ends = known[: most // 2], known[-(most - most // 2) :]
        order = np.concatenate(ends)
        # An empty line stands for the classes between.
        places = [*range(len(ends[0])), *range(len(ends[0]) + 1, len(order) + 1)]
        title = f"{title}: the {most // 2} lowest and {most - most // 2} highest of {len(known)} classes"
    order, places = order[:most], places[:most]
    figure = new_figure(width=7.0, height=1.3 + 0.24 * len(order), title=title)
    axes = add_axes(figure, 1, 1, 1)
    labels = _labels(class_names)
    _bars(axes, values[order], [labels[index] for index in order], places)
    axes.set_xlabel(label, fontsize=8.5, color=FAINT)
    return pixels(figure)


def _named_confusion(
    matrix: np.ndarray, shares: np.ndarray, class_names: Sequence[str], title: str
) -> np.ndarray:
    count = len(class_names)
    names = _labels(class_names)
    cell = 0.52 if count <= 12 else 0.4 if count <= NUMBERED_CLASSES else 0.24
    side = max(3.2, cell * count)
    figure = new_figure(width=side + 5.4, height=side + 2.2, title=title)
    grid = figure.add_gridspec(1, 2, width_ratios=(side, 2.6))
    axes = figure.add_subplot(grid[0])
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
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
    style(bars)
    _bars(bars, np.diagonal(shares), None, range(count))
    bars.tick_params(labelleft=False)
    bars.set_title("accuracy of each class", loc="left", fontsize=9, color=INK)
    return pixels(figure)


def _large_confusion(
    matrix: np.ndarray, shares: np.ndarray, class_names: Sequence[str], title: str, worst: int
) -> np.ndarray:
    count = len(class_names)
    figure = new_figure(width=14.5, height=7.4, title=title)
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
        aspect="auto",
    )
    axes.set_xlabel("predicted class number", fontsize=9, color=FAINT)
    axes.set_ylabel("true class number", fontsize=9, color=FAINT)
    style(axes)
    bar = figure.colorbar(
        image, ax=axes, shrink=0.6, pad=0.01, aspect=30, ticks=np.sqrt([0, 0.01, 0.1, 0.25, 0.5, 1])
    )
    bar.ax.set_yticklabels(["0", "1%", "10%", "25%", "50%", "100%"], fontsize=8, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    bar.set_label("share of the true class", fontsize=8.5, color=FAINT)
    ranks = figure.add_subplot(grid[0, 1])
    style(ranks)
    accuracy = np.sort(np.diagonal(shares)[~np.isnan(np.diagonal(shares))])
    ranks.fill_between(np.arange(len(accuracy)), accuracy, color=BLUE, alpha=0.25, linewidth=0)
    ranks.plot(np.arange(len(accuracy)), accuracy, color=BLUE, linewidth=1.6)
    ranks.set_ylim(0, 1.02)
    ranks.set_xlim(0, max(len(accuracy) - 1, 1))
    ranks.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    ranks.set_title("accuracy of each class, from the worst to the best", loc="left", fontsize=9.5, color=INK)
    ranks.grid(True, color=GRID, linewidth=0.8)
    _list_worst(figure.add_subplot(grid[1, 1]), matrix, shares, class_names, worst)
    return pixels(figure)


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
            (0.0, shortened(class_names[row], 30), "left"),
            (0.42, shortened(class_names[column], 30), "left"),
            (1.0, f"{matrix[row, column]} ({shares[row, column]:.0%})", "right"),
        )
        for left, text, side in cells:
            axes.text(
                left,
                height,
                printable(text),
                transform=axes.transAxes,
                ha=side,
                va="center",
                fontsize=8.5,
                color=INK,
                parse_math=False,
            )


def _bars(axes: Axes, values: np.ndarray, names: Sequence[str] | None, places: Sequence[int]) -> None:
    """Horizontal bars of shares from the top down, each with its number."""
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
        axes.set_yticks(places, names, parse_math=False)
        axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.grid(True, axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _labels(names: Sequence[str]) -> list[str]:
    """The names short enough to stand beside a picture; numbered where shortening made several the same."""
    short = [printable(shortened(name)) for name in names]
    if len(set(short)) == len(short):
        return short
    return [f"{index} {printable(shortened(name))}" for index, name in enumerate(names)]


def _block_maximum(values: np.ndarray, most: int) -> np.ndarray:
    """`values` `[K, K]` with at most `most` rows and columns: the maximum of each block."""
    block = math.ceil(len(values) / most)
    pad = -len(values) % block
    padded = np.pad(values, ((0, pad), (0, pad)))
    side = len(padded) // block
    return padded.reshape(side, block, side, block).max(axis=(1, 3))
