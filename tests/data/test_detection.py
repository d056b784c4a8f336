"""Training and evaluation rows of detectors, and batches whose rows have one canvas."""

import dataclasses
import itertools
import pickle
from typing import Any

import cv2
import numpy as np
import pytest

from swin_jax.data import dense_geometry, plan
from swin_jax.data.buckets import BucketPlan
from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.detection import DetectionEval, DetectionTrain
from swin_jax.data.detection_geometry import DRAWS, FLIP, Augmentation, canvas_of, canvases
from swin_jax.data.instances import Instances, runs_of
from swin_jax.data.labels import LabelCoding, LabelMap, default_palette
from swin_jax.data.pipeline import eval_batches, train_batches
from swin_jax.data.sources import shapes
from swin_jax.data.sources.instances import SceneInstances, open_instances
from swin_jax.data.sources.outlines import CLASSES

PUBLISHED = Augmentation()
SMALL = Augmentation(
    short_sides=(24, 32), long_side=56, crop_short_sides=(28, 40), crop_range=(20, 34), crop_probability=0.5
)


def draws(count: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).rand(count, DRAWS)


def test_sizes_are_those_of_the_published_rule():
    """scale = min(long / longer, short / shorter), halves up; the crop has the published sides."""
    sizes = np.random.RandomState(1).randint(40, 1500, (2000, 2))
    uniforms = draws(2000)
    drawn = PUBLISHED.draw(sizes, uniforms)
    cut = (drawn.crop[:, 2:] != drawn.first).any(axis=1)
    assert 0.4 < np.mean(uniforms[:, 1] < 0.5) < 0.6
    for place in range(0, 2000, 7):
        height, width = sizes[place].tolist()
        known = {dense_geometry.fitted_size(height, width, (1333, short)) for short in range(480, 801, 32)}
        if uniforms[place, 1] >= 0.5:
            assert tuple(drawn.last[place]) in known
            assert tuple(drawn.first[place]) == tuple(drawn.last[place])
            assert not cut[place]
            continue
        before = {dense_geometry.fitted_size(height, width, (1333, short)) for short in (400, 500, 600)}
        assert tuple(drawn.first[place]) in before
        top, left, rows, columns = drawn.crop[place].tolist()
        for side, start, whole in (
            (rows, top, drawn.first[place, 0]),
            (columns, left, drawn.first[place, 1]),
        ):
            assert min(whole, 384) <= side <= min(whole, 600)
            assert 0 <= start <= whole - side
        again = {dense_geometry.fitted_size(rows, columns, (1333, short)) for short in range(480, 801, 32)}
        assert tuple(drawn.last[place]) in again
    assert (drawn.last.min(axis=1) <= 800).all()
    assert (drawn.last.max(axis=1) <= 1333).all()
    assert 0.45 < drawn.mirrored.mean() < 0.55


def test_every_published_picture_finds_a_canvas_of_its_own_orientation():
    assert canvases(800, 1333) == ((800, 1344), (1344, 800))
    assert canvases(128, 128) == ((128, 128),)
    assert canvas_of(np.array([[800, 1333], [1333, 800], [480, 480]]), canvases(800, 1333)).tolist() == [
        0,
        1,
        0,
    ]
    with pytest.raises(ValueError, match="900 x 900 has room on none of the canvases"):
        canvas_of(np.array([[900, 900]]), canvases(800, 1333))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"short_sides": ()}, r"data.short_sides is \(\); give pixels"),
        ({"long_side": 700}, "data.scale allows a long side of 700, less than the short side 800"),
        ({"crop_range": (9, 3)}, "data.crop_range is"),
        ({"crop_probability": 2.0}, r"data.crop_probability is 2.0; give a probability"),
        ({"flip": -1.0}, r"augment.flip is -1.0; give a probability"),
    ],
)
def test_a_wrong_number_is_one_sentence(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Augmentation(**fields)


class Rectangles:
    """Pictures of coloured rectangles on black, landscape and portrait; every object is where its colour is."""

    class_names = ("red", "green", "blue")
    identity = "rectangles"
    fingerprint = "rectangles"
    has_masks = True

    def __init__(self, count: int = 30, unreadable: tuple[int, ...] = ()):
        self.unreadable = unreadable
        rng = np.random.RandomState(2)
        self.sizes = np.array([(40, 60), (60, 40), (44, 44)])[rng.randint(0, 3, count)].astype(np.int32)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self.unreadable:
            raise UnreadablePicture(f"{index}.png", "it is damaged")
        height, width = self.sizes[index].tolist()
        rng = np.random.RandomState(index)
        image, boxes, masks = np.zeros((height, width, 3), np.uint8), [], []
        for label in range(index % 4 if index % 4 < 3 else 0):
            left, top = 2 + 18 * label, int(rng.randint(1, 12))
            right, bottom = left + 14, top + int(rng.randint(12, 24))
            image[top:bottom, left:right, label] = 255
            mask = np.zeros((height, width), bool)
            mask[top:bottom, left:right] = True
            boxes.append((left, top, min(right, width), bottom))
            masks.append(runs_of(mask))
        count = len(boxes)
        found = Instances(
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.arange(count),
            areas=np.ones(count, np.float32),
            crowd=np.zeros(count, bool),
            ids=np.arange(count),
            outlines=tuple(masks),
        )
        return {"image": image, "instances": found, "image_id": index, "name": f"{index}.png"}


TRAIN = DetectionTrain(augmentation=SMALL, max_boxes=3, mask_size=16)


@pytest.mark.parametrize("index", range(12))
def test_boxes_and_masks_are_where_the_objects_are(index: int):
    """Whatever is drawn: the box re-derived from the object's colour, and the colour from box and mask."""
    record = Rectangles()[index]
    for uniforms in draws(8, seed=index):
        row = TRAIN.row(record, uniforms)
        height, width = row["size"].tolist()
        assert not row["image"][height:].any()
        assert not row["image"][:, width:].any()
        shown = np.zeros(3)
        for place in np.flatnonzero(row["box_valid"]):
            channel = row["image"][:height, :width, row["labels"][place]] > 127
            x1, y1, x2, y2 = row["boxes"][place]
            rows, columns = np.flatnonzero(channel.any(axis=1)), np.flatnonzero(channel.any(axis=0))
            if not len(rows):
                assert min(x2 - x1, y2 - y1) < 1.5  # less than a pixel is left of it
                continue
            shown[row["labels"][place]] = channel.sum()
            np.testing.assert_allclose([x1, x2], [columns[0], columns[-1] + 1], atol=1.6)
            np.testing.assert_allclose([y1, y2], [rows[0], rows[-1] + 1], atol=1.6)
            assert row["masks"][place].mean() > 0.9  # rectangles fill their boxes
        present = [int((row["image"][..., channel] > 127).sum()) for channel in range(3)]
        np.testing.assert_array_equal(shown, present)  # nothing is shown that is not annotated


def test_a_mirrored_row_is_the_row_mirrored():
    record = Rectangles()[2]
    uniforms = draws(1)[0]
    rows = []
    for flip in (0.1, 0.9):
        uniforms[FLIP] = flip
        rows.append(TRAIN.row(record, uniforms))
    mirrored, plain = rows
    height, width = plain["size"].tolist()
    np.testing.assert_array_equal(
        mirrored["image"][:height, :width], plain["image"][:height, :width][:, ::-1]
    )
    valid = plain["box_valid"]
    np.testing.assert_allclose(mirrored["boxes"][valid][:, 0], width - plain["boxes"][valid][:, 2], atol=1e-4)
    np.testing.assert_array_equal(mirrored["masks"], plain["masks"][..., ::-1])


def test_crowds_are_no_objects_and_pictures_may_have_none():
    record = Rectangles()[2]
    record["instances"] = dataclasses.replace(record["instances"], crowd=np.array([True, False]))
    assert TRAIN.row(record, draws(1, 5)[0])["box_valid"].sum() <= 1
    empty = TRAIN.row(Rectangles()[0], draws(1)[0])
    assert not empty["box_valid"].any()
    assert not empty["masks"].any()


def test_more_objects_than_rows_is_an_error_that_names_the_picture():
    crowded = dataclasses.replace(
        TRAIN, max_boxes=1, augmentation=dataclasses.replace(SMALL, crop_probability=0.0)
    )
    with pytest.raises(ValueError, match=r"2.png has 2 objects and data.max_boxes is 1"):
        crowded.row(Rectangles()[2], draws(1)[0])


def test_boxes_alone_make_rows_without_masks():
    bare = dataclasses.replace(TRAIN, mask_size=0)
    assert "masks" not in bare.row(Rectangles()[1], draws(1)[0])


def test_evaluation_sees_every_picture_whole_at_every_scale():
    example = DetectionEval(scale=(60, 40), ratios=(1.0, 0.5))
    seen = []
    for batch in eval_batches(Rectangles(), example, batch_size=4):
        for row in np.flatnonzero(batch["valid"]):
            seen.append(int(batch["example_index"][row]))
            height, width = batch["original_size"][row].tolist()
            assert tuple(batch["size"][row]) == dense_geometry.fitted_size(height, width, (60, 40))
            assert tuple(batch["size_1"][row]) == dense_geometry.fitted_size(height, width, (30, 20))
        assert batch["image"].shape[1:3] in canvases(40, 60)
        assert batch["image_1"].shape[1:3] in canvases(20, 30)
    assert sorted(seen) == list(range(30))


def batches(steps: int, **options: Any) -> list[dict[str, np.ndarray]]:
    stream = train_batches(Rectangles(), TRAIN, batch_size=4, seed=7, **options)
    return [next(stream) for _ in range(steps)]


def same(ours: list[dict[str, np.ndarray]], theirs: list[dict[str, np.ndarray]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)


def test_batches_have_one_canvas_and_both_occur():
    shapes = [batch["image"].shape[1:3] for batch in batches(20)]
    assert set(shapes) == set(TRAIN.canvases)


def test_a_batch_depends_on_nothing_but_seed_and_step():
    whole = batches(12)
    same(batches(5, start_step=7), whole[7:])
    same(batches(12, threads=1), whole)
    halves = [batches(12, host=host, hosts=2) for host in (0, 1)]
    joined = [
        {name: np.concatenate([half[step][name] for half in halves]) for name in whole[0]}
        for step in range(12)
    ]
    same(joined, whole)
    assert any((a["image"].shape != b["image"].shape) for a, b in itertools.pairwise(whole))


def test_worker_processes_deal_alike():
    same(batches(3, workers=2, threads=1), batches(3))


def test_no_position_is_dropped_or_dealt_twice():
    """Of 400 batches: every position up to the last complete ones, once; those that wait are few."""
    dealt = BucketPlan(TRAIN, Rectangles().sizes, 4, 3)
    positions = np.concatenate([dealt.batch(step).positions for step in range(400)])
    assert len(np.unique(positions)) == 1600
    missing = np.setdiff1d(np.arange(1600), positions)
    assert len(missing) <= 4 * (len(TRAIN.canvases) + 1)
    again = pickle.loads(pickle.dumps(dealt))
    for step in (399, 0, 57):
        np.testing.assert_array_equal(again.batch(step).positions, dealt.batch(step).positions)
        example = dealt.batch(step)
        buckets = TRAIN.buckets(Rectangles().sizes[example.indices], example.uniforms)
        assert len(set(buckets.tolist())) == 1


def test_an_unreadable_picture_is_replaced_by_one_of_its_canvas():
    source = Rectangles(unreadable=(4, 5, 9))
    stream = train_batches(source, TRAIN, batch_size=4, seed=7, max_unreadable=3)
    found = [next(stream) for _ in range(20)]
    assert sum(batch["replaced"].sum() for batch in found) >= 3
    assert not {4, 5, 9} & {int(index) for batch in found for index in batch["example_index"]}


def test_repeats_are_refused_where_canvases_are_drawn():
    with pytest.raises(ValueError, match=r"data.repeats is 2; where canvases are drawn"):
        train_batches(Rectangles(), TRAIN, batch_size=4, seed=0, repeats=2)


def test_uniforms_are_uniform_and_independent():
    numbers = plan.uniforms(3, np.arange(20_000), DRAWS)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in numbers.T])
    assert np.abs(counts - 1000).max() < 160  # five standard deviations
    correlation = np.corrcoef(np.concatenate([numbers[:-1], numbers[1:]], axis=1).T) - np.eye(2 * DRAWS)
    assert np.abs(correlation).max() < 0.04
    np.testing.assert_array_equal(plan.uniforms(3, np.array([77]), DRAWS)[0], numbers[77])
    assert not np.array_equal(plan.uniforms(4, np.array([77]), DRAWS)[0], numbers[77])


MAPPED = dataclasses.replace(TRAIN, semantic_stride=8)
CODING = LabelCoding(("nothing", *Rectangles.class_names), default_palette(4), (0, 1, 2, 3))


class MappedRectangles(Rectangles):
    """Rectangles with label maps: 1 + label where one is, 0 elsewhere, and the first row is ignored."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = super().__getitem__(index)
        shown = record["image"] > 0
        labels = np.where(shown.any(axis=-1), 1 + shown.argmax(axis=-1), 0).astype(np.uint8)
        labels[0] = 255
        return record | {"semantic": LabelMap(labels, CODING, f"{index}_map.png")}


def cells_of(row: dict[str, np.ndarray], stride: int) -> np.ndarray:
    """(y, x) of the upper left pixels of a row's cells, [2, rows, columns]."""
    return stride * np.indices(row["semantic"].shape)


@pytest.mark.parametrize("index", range(12))
def test_a_label_map_goes_through_the_geometry_of_its_picture(index: int):
    record = MappedRectangles()[index]
    whole = dataclasses.replace(MAPPED, semantic_stride=1)
    mirrored = 0
    for uniforms in draws(8, seed=index):
        full, row = whole.row(record, uniforms), MAPPED.row(record, uniforms)
        labels, canvas = full["semantic"], row["image"].shape[:2]
        assert labels.shape == canvas
        assert row["semantic"].shape == (canvas[0] // 8, canvas[1] // 8)
        assert row["semantic"].dtype == np.uint8
        # As OpenMMLab reduces it.
        reduced = cv2.resize(labels, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(row["semantic"], reduced)
        height, width = row["size"].tolist()
        assert (labels[height:] == 255).all()
        assert (labels[:, width:] == 255).all()
        # Away from edges, which the picture's resize blurs, colours and classes are the same.
        for channel in range(3):
            colour = full["image"][:height, :width, channel]
            inner = cv2.erode((colour == 255).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
            assert (labels[:height, :width][inner] == 1 + channel).all()
        nothing = cv2.dilate(full["image"][:height, :width].max(axis=-1), np.ones((7, 7), np.uint8)) == 0
        assert np.isin(labels[:height, :width][nothing], (0, 255)).all()
        mirrored += uniforms[FLIP] < 0.5
    assert 0 < mirrored < 8


@pytest.mark.parametrize("index", range(12))
def test_boxes_hold_the_cells_of_their_classes(index: int):
    record = MappedRectangles()[index]
    for uniforms in draws(20, seed=index):
        row = MAPPED.row(record, uniforms)
        y, x = cells_of(row, 8)
        for place in np.flatnonzero(row["box_valid"]):
            x1, y1, x2, y2 = row["boxes"][place]
            own = row["semantic"] == 1 + row["labels"][place]
            # A nearest resize is off by less than a pixel, and the second one enlarges what the first was off by.
            near, inner = ((x >= x1 - by) & (x < x2 + by) & (y >= y1 - by) & (y < y2 + by) for by in (2, -2))
            assert not own[~near].any()
            assert own[inner & (row["semantic"] != 255)].all()
        annotated = 1 + row["labels"][row["box_valid"]]
        assert np.isin(row["semantic"], [0, 255, *annotated]).all()


def test_a_mirrored_map_is_the_map_mirrored():
    record, uniforms = MappedRectangles()[2], draws(1)[0]
    whole = dataclasses.replace(MAPPED, semantic_stride=1)
    rows = []
    for flip in (0.1, 0.9):
        uniforms[FLIP] = flip
        rows.append(whole.row(record, uniforms)["semantic"])
    width = whole.row(record, uniforms)["size"][1]
    np.testing.assert_array_equal(rows[0][:, :width], rows[1][:, :width][:, ::-1])
    assert not np.array_equal(*rows)


def test_a_map_changes_nothing_else_of_a_row():
    record = MappedRectangles()[2]
    for uniforms in draws(5):
        plain, mapped = TRAIN.row(record, uniforms), MAPPED.row(record, uniforms)
        assert mapped.keys() - plain.keys() == {"semantic"}
        same([plain], [{name: mapped[name] for name in plain}])


def test_batches_hold_label_maps():
    stream = train_batches(MappedRectangles(), MAPPED, batch_size=4, seed=7)
    for batch in (next(stream) for _ in range(8)):
        height, width = batch["image"].shape[1:3]
        assert batch["semantic"].shape == (4, height // 8, width // 8)


def test_a_picture_without_a_fitting_map_is_one_sentence():
    with pytest.raises(ValueError, match=r"^2.png has no label map; training with a semantic branch needs"):
        MAPPED.row(Rectangles()[2], draws(1)[0])
    odd = LabelMap(np.zeros((9, 8), np.uint8), CODING, "map.png")
    record = Rectangles()[2] | {"semantic": odd}
    size = " x ".join(str(side) for side in Rectangles().sizes[2])
    with pytest.raises(
        UnreadablePicture, match=rf"^map.png .* is 9 x 8 pixels and its picture 2.png is {size}$"
    ):
        MAPPED.row(record, draws(1)[0])
    for stride in (-8, 12, 64):
        with pytest.raises(ValueError, match=f"semantic_stride is {stride}; give a divisor of 32, such as 8"):
            DetectionTrain(semantic_stride=stride)


@pytest.fixture
def scenes(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> SceneInstances:
    monkeypatch.setattr(shapes, "SPLITS", {"train": 6, "val": 1})
    found = open_instances("shapes/hard", "train", root=str(tmp_path), semantic=True)
    assert isinstance(found, SceneInstances)
    plain = open_instances("shapes/hard", "train", root=str(tmp_path))
    assert plain.semantic_classes == 0
    assert "semantic" not in plain[0]
    assert plain.fingerprint == found.fingerprint
    return found


def test_scenes_have_label_maps_in_which_0_is_the_background(scenes: SceneInstances):
    assert scenes.semantic_classes == len(CLASSES) + 1
    example = DetectionTrain(
        Augmentation((96, 128), 160, 0.5, (100, 120), (60, 110)), max_boxes=20, mask_size=0, semantic_stride=8
    )
    for index in range(len(scenes)):
        found = scenes[index]["instances"]
        labels = scenes[index]["semantic"].classes((128, 128), "scene")
        for label in range(len(CLASSES)):
            assert (labels == 1 + label).sum() == found.areas[found.labels == label].sum()
        for uniforms in draws(10, seed=index):
            row = example.row(scenes[index], uniforms)
            y, x = cells_of(row, 8)
            for label in np.unique(row["semantic"]):
                if label in (0, 255):
                    continue
                boxes = row["boxes"][row["box_valid"] & (row["labels"] == label - 1)]
                held = [
                    (x >= x1 - 2) & (x < x2 + 2) & (y >= y1 - 2) & (y < y2 + 2) for x1, y1, x2, y2 in boxes
                ]
                assert np.any(held, axis=0)[row["semantic"] == label].all()
