"""A study: what each row reached, and how."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps

from swin_jax.tasks.pictures.style import (
    BLUE,
    FAINT,
    GRID,
    INK,
    ORANGE,
    add_axes,
    new_figure,
    pixels,
    printable,
)


class Outcome(NamedTuple):
    """How far a row is from the base row: over seeds, and as published."""

    title: str
    values: tuple[float, ...]
    published: float | int | None


class Curve(NamedTuple):
    """A row's values at steps, [seeds, steps]."""

    title: str
    steps: tuple[int, ...]
    values: np.ndarray


def study_picture(
    outcomes: Sequence[Outcome], curves: Sequence[Curve], *, title: str, measure: str
) -> np.ndarray:
    """Left: every seed, the mean, and the published difference, row by row. Right: the mean over seeds by step."""
    figure = new_figure(width=12.5, height=max(3.6, 0.42 * len(outcomes) + 1.6), title=title)
    left = add_axes(figure, 1, 2, 1)
    places = np.arange(len(outcomes))[::-1]
    for place, outcome in zip(places, outcomes, strict=True):
        left.plot(outcome.values, [place] * len(outcome.values), ".", color=BLUE, alpha=0.45, markersize=7)
        left.plot([np.mean(outcome.values)], [place], "|", color=BLUE, markersize=15, markeredgewidth=2.2)
        if outcome.published is not None:
            left.plot([outcome.published], [place], "D", mfc="none", mec=ORANGE, markersize=6)
    left.set_yticks(places, [printable(outcome.title) for outcome in outcomes], fontsize=8.5, color=INK)
    left.set_ylim(-0.6, len(outcomes) - 0.4)
    left.axvline(0, color=GRID, linewidth=1.2, zorder=0)
    left.set_xlabel(
        "difference to the base row (blue: ours, seeds and mean; orange: published)",
        fontsize=8.5,
        color=FAINT,
    )
    right = add_axes(figure, 1, 2, 2)
    colours = colormaps["turbo"](np.linspace(0.05, 0.95, max(len(curves), 2)))
    for curve, colour in zip(curves, colours, strict=False):
        right.plot(
            curve.steps, curve.values.mean(axis=0), color=colour, linewidth=1.5, label=printable(curve.title)
        )
    right.set_xlabel("step", fontsize=8.5, color=FAINT)
    right.set_ylabel(measure, fontsize=8.5, color=FAINT)
    if curves:
        right.legend(fontsize=7.5, frameon=False, labelcolor=INK)
    return pixels(figure)
