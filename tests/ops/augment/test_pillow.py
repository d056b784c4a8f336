"""Every operation at many magnitudes against Pillow, called as timm 0.4.12 calls it."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from PIL import Image, ImageEnhance, ImageOps

from swin_jax.ops.augment import affine, color
from swin_jax.ops.augment.randaugment import (
    FILL,
    OPERATIONS,
    Application,
    Policy,
    apply,
    draw_applications,
    rand_augment,
)

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
MAGNITUDES = (0.0, 0.4, 3.7, 6.66, 9.0, 9.35, 10.0)


def by_pillow(image: np.ndarray, name: str, magnitude: float, sign: float, increasing: bool) -> np.ndarray:
    picture = Image.fromarray(image)
    width, height = picture.size
    signed, share = sign * magnitude / 10, magnitude / 10
    factor = 1 + 0.9 * signed if increasing else 0.1 + 1.8 * share
    bits, threshold = int(4 * share), int(256 * share)
    if increasing:
        bits, threshold = 4 - bits, 256 - threshold

    def transformed(*matrix: float) -> Image.Image:
        return picture.transform(
            picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=FILL
        )

    def through(table: list[int]) -> Image.Image:
        return picture.point(table * 3)

    results = {
        "none": lambda: picture,
        "auto_contrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "invert": lambda: ImageOps.invert(picture),
        "rotate": lambda: picture.rotate(30 * signed, Image.Resampling.BICUBIC, fillcolor=FILL),
        # By its table: `ImageOps.posterize` refuses to keep no bits since Pillow 12, of which magnitude 10 asks.
        "posterize": lambda: through([value & ~(2 ** (8 - bits) - 1) for value in range(256)]),
        "solarize": lambda: ImageOps.solarize(picture, threshold),
        "solarize_add": lambda: through(
            [min(255, v + int(110 * share)) if v < 128 else v for v in range(256)]
        ),
        "color": lambda: ImageEnhance.Color(picture).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(picture).enhance(factor),
        "brightness": lambda: ImageEnhance.Brightness(picture).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(factor),
        "shear_x": lambda: transformed(1, 0.3 * signed, 0, 0, 1, 0),
        "shear_y": lambda: transformed(1, 0, 0, 0.3 * signed, 1, 0),
        "translate_x": lambda: transformed(1, 0, 0.45 * signed * width, 0, 1, 0),
        "translate_y": lambda: transformed(1, 0, 0, 0, 1, 0.45 * signed * height),
    }
    return np.asarray(results[name]())


@pytest.mark.parametrize("increasing", [True, False], ids=["increasing", "plain"])
def test_operations_are_pillows(photograph: np.ndarray, increasing: bool) -> None:
    cases = [(name, m, sign) for name in (*OPERATIONS, "none") for m in MAGNITUDES for sign in (1.0, -1.0)]
    drawn = Application(
        jnp.asarray([(*OPERATIONS, "none").index(name) for name, _, _ in cases]),
        jnp.asarray([m for _, m, _ in cases], jnp.float32),
        jnp.asarray([sign for _, _, sign in cases], jnp.float32),
    )
    one = jax.jit(jax.vmap(lambda drawn: apply(jnp.asarray(photograph), drawn, increasing, FILL)))
    for (name, magnitude, sign), found in zip(cases, np.asarray(one(drawn)), strict=True):
        expected = by_pillow(photograph, name, magnitude, sign, increasing)
        difference = np.abs(found.astype(int) - expected)
        if name == "none":
            np.testing.assert_array_equal(found, photograph)
            continue
        if name in GEOMETRIC:
            # A pixel whose source lies on the border itself may fall to either side of it.
            assert np.mean(difference <= 1) > 0.99, (name, magnitude, sign)
        else:
            assert difference.max() <= 1, (name, magnitude, sign)
        if magnitude >= 5 and increasing:
            assert (found != photograph).mean() > 0.02, (name, magnitude, sign)


def test_rows_undergo_their_own_draws(photograph: np.ndarray) -> None:
    policy, key = Policy(magnitude=9.0, std=0.5, operations=1, increasing=True), jax.random.key(3)
    images = jnp.asarray(np.stack([photograph] * 8))
    found = np.asarray(jax.jit(lambda images: rand_augment(images, key, policy))(images))
    drawn = jax.tree.map(lambda values: np.asarray(values)[:, 0], draw_applications(key, 8, policy))
    assert len(set(drawn.operation)) >= 4
    for row, name in enumerate((*OPERATIONS, "none")[operation] for operation in drawn.operation):
        expected = by_pillow(photograph, name, float(drawn.magnitude[row]), float(drawn.sign[row]), True)
        difference = np.abs(found[row].astype(int) - expected)
        assert np.mean(difference <= 1) > 0.99, name


def test_directions() -> None:
    """One bright pixel, found again by hand: no two mirrored conventions can both be right."""
    image = np.zeros((21, 21, 3), np.uint8)
    image[10, 15] = 250

    resample = jax.jit(lambda matrix: affine.resample(jnp.asarray(image), matrix, (0, 0, 0)))

    def brightest(matrix: jax.Array) -> tuple[int, int]:
        found = np.asarray(resample(matrix))[..., 0]
        row, column = np.unravel_index(found.argmax(), found.shape)
        return int(row), int(column)

    assert brightest(affine.rotation(jnp.asarray(90.0), 21, 21)) == (
        5,
        10,
    )  # counter-clockwise: right goes up
    assert brightest(affine.shear_and_shift(x=3.0)) == (10, 12)
    assert brightest(affine.shear_and_shift(y=-4.0)) == (14, 15)
    assert brightest(affine.shear_and_shift(shear_y=1.0, y=-10.5)) == (5, 15)


def test_flat_and_two_valued_channels_keep_to_pillow() -> None:
    """Autocontrast and equalize have their exceptions where a channel holds one value or too few pixels."""
    image = np.zeros((6, 7, 3), np.uint8)
    image[..., 0] = 77
    image[2:, :, 1] = 200
    image[..., 2] = np.arange(42).reshape(6, 7)
    large = np.tile(image, (20, 20, 1))
    names = ("auto_contrast", "equalize")
    drawn = Application(
        jnp.asarray([OPERATIONS.index(name) for name in names]), jnp.full(2, 9.0), jnp.ones(2)
    )
    for picture in (image, large):
        both = jax.jit(jax.vmap(lambda drawn, p=picture: apply(jnp.asarray(p), drawn, True, FILL)))(drawn)
        for name, found in zip(names, np.asarray(both).astype(int), strict=True):
            expected = by_pillow(picture, name, 9.0, 1.0, True)
            assert np.abs(found - expected).max() <= (name == "auto_contrast"), name


def test_grey_is_pillows(photograph: np.ndarray) -> None:
    luminance = np.asarray(Image.fromarray(photograph).convert("L"))
    np.testing.assert_array_equal(color.grey(jnp.asarray(photograph)), luminance)
    assert int(color.mean_grey(jnp.asarray(luminance))) == int(luminance.mean() + 0.5)
