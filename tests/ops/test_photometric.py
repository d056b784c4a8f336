"""Photometric distortion against OpenCV's own conversions, step by step in the published order."""

import cv2
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from swin_jax.ops import photometric
from swin_jax.ops.photometric import Draws

COUNT = 40
DISTORT = jax.jit(photometric.distort)  # compiled once for all tests


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Noise, smooth noise and grey, all sixteen pixels wide: OpenCV rounds the last pixels of odd widths otherwise."""
    generator = np.random.default_rng(seed)
    found = generator.integers(0, 256, (count, 32, 64, 3)).astype(np.uint8)
    found[1] = cv2.GaussianBlur(found[1], (0, 0), 4)
    found[2] = found[2, ..., :1]
    return found


def levels(values: np.ndarray, factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return np.clip(values.astype(np.float32) * np.float32(factor) + np.float32(shift), 0, 255).astype(
        np.uint8
    )


def published(picture: np.ndarray, draws: Draws, row: int) -> np.ndarray:
    """The steps in the order and arithmetic of the published code, a step left out where nothing was drawn for it."""
    shift, contrast, first, saturation, hue = (np.asarray(field)[row] for field in draws)
    if shift:
        picture = levels(picture, shift=shift)
    if first and contrast != 1:
        picture = levels(picture, contrast)
    if saturation != 1:
        hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = levels(hsv[..., 1], saturation)
        picture = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if hue:
        hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(hue)) % 180
        picture = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not first and contrast != 1:
        picture = levels(picture, contrast)
    return picture


def test_distortion_is_the_published_one() -> None:
    images = pictures(COUNT)
    draws = jax.jit(photometric.draw, static_argnums=1)(jax.random.key(3), COUNT)
    found = np.asarray(DISTORT(jnp.asarray(images), draws))
    expected = np.stack([published(image, draws, row) for row, image in enumerate(images)])
    # The way back from HSV is float arithmetic, whose last bit may fall on either side of a whole level.
    off = np.abs(found.astype(int) - expected.astype(int))
    assert (off > 0).mean() < 1e-3
    assert off.max() <= 2


def test_hsv_is_opencvs_for_every_colour_of_a_grid() -> None:
    grid = (
        np.stack(np.meshgrid(*[np.arange(0, 256, 5)] * 3), axis=-1)
        .reshape(1, 52, 52 * 52, 3)
        .astype(np.uint8)
    )
    found = np.stack([np.asarray(c) for c in photometric._to_hsv(jnp.asarray(grid, jnp.int32))], axis=-1)
    np.testing.assert_array_equal(found[0], cv2.cvtColor(grid[0], cv2.COLOR_RGB2HSV))


def test_each_step_is_taken_by_half_of_the_pictures_within_its_range() -> None:
    draws = jax.jit(photometric.draw, static_argnums=1)(jax.random.key(0), 4000)
    taken = {
        "brightness": draws.brightness != 0,
        "contrast": draws.contrast != 1,
        "contrast_first": draws.contrast_first,
        "saturation": draws.saturation != 1,
    }
    for name, share in taken.items():
        assert np.mean(share) == pytest.approx(0.5, abs=0.03), name
    assert np.mean(draws.hue != 0) == pytest.approx(0.5 * 35 / 36, abs=0.03)
    assert (int(draws.hue.min()), int(draws.hue.max())) == (-18, 17)
    assert -32 <= float(draws.brightness.min()) < -30
    for factor in (draws.contrast, draws.saturation):
        assert 0.5 <= float(factor.min()) < 0.52
        assert 1.48 < float(factor.max()) <= 1.5
    pairs = np.corrcoef([np.asarray(share, float) for share in taken.values()])
    assert np.abs(pairs - np.eye(4)).max() < 0.06  # the coins are independent


def test_nothing_drawn_changes_nothing() -> None:
    images = pictures(COUNT)
    ones, zeros = jnp.ones(COUNT), jnp.zeros(COUNT)
    still = Draws(zeros, ones, jnp.arange(COUNT) % 2 == 0, ones, jnp.zeros(COUNT, jnp.int32))
    np.testing.assert_array_equal(DISTORT(jnp.asarray(images), still), images)
