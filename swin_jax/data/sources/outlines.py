"""Outlines of the shapes of the embedded data set, in whole numbers so that they are the same on every machine.

All fit into the circle of radius `UNIT` around the origin, y down. An outline is a list of closed contours; where
they overlap it is empty.
"""

import math
from collections.abc import Sequence

import numpy as np

UNIT = 4096
Outline = list[np.ndarray]


def _rounded(points: Sequence[tuple[float, float]]) -> np.ndarray:
    # Rounding hides what libraries of different machines make of the last bit of a cosine.
    return np.array([[round(UNIT * x), round(UNIT * y)] for x, y in points], np.int64)


def _arc(radius: float, start: float, stop: float, count: int, x: float = 0.0) -> list[tuple[float, float]]:
    angles = [math.radians(start + (stop - start) * step / count) for step in range(count + 1)]
    return [(x + radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _polygon(corners: int, inner: float | None = None) -> Outline:
    """Regular; with `inner`, a star whose notches are at that radius."""
    radii = [1.0] if inner is None else [1.0, inner]
    count = corners * len(radii)
    turns = [2 * math.pi * corner / count - math.pi / 2 for corner in range(count)]
    points = [
        (radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a))
        for i, a in enumerate(turns)
    ]
    return [_rounded(points)]


def _ring() -> Outline:
    return [_rounded(_arc(1.0, 0.0, 360.0, 72)), _rounded(_arc(0.55, 0.0, 360.0, 72))]


def _crescent() -> Outline:
    # The disc less a disc of radius r at distance d; the tips are where the circles meet.
    r, d = 0.82, 0.52
    x = (1 - r * r + d * d) / (2 * d)
    outer, inner = math.degrees(math.acos(x)), math.degrees(math.acos((x - d) / r))
    return [_rounded(_arc(1.0, outer, 360 - outer, 60) + _arc(r, 360 - inner, inner, 60, x=d))]


def _cross() -> Outline:
    a, b = 0.94, 0.32
    return [
        _rounded(
            [
                (-b, -a),
                (b, -a),
                (b, -b),
                (a, -b),
                (a, b),
                (b, b),
                (b, a),
                (-b, a),
                (-b, b),
                (-a, b),
                (-a, -b),
                (-b, -b),
            ]
        )
    ]


def _heart() -> Outline:
    turns = [2 * math.pi * step / 80 for step in range(80)]
    points = [
        (
            16 * math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)),
        )
        for t in turns
    ]
    return [_rounded([(x / 17.5, (y - 1.5) / 17.5) for x, y in points])]


OUTLINES: dict[str, Outline] = {
    "circle": [_rounded(_arc(1.0, 0.0, 360.0, 72))],
    "crescent": _crescent(),
    "cross": _cross(),
    "heart": _heart(),
    "ring": _ring(),
    "square": _polygon(4),
    "star": _polygon(5, inner=0.42),
    "triangle": _polygon(3),
}
CLASSES = tuple(sorted(OUTLINES))
TURN = 360
COSINES, SINES = (
    np.array([round(UNIT * function(math.radians(angle))) for angle in range(TURN)], np.int64)
    for function in (math.cos, math.sin)
)


def blob(rng: np.random.Generator) -> Outline:
    """A smooth irregular patch, of no class."""
    angles = np.arange(0, TURN, 9)
    radii = np.full(len(angles), 2800, np.int64)
    for frequency in (2, 3, 4):
        swing, phase = int(rng.integers(100, 420)), int(rng.integers(TURN))
        radii += swing * COSINES[(frequency * angles + phase) % TURN] // UNIT
    return [np.stack([radii * COSINES[angles], radii * SINES[angles]], axis=-1) // UNIT]


def stroke(rng: np.random.Generator) -> Outline:
    """A bent band, of no class."""
    span, thickness = int(rng.integers(40, 200)), int(rng.integers(250, 700))
    angles = np.arange(0, span, 6) % TURN
    directions = np.stack([COSINES[angles], SINES[angles]], axis=-1)
    outer, inner = (directions * radius // UNIT for radius in (UNIT, UNIT - thickness))
    return [np.concatenate([outer, inner[::-1]])]
