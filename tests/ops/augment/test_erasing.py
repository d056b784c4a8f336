"""Random erasing: how often, how large, how tall, where, and by what."""

import math

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from scipy import stats

from swin_jax.ops.augment.erasing import Box, Erasing, draw_box, random_erasing

HEIGHT, WIDTH = 448, 448  # large, so that whole pixels hardly blur the distributions


@pytest.fixture(scope="module")
def boxes() -> Box:
    keys = jax.random.split(jax.random.key(1), 20_000)
    drawn = jax.jit(jax.vmap(lambda key: draw_box(key, HEIGHT, WIDTH, Erasing(probability=1.0))))(keys)
    return jax.tree.map(np.asarray, drawn)


def test_boxes_follow_the_published_distribution(boxes: Box) -> None:
    """Against the same procedure written as a loop: ratios near the ends are drawn again when they do not fit."""
    generator = np.random.default_rng(0)
    heights, widths = [], []
    for _ in range(20_000):
        for _ in range(10):
            area = generator.uniform(0.02, 1 / 3) * HEIGHT * WIDTH
            aspect = math.exp(generator.uniform(math.log(0.3), math.log(1 / 0.3)))
            tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if tall < HEIGHT and wide < WIDTH:
                heights.append(tall)
                widths.append(wide)
                break
    tall, wide = boxes.bottom - boxes.top, boxes.right - boxes.left
    found = tall * wide / (HEIGHT * WIDTH)
    assert found.min() >= 0.0195
    assert found.max() <= 1 / 3 + 0.003
    expected = np.array(heights) * np.array(widths) / (HEIGHT * WIDTH)
    assert stats.ks_2samp(found, expected).pvalue > 1e-3
    assert stats.ks_2samp(np.log(tall / wide), np.log(np.array(heights) / np.array(widths))).pvalue > 1e-3
    assert abs(np.mean(np.log(tall / wide))) < 0.02


def test_boxes_lie_anywhere_inside(boxes: Box) -> None:
    assert boxes.top.min() == 0
    assert boxes.bottom.max() == HEIGHT
    assert boxes.right.max() <= WIDTH
    for start, end, size in ((boxes.top, boxes.bottom, HEIGHT), (boxes.left, boxes.right, WIDTH)):
        free = size - (end - start)
        assert stats.kstest((start + 0.5) / (free + 1), "uniform").pvalue > 1e-3


def test_a_quarter_of_the_rows_is_erased_with_noise() -> None:
    images = jnp.full((600, 24, 20, 3), 9.0)
    found = np.asarray(jax.jit(lambda key: random_erasing(images, key, Erasing()))(jax.random.key(2)))
    changed = (found != 9.0).all(axis=-1)
    np.testing.assert_array_equal(changed, (found != 9.0).any(axis=-1))
    erased = changed.any(axis=(1, 2))
    assert abs(erased.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 600)
    for row in np.flatnonzero(erased):
        rows, columns = changed[row].any(axis=1), changed[row].any(axis=0)
        assert changed[row].sum() == rows.sum() * columns.sum()  # one rectangle
        assert rows.sum() < 24
        assert columns.sum() < 20
    assert stats.kstest(found[changed].ravel(), "norm").pvalue > 1e-3
    assert len(np.unique(found[changed])) > 0.99 * found[changed].size  # pixel by pixel, channel by channel


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"probability": 1.2}, "augment.erase_probability is 1.2"),
        ({"area": (0.5, 0.2)}, r"augment.erase_area is \(0.5, 0.2\)"),
        ({"area": (0.0, 0.2)}, "augment.erase_area"),
        ({"aspect": 3.0}, "augment.erase_aspect is 3.0"),
    ],
)
def test_numbers_out_of_range(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Erasing(**fields)  # type: ignore[arg-type]
