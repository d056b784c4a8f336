"""Colours and textures of the embedded data set, in whole numbers: the same pixels on every machine."""

import functools

import numpy as np

from swin_jax.data.sources.outlines import COSINES, SINES, TURN

TEXTURES = ("stripes", "dots", "checks", "noise", "gradient")
FULL = 255
HUES = 1536

# A wave of period 256 between 0 and 255, square with soft edges.
_SQUARE = np.clip((np.abs(np.arange(256) - 128) - 64) * 9 + 128, 0, FULL).astype(np.int32)


def colour(hue: int, saturation: int, value: int) -> np.ndarray:
    """RGB int64 [3]; hue in [0, 1536), the others in [0, 255]."""
    sector, inside = divmod(hue % HUES, 256)
    rising, falling = inside, FULL - inside
    red, green, blue = (
        (FULL, rising, 0),
        (falling, FULL, 0),
        (0, FULL, rising),
        (0, falling, FULL),
        (rising, 0, FULL),
        (FULL, 0, falling),
    )[sector]
    pure = np.array([red, green, blue], np.int64)
    return value * (FULL * FULL - saturation * (FULL - pure)) // (FULL * FULL)


def contrast(first: np.ndarray, second: np.ndarray) -> int:
    """How far apart two RGB colours look, in [0, 255]."""
    return int(np.abs(first - second) @ np.array([3, 5, 2]) // 10)


def texture(kind: str, height: int, width: int, rng: np.random.Generator, *, period: int) -> np.ndarray:
    """Weights of the second colour, int32 [height, width] in [0, 255], of the given period in pixels."""
    if kind == "noise":
        return _noise(height, width, period, rng)
    across, along = _rotated(height, width, int(rng.integers(TURN)))
    if kind == "gradient":
        low, high = int(across.min()), int(across.max())
        return (across - low) * FULL // max(high - low, 1)
    first, second = (((axis // period) + int(rng.integers(256))) & 255 for axis in (across, along))
    if kind == "stripes":
        return _SQUARE[first]
    if kind == "checks":
        a, b = _SQUARE[first], _SQUARE[second]
        return (a * (FULL - b) + (FULL - a) * b) // FULL
    if kind == "dots":
        squared = (first - 128) ** 2 + (second - 128) ** 2
        return np.clip((74 * 74 - squared) // 14 + 128, 0, FULL)
    raise ValueError(f"texture {kind!r} is unknown; known: {', '.join(TEXTURES)}")


def _rotated(height: int, width: int, angle: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along two perpendicular directions, in 1/256 pixel."""
    x, y = np.arange(width, dtype=np.int32) * 256, np.arange(height, dtype=np.int32)[:, None] * 256
    cosine, sine = np.int32(COSINES[angle]), np.int32(SINES[angle])
    return (x * cosine + y * sine) >> 12, (y * cosine - x * sine) >> 12


def _noise(height: int, width: int, period: int, rng: np.random.Generator) -> np.ndarray:
    """Two octaves of smooth random values."""
    total = np.zeros((height, width))
    for cell, share in ((2 * period, 5), (period, 3)):
        rows, columns = _spline(height, cell), _spline(width, cell)
        grid = rng.integers(0, 256, (rows.shape[1], columns.shape[1]))
        # Whole numbers below 2**53: exact in floats, which multiply matrices faster.
        total += share * (rows @ grid.astype(np.float64) @ columns.T)
    weights = (total / 2**23).astype(np.int32)
    return np.clip((weights - 128) * 5 // 2 + 128, 0, FULL)


@functools.lru_cache(maxsize=256)
def _spline(size: int, cell: int) -> np.ndarray:
    """Cubic B-spline weights float64 [size, nodes] of nodes `cell` pixels apart: whole numbers with sum 1024."""
    position = np.arange(size)
    node, t = position // cell, (position % cell) / cell
    shares = [(1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6]
    whole = np.round(1024 * np.stack(shares))
    whole = np.concatenate([whole, 1024 - whole.sum(axis=0, keepdims=True)])
    weights = np.zeros((size, (size - 1) // cell + 4))
    for offset, share in enumerate(whole):
        weights[position, node + offset] = share
    return weights


def painted(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3]: from the first colour (weight 0) to the second (255)."""
    steps = np.arange(256)[:, None]
    palette = np.zeros((256, 4), np.uint8)  # four bytes a colour are looked up as one number
    palette[:, :3] = (first * (FULL - steps) + second * steps) // FULL
    packed = palette.view(np.uint32)[:, 0].take(weights)
    return packed.view(np.uint8).reshape(*weights.shape, 4)[..., :3]
