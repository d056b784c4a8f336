"""Speeds of a benchmark, side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from swin_jax.tasks.pictures.style import BLUE, FAINT, INK, ORANGE, add_axes, new_figure, pixels, printable


class Speed(NamedTuple):
    """A contender in one discipline: the median and its spread."""

    name: str
    median: float
    least: float
    greatest: float
    ours: bool


def speed_picture(disciplines: Sequence[tuple[str, Sequence[Speed]]], *, title: str, unit: str) -> np.ndarray:
    """A bar for each contender, ours in blue, with its spread; a field for each discipline. Longer is faster."""
    rows = max(len(speeds) for _, speeds in disciplines)
    figure = new_figure(width=4.6 * len(disciplines) + 1.5, height=0.45 * rows + 1.6, title=title)
    for number, (name, speeds) in enumerate(disciplines):
        axes = add_axes(figure, 1, len(disciplines), number + 1)
        places = np.arange(len(speeds))[::-1]
        medians = [one.median for one in speeds]
        spread = [[one.median - one.least for one in speeds], [one.greatest - one.median for one in speeds]]
        colours = [BLUE if one.ours else ORANGE for one in speeds]
        axes.barh(places, medians, xerr=spread, color=colours, ecolor=INK, height=0.6)
        axes.set_yticks(places, [printable(one.name) for one in speeds], fontsize=8.5, color=INK)
        axes.set_title(printable(name), fontsize=9.5, color=INK)
        axes.set_xlabel(unit, fontsize=8.5, color=FAINT)
    return pixels(figure)
