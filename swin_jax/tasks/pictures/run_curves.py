"""The course of a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from swin_jax.tasks.pictures.style import (
    BLUE,
    FAINT,
    GREEN,
    GRID,
    INK,
    ORANGE,
    RED,
    add_axes,
    new_figure,
    pixels,
)

# More points than this and a training curve gets a smoothed line over the faint raw one.
SMOOTHED_POINTS = 60


class Panel(NamedTuple):
    """One axes of `curves`: its title, and the keys of `metrics.jsonl` it shows with their legend."""

    title: str
    lines: Mapping[str, str]
    form: str = "plain"  # or "percent", "scientific"


CLASSIFICATION_PANELS = (
    Panel("loss", {"loss": "training", "eval/loss": "evaluation"}),
    Panel(
        "evaluation accuracy",
        {"eval/top1": "top-1", "eval/top5": "top-5", "eval/ema/top1": "top-1, averaged"},
        "percent",
    ),
    Panel("learning rate", {"learning_rate": ""}, "scientific"),
    Panel("images per second", {"images_per_second": ""}),
)

SEGMENTATION_PANELS = (
    Panel("loss", {"loss": "with auxiliary", "decode_loss": "decode head"}),
    Panel(
        "evaluation",
        {
            "eval/miou": "mean IoU",
            "eval/pixel_accuracy": "pixel accuracy",
            "eval/mean_class_accuracy": "mean class accuracy",
        },
        "percent",
    ),
    *CLASSIFICATION_PANELS[2:],
)

DETECTION_PANELS = (
    Panel(
        "loss",
        {"loss": "all", "terms/cls": "classes", "terms/box": "boxes", "terms/mask": "masks"},
    ),
    Panel(
        "evaluation",
        {
            "eval/box_ap": "box AP",
            "eval/mask_ap": "mask AP",
            "eval/box_ap50": "box AP50",
            "eval/mask_ap50": "mask AP50",
        },
        "percent",
    ),
    *CLASSIFICATION_PANELS[2:],
)


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
    figure = new_figure(width=5.2 * columns, height=3.1 * rows + 0.5, title=title)
    for place, panel in enumerate(panels, start=1):
        axes = add_axes(figure, rows, columns, place)
        axes.set_title(panel.title, loc="left", fontsize=10, color=INK)
        axes.set_xlabel("step", fontsize=8.5, color=FAINT)
        last_steps = [
            _curve(axes, records, key, label, color)
            for (key, label), color in zip(panel.lines.items(), (BLUE, ORANGE, GREEN, RED), strict=False)
        ]
        _finish_panel(axes, panel, max(last_steps))
    return pixels(figure)


def _curve(axes: Axes, records: Sequence[Mapping[str, Any]], key: str, label: str, color: str) -> float:
    """Draws one key over the steps. Returns the last step at which it has a value, -1 if it has none."""
    points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    points = [(step, value) for step, value in points if math.isfinite(value)]
    if not points:
        return -1.0
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
    return float(steps[-1])


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of about a thirtieth of the curve, cut off at its ends."""
    half = max(1, len(values) // 60)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _finish_panel(axes: Axes, panel: Panel, last_step: float) -> None:
    if last_step < 0:
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
    axes.set_xlim(0, 1.03 * max(last_step, 1.0))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
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
