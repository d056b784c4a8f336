"""InstaBoost: objects jittered in their picture, and the rows that come of it."""

import dataclasses
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from swin_jax.config import base_config
from swin_jax.data.detection import DetectionTrain
from swin_jax.data.detection_geometry import DRAWS, Augmentation
from swin_jax.data.instaboost import InstaBoost
from swin_jax.data.instances import Instances, bitmap, runs_of
from swin_jax.setups.detection import check_source, train_example

HEIGHT, WIDTH = 120, 160
TRIANGLE = (np.array([(30, 20), (66, 26), (44, 58)], np.float32),)
TWO_PARTS = (
    np.array([(90, 30), (104, 30), (104, 52), (90, 52)], np.float32),
    np.array([(104, 62), (130, 70), (112, 90)], np.float32),
)
AT_THE_EDGE = (np.array([(0, 74), (25, 74), (25, 108), (0, 108)], np.float32),)
WITHOUT_PIXELS = (np.array([(70, 5.1), (70.2, 5.1), (70.2, 5.2)], np.float32),)
ALWAYS = InstaBoost(probability=1.0, color_probability=0.0)
STILL = InstaBoost(1.0, (1.0, 1.0), 0.0, 0.0, 0.0)


def picture() -> np.ndarray:
    noise = np.random.RandomState(0).randint(0, 256, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)


def objects(*outlines: tuple, runs: bool = False) -> Instances:
    outlines = outlines or (TRIANGLE, TWO_PARTS, AT_THE_EDGE)
    corners = [np.concatenate(outline) for outline in outlines]
    boxes = [np.concatenate([places.min(axis=0), places.max(axis=0)]) for places in corners]
    count = len(outlines)
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(count) % 3,
        areas=np.arange(1, count + 1, dtype=np.float32),
        crowd=np.zeros(count, bool),
        ids=100 + np.arange(count),
        outlines=tuple(runs_of(bitmap(outline, HEIGHT, WIDTH)) for outline in outlines) if runs else outlines,
    )


def masks_of(found: Instances) -> np.ndarray:
    return np.stack([bitmap(outline, HEIGHT, WIDTH) for outline in found.outlines or ()])


def box_of(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def boosted(
    options: InstaBoost, found: Instances, seed: int = 0, image: np.ndarray | None = None
) -> tuple[np.ndarray, Instances]:
    return options.boost(picture() if image is None else image, found, np.random.default_rng(seed))


@pytest.mark.parametrize("runs", [False, True], ids=["polygons", "run lengths"])
@pytest.mark.parametrize("seed", range(6))
def test_boxes_are_those_of_the_masks_and_the_rest_of_the_objects_stays(seed: int, runs: bool):
    before = objects(runs=runs)
    _, after = boosted(ALWAYS, before, seed)
    for name in ("labels", "ids", "areas", "crowd"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert (after.scale, after.shift) == (before.scale, before.shift)
    masks = masks_of(after)
    assert masks.shape == (3, HEIGHT, WIDTH)
    np.testing.assert_array_equal(after.boxes, np.array([box_of(mask) for mask in masks], np.float32))
    assert after.boxes.dtype == np.float32
    assert not np.array_equal(masks, masks_of(before))


@pytest.mark.parametrize("seed", range(20))
def test_objects_move_within_the_published_ranges(seed: int):
    before, after = (masks_of(found) for found in (objects(), boosted(ALWAYS, objects(), seed)[1]))
    for old, new in zip(before[:2], after[:2], strict=True):
        assert 0.95 * 0.8 < np.sqrt(new.sum() / old.sum()) < 1.05 * 1.2
        low, high = np.array(box_of(old)).reshape(2, 2)
        moved = np.mean(np.array(box_of(new)).reshape(2, 2), axis=0) - (low + high) / 2
        assert (np.abs(moved) <= (high - low) / 15 + 1.5).all()  # a turn and a pixel's rounding


@pytest.mark.parametrize("seed", range(20))
def test_an_object_at_the_edge_stays_there_and_does_not_shrink(seed: int):
    low, top, right, bottom = box_of(masks_of(boosted(ALWAYS, objects(), seed)[1])[2])
    assert low == 0
    assert bottom - top >= 34
    assert right <= 25 + 0.1 * 25 + 1


def test_what_stays_in_its_place_changes_nothing_but_outlines():
    image, found = boosted(STILL, objects())
    np.testing.assert_array_equal(image, picture())
    np.testing.assert_array_equal(masks_of(found), masks_of(objects()))


@pytest.mark.parametrize("seed", range(4))
def test_pixels_change_where_objects_were_or_are_and_nowhere_else(seed: int):
    image, found = boosted(ALWAYS, objects(), seed)
    seen = np.any(np.concatenate([masks_of(objects()), masks_of(found)]), axis=0)
    near = cv2.dilate(seen.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)  # rims are blended
    changed = (image != picture()).any(axis=-1)
    assert not changed[~near].any()
    assert changed[near].mean() > 0.5


def test_objects_show_their_own_pixels_and_leave_the_background_behind():
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    image[bitmap(TRIANGLE, HEIGHT, WIDTH)] = (200, 90, 10)
    smaller = dataclasses.replace(ALWAYS, scale=(0.8, 0.8), rotation=0.0)
    result, found = boosted(smaller, objects(TRIANGLE), 3, image)
    mask = masks_of(found)[0]
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    outside = ~cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert (result[inside] == (200, 90, 10)).all()
    assert (result[outside] == 40).all()
    assert 0.6 < mask.sum() / bitmap(TRIANGLE, HEIGHT, WIDTH).sum() < 0.68


def test_objects_whose_boxes_overlap_move_as_one():
    """A chain of three: the ends overlap by the middle alone. The fourth is on its own."""
    corners = np.array([(0, 0), (30, 0), (30, 20), (0, 20)], np.float32)
    chain = [(corners + np.array([x, y], np.float32),) for x, y in ((20, 20), (46, 36), (72, 52), (115, 80))]
    apart = 0
    for seed in range(5):
        boxes = boosted(ALWAYS, objects(*chain), seed)[1].boxes
        sides = boxes[:, 2:] - boxes[:, :2]
        np.testing.assert_allclose(sides[1:3], sides[[0, 0]], atol=1.5)
        scale = sides[0, 0] / 30
        np.testing.assert_allclose(np.diff(boxes[:3, 0]), 26 * scale, atol=2)
        np.testing.assert_allclose(np.diff(boxes[:3, 1]), 16 * scale, atol=2)
        apart += abs(sides[3, 0] - sides[0, 0]) > 2
    assert apart >= 3


def test_of_two_objects_the_later_covers_the_earlier_and_both_masks_stay_whole():
    corners = np.array([(0, 0), (30, 0), (30, 30), (0, 30)], np.float32)
    pair = [(corners + np.array([x, 40], np.float32),) for x in (40, 71)]
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for label, outline in enumerate(pair):
        image[bitmap(outline, HEIGHT, WIDTH), label] = 255
    larger = dataclasses.replace(ALWAYS, scale=(1.2, 1.2), translation=0.0, rotation=0.0)
    result, found = boosted(larger, objects(*pair), 0, image)
    first, second = masks_of(found)
    assert (first & second).any()
    assert first.sum() == second.sum() == 36 * 36
    inside = cv2.erode(second.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert (result[inside] == (0, 255, 0)).all()


def test_crowds_and_objects_without_pixels_stay():
    before = objects(TRIANGLE, TWO_PARTS, WITHOUT_PIXELS)
    before = dataclasses.replace(before, crowd=np.array([False, True, False]))
    image, after = boosted(ALWAYS, before)
    np.testing.assert_array_equal(after.boxes[1:], before.boxes[1:])
    assert before.outlines is not None
    assert after.outlines is not None
    assert all(new is old for new, old in zip(after.outlines[1:], before.outlines[1:], strict=True))
    crowd = bitmap(TWO_PARTS, HEIGHT, WIDTH)
    np.testing.assert_array_equal(image[crowd], picture()[crowd])
    assert not np.array_equal(after.boxes[0], before.boxes[0])


@pytest.mark.parametrize(("left", "top", "grouped"), [(80, 100, False), (40, 30, True)])
def test_an_object_that_would_keep_no_pixel_stays_in_its_place_and_so_does_its_group(
    left: int, top: int, grouped: bool
):
    """Of four pixels, a third as large: it would lie beside the middles of all pixels."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + 2, left : left + 2] = True
    before = dataclasses.replace(objects(TRIANGLE, TRIANGLE), outlines=(TRIANGLE, runs_of(mask)))
    smaller = dataclasses.replace(ALWAYS, scale=(0.3, 0.3), translation=0.0, rotation=0.0)
    image, after = boosted(smaller, before)
    triangle, dot = masks_of(after)
    np.testing.assert_array_equal(dot, mask)
    np.testing.assert_array_equal(image[mask], picture()[mask])
    assert np.array_equal(triangle, bitmap(TRIANGLE, HEIGHT, WIDTH)) == grouped


def test_an_object_that_is_the_whole_picture_leaves_no_hole():
    corners = np.array([(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)], np.float32)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    result, found = boosted(ALWAYS, objects((corners,)), 1, image)
    np.testing.assert_array_equal(result, image)
    assert masks_of(found).all()


def test_everything_follows_from_the_seed_and_arguments_are_not_written_to():
    image, before = picture(), objects()
    always = InstaBoost(probability=1.0)
    runs = [always.boost(image, before, np.random.default_rng(seed)) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(image, picture())
    np.testing.assert_array_equal(before.boxes, objects().boxes)
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(masks_of(runs[0][1]), masks_of(runs[1][1]))
    assert not np.array_equal(runs[0][0], runs[2][0])


def test_a_probability_is_how_often_and_pictures_without_objects_pass():
    image, before = picture(), objects()
    halves = InstaBoost(color_probability=0.0)
    assert 30 < sum(boosted(halves, before, seed, image)[0] is not image for seed in range(100)) < 70
    for options, found in ((InstaBoost(probability=0.0), before), (ALWAYS, before.take(np.zeros(3, bool)))):
        unchanged = boosted(options, found, 0, image)
        assert unchanged[0] is image
        assert unchanged[1] is found


def test_colours_are_jittered_in_the_whole_picture_and_masks_are_not():
    coloured = [
        boosted(dataclasses.replace(STILL, color_probability=1.0), objects(), seed) for seed in range(4)
    ]
    for image, found in coloured:
        assert (image != picture()).any(axis=-1).mean() > 0.5
        np.testing.assert_array_equal(masks_of(found), masks_of(objects()))
    assert len({image.tobytes() for image, _ in coloured}) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"probability": 2.0}, r"data.instaboost is 2.0; give a probability"),
        ({"color_probability": -0.1}, r"data.instaboost.color_probability is -0.1; give a probability"),
        ({"scale": (1.2, 0.8)}, r"data.instaboost.scale is \(1.2, 0.8\); give"),
        ({"scale": (0.0, 0.8)}, r"data.instaboost.scale is \(0.0, 0.8\); give"),
        ({"translation": -1.0}, r"data.instaboost.translation is -1.0; give a share"),
        ({"rotation": 181.0}, r"data.instaboost.rotation is 181.0; give degrees"),
    ],
)
def test_a_wrong_number_is_one_sentence(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        InstaBoost(**fields)


AUGMENTATION = Augmentation(
    short_sides=(96, 128), long_side=224, crop_short_sides=(100, 120), crop_range=(80, 120)
)
PLAIN = DetectionTrain(augmentation=AUGMENTATION, max_boxes=4, mask_size=28)


def record() -> dict:
    return {"image": picture(), "instances": objects(), "name": "one.png"}


def test_without_it_rows_and_draws_are_what_they_were():
    boosting = dataclasses.replace(PLAIN, instaboost=InstaBoost(probability=0.0))
    assert (PLAIN.draws, boosting.draws) == (DRAWS, DRAWS + 1)
    for uniforms in np.random.RandomState(0).rand(10, DRAWS + 1):
        rows = [PLAIN.row(record(), uniforms[:DRAWS]), boosting.row(record(), uniforms)]
        for field, values in rows[0].items():
            np.testing.assert_array_equal(rows[1][field], values)
    sizes = np.array([[HEIGHT, WIDTH], [WIDTH, HEIGHT]])
    uniforms = np.random.RandomState(0).rand(2, DRAWS + 1)
    np.testing.assert_array_equal(
        boosting.buckets(sizes, uniforms), PLAIN.buckets(sizes, uniforms[:, :DRAWS])
    )


def test_rows_show_what_was_pasted_and_follow_from_their_numbers():
    boosting = dataclasses.replace(PLAIN, instaboost=ALWAYS)
    for uniforms in np.random.RandomState(1).rand(10, DRAWS + 1):
        rows = [boosting.row(record(), uniforms) for _ in range(2)]
        for field, values in rows[0].items():
            np.testing.assert_array_equal(rows[1][field], values)
        plain = PLAIN.row(record(), uniforms[:DRAWS])
        assert rows[0]["image"].shape == plain["image"].shape
        np.testing.assert_array_equal(rows[0]["size"], plain["size"])
        assert not np.array_equal(rows[0]["image"], plain["image"])
        other = np.append(uniforms[:DRAWS], (uniforms[DRAWS] + 0.5) % 1)
        assert not np.array_equal(boosting.row(record(), other)["image"], rows[0]["image"])


def test_boxes_and_masks_of_rows_are_where_the_objects_are_shown():
    """Without a crop: the box is the one around the object's colour, and around its mask to the cell."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for channel, mask in enumerate(masks_of(objects())):
        image[mask, channel] = 255
    whole = dataclasses.replace(AUGMENTATION, crop_probability=0.0)
    plain = dataclasses.replace(PLAIN, augmentation=whole)
    boosting = dataclasses.replace(plain, instaboost=ALWAYS)
    for uniforms in np.random.RandomState(2).rand(20, DRAWS + 1):
        row = boosting.row(record() | {"image": image}, uniforms)
        for place, label in enumerate((0, 1, 2)):
            assert row["labels"][place] == label
            shown = box_of(row["image"][..., label] > 127)
            np.testing.assert_allclose(row["boxes"][place], shown, atol=1.6)
            low_x, low_y, high_x, high_y = box_of(row["masks"][place])
            assert max(low_x, low_y) <= 1
            assert min(high_x, high_y) >= 27
        assert not np.allclose(row["boxes"], plain.row(record(), uniforms[:DRAWS])["boxes"], atol=0.5)


def test_data_without_masks_are_refused_before_a_run():
    config = base_config()
    config.task, config.model.name, config.model.with_masks = "detection", "mask_rcnn_swin_tiny", False
    bare = SimpleNamespace(identity="boxes", has_masks=False)
    check_source(config, bare)
    assert train_example(config).instaboost is None
    config.data.instaboost = 0.5
    with pytest.raises(
        ValueError, match=r"boxes has boxes and no masks, .*; train without it: --config.data.instab"
    ):
        check_source(config, bare)
    assert train_example(config).instaboost == InstaBoost()
    with pytest.raises(ValueError, match="these data have boxes and no masks"):
        boosted(ALWAYS, dataclasses.replace(objects(), outlines=None))
