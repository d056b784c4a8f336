"""Crops and resizes equal, to the pixel, what Pillow and the published preprocessing's formulas give."""

import math

import numpy as np
import pytest
from PIL import Image

from swin_jax.data import geometry
from swin_jax.data.examples import ClassificationEval, ClassificationTrain

SHAPES = [(375, 500), (500, 375), (97, 131), (224, 224), (40, 300), (257, 31), (33, 33)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def pillow_resize(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def evaluated(picture: np.ndarray, **options) -> np.ndarray:
    record = {"image": picture, "label": 0, "name": "p"}
    return ClassificationEval(**options)(record, np.random.default_rng(0))["image"]


def expected_evaluation(picture: np.ndarray, side: int, size: int) -> np.ndarray:
    """Resize the shorter side, truncate the longer; crop at the rounded half of the rest."""
    height, width = picture.shape[:2]
    if width <= height:
        width, height = side, int(side * height / width)
    else:
        width, height = int(side * width / height), side
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    image = Image.fromarray(pillow_resize(picture, width, height))
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize(("side", "size"), [(256, 224), (292, 256), (232, 224), (73, 64)])
@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_resizes_and_crops_as_published(shape, side, size):
    picture = noise(*shape)
    got = evaluated(picture, size=(size, size), resize=side)
    np.testing.assert_array_equal(got, expected_evaluation(picture, side, size))


def test_evaluation_at_384_squashes():
    picture = noise(375, 500)
    got = evaluated(picture, size=(384, 384), resize=(384, 384))
    np.testing.assert_array_equal(got, pillow_resize(picture, 384, 384))


def test_centre_crop_rounds_halves_to_even():
    # 5 - 2 leaves 3: the crop begins at round(1.5) = 2; 3 - 2 leaves 1: at round(0.5) = 0.
    picture = np.arange(15, dtype=np.uint8).reshape(5, 3, 1)
    np.testing.assert_array_equal(geometry.center_crop(picture, (2, 2))[..., 0], [[6, 7], [9, 10]])


def test_centre_crop_pads_what_is_too_small_with_black():
    picture = np.full((3, 6, 3), 9, np.uint8)
    got = geometry.center_crop(picture, (6, 4))
    assert got.shape == (6, 4, 3)
    np.testing.assert_array_equal(got[:, 0, 0], [0, 9, 9, 9, 0, 0])


def expected_box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = rng.uniform(0.08, 1.0) * height * width
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w <= width and h <= height and w > 0 and h > 0:
            top = int(rng.integers(0, height - h + 1))
            return top, int(rng.integers(0, width - w + 1)), h, w
    if width / height < 3 / 4:
        w, h = width, round(width / (3 / 4))
    elif width / height > 4 / 3:
        w, h = round(height * (4 / 3)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("shape", SHAPES)
def test_random_resized_crop_is_the_crop_then_pillows_resize(shape):
    picture, example = noise(*shape), ClassificationTrain(size=(48, 64))
    for seed in range(5):
        top, left, height, width = expected_box(*shape, np.random.default_rng(seed))
        crop = np.ascontiguousarray(picture[top : top + height, left : left + width])
        row = example({"image": picture, "label": 3, "name": "p"}, np.random.default_rng(seed))
        np.testing.assert_array_equal(row["image"], pillow_resize(crop, 64, 48))
        assert row["label"].dtype == np.int32
        assert row["label"] == 3


def test_crops_stay_inside_and_spread_over_areas_and_aspects():
    rng = np.random.default_rng(0)
    boxes = [
        geometry.random_resized_crop_box(300, 400, (0.08, 1.0), (3 / 4, 4 / 3), rng) for _ in range(4000)
    ]
    top, left, height, width = np.array(boxes).T
    assert min(top.min(), left.min()) == 0
    assert (top + height).max() == 300
    assert (left + width).max() == 400
    area, aspect = height * width / 120_000, np.log(width / height)
    assert 0.079 < area.min() < 0.1
    assert area.max() > 0.95
    assert abs(aspect).max() < math.log(4 / 3) + 0.02
    # Every box of less than half the area fits, so those are uniform in area and in the logarithm of the aspect.
    small = area < 0.5
    assert abs(np.mean(area[small] < 0.29) - 0.5) < 0.03
    assert abs(np.mean(aspect[small] < 0) - 0.5) < 0.03
    assert abs(np.mean(aspect[small] < math.log(4 / 3) / 2) - 0.75) < 0.03


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((10, 100), (0, 43, 10, 13)),
        ((100, 10), (43, 0, 13, 10)),
        ((100, 1), (49, 0, 1, 1)),
        ((8, 8), (0, 0, 8, 8)),
    ],
)
def test_fallback_is_the_largest_central_box_of_a_permitted_aspect(shape, box):
    assert geometry.central_box(*shape, (3 / 4, 4 / 3)) == box


def test_padded_crop_shifts_by_up_to_four_pixels_and_fills_black():
    picture, example = noise(32, 32), ClassificationTrain(size=(32, 32), pad_crop=4)
    padded = np.pad(picture, ((4, 4), (4, 4), (0, 0)))
    shifts = set()
    for seed in range(300):
        got = example({"image": picture, "label": 0, "name": "p"}, np.random.default_rng(seed))["image"]
        fits = [
            (y, x) for y in range(9) for x in range(9) if np.array_equal(got, padded[y : y + 32, x : x + 32])
        ]
        assert len(fits) == 1
        shifts.update(fits)
    assert len(shifts) > 70  # of 81


def test_padded_crop_first_brings_pictures_to_size():
    example = ClassificationTrain(size=(32, 48), pad_crop=4)
    assert example({"image": noise(50, 40), "label": 0, "name": "p"}, np.random.default_rng(0))[
        "image"
    ].shape == (
        32,
        48,
        3,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolation": "cubic"}, "interpolation is 'cubic'; choose one of"),
        ({"scale": (0.0, 1.0)}, "crop scale is"),
        ({"ratio": (2.0, 1.0)}, "crop ratio is"),
        ({"size": (224, 0)}, "size is"),
        ({"pad_crop": -1}, "pad_crop is -1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClassificationTrain(**{"size": (32, 32), **options})


def test_a_training_record_needs_a_label():
    with pytest.raises(ValueError, match=r"a\.jpg has no label"):
        ClassificationTrain(size=(32, 32))(
            {"image": noise(8, 8), "label": -1, "name": "a.jpg"}, np.random.default_rng(0)
        )
