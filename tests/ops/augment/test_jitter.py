"""Colour jitter and three-augment against Pillow."""

import itertools

import jax
import numpy as np
from jax import numpy as jnp
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from swin_jax.ops.augment import color_jitter, row_keys, three_augment
from swin_jax.ops.augment.jitter import gaussian_blur

ENHANCEMENTS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def test_color_jitter_is_three_enhancements_in_some_order(photograph: np.ndarray) -> None:
    rows, key = 12, jax.random.key(0)
    found = np.asarray(
        jax.jit(lambda x: color_jitter(x, key, 0.4))(jnp.asarray(np.stack([photograph] * rows)))
    )
    orders = set()
    for row, row_key in enumerate(row_keys(key, rows)):
        order, factors = jax.random.split(row_key)
        drawn = np.asarray(jax.random.uniform(factors, (3,), minval=0.6, maxval=1.4))
        kinds = tuple(np.asarray(jax.random.permutation(order, 3)))
        picture = Image.fromarray(photograph)
        for kind, factor in zip(kinds, drawn, strict=True):
            picture = ENHANCEMENTS[kind](picture).enhance(float(factor))
        # One level off at a step may grow by 1.4 at each of the next two.
        assert np.abs(found[row].astype(int) - np.asarray(picture)).max() <= 3
        orders.add(kinds)
    assert orders <= set(itertools.permutations(range(3)))
    assert len(orders) >= 4


def test_three_augment_is_one_of_three(photograph: np.ndarray) -> None:
    rows = 60
    found = np.asarray(
        jax.jit(lambda x: three_augment(x, jax.random.key(1)))(jnp.asarray(np.stack([photograph] * rows)))
    )
    picture = Image.fromarray(photograph)
    grey = np.asarray(picture.convert("L").convert("RGB"))
    solarized = np.asarray(ImageOps.solarize(picture, 128))
    kinds = [
        "grey" if (row == grey).all() else "solarized" if (row == solarized).all() else "blurred"
        for row in found
    ]
    counts = [kinds.count(kind) for kind in ("grey", "solarized", "blurred")]
    assert min(counts) >= 10
    blurred = found[kinds.index("blurred")].astype(float)
    assert np.abs(np.diff(blurred, axis=0)).mean() < np.abs(np.diff(photograph.astype(float), axis=0)).mean()
    assert abs(blurred.mean() - photograph.mean()) < 1


def test_blur_is_gaussian(photograph: np.ndarray) -> None:
    """Pillow's is three box blurs: nearly one. A radius of 0.3 pixels leaves the picture almost alone."""
    for sigma in (0.3, 1.0, 2.0):
        found = np.asarray(gaussian_blur(jnp.asarray(photograph), jnp.asarray(sigma))).astype(int)
        expected = np.asarray(Image.fromarray(photograph).filter(ImageFilter.GaussianBlur(sigma)))
        difference = np.abs(found - expected)
        assert difference.mean() < 1.0
        assert np.mean(difference <= 8) > 0.97
