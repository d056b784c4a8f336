"""What all pictures share: colours, font, and figures that touch none of matplotlib's global state."""

import functools
import os

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

DPI = 110
INK, FAINT, GRID, PAPER = "#22272e", "#6b7480", "#e3e7ec", "#ffffff"
BLUE, ORANGE, GREEN, RED = "#2463b0", "#d9741a", "#2e9e5b", "#cf3a3a"
FONT = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def new_figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(printable(title), fontsize=11.5, color=INK, parse_math=False, fontweight="bold")
    return figure


def add_axes(figure: Figure, rows: int, columns: int, place: int) -> Axes:
    axes = figure.add_subplot(rows, columns, place)
    style(axes)
    return axes


def style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(labelsize=8.5, color=GRID, labelcolor=INK)


def pixels(figure: Figure) -> np.ndarray:
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        raise TypeError(f"the figure's canvas is {type(canvas).__name__}; expected Agg's")
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])


def shortened(name: str, most: int = 20) -> str:
    """The name with its middle left out where it is long: classes often differ in their last characters."""
    return name if len(name) <= most else f"{name[: most - 8]}…{name[-7:]}"


def printable(text: str) -> str:
    """The text with a box for each character that the font lacks, as folder names may be in any script."""
    return "".join(character if ord(character) in _glyphs() else "□" for character in text)


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(FT2Font(FONT).get_charmap())
