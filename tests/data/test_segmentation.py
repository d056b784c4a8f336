"""Rows for segmentation: published geometry, labels that never mix, every picture exactly once."""

import numpy as np
import pytest

from swin_jax.data import dense_geometry as geometry
from swin_jax.data.labels import LabelCoding, LabelMap, default_palette
from swin_jax.data.pipeline import eval_batches, find_buckets, train_batches
from swin_jax.data.segmentation import SegmentationEval, SegmentationTrain

CODING = LabelCoding(("a", "b", "c"), default_palette(3), (0, 1, 2))
SIZES = ((20, 31), (31, 20), (25, 25), (20, 31), (17, 40), (20, 31), (25, 25))


class Scenes:
    """Pictures of several sizes; a picture's red channel repeats its label map, in which 255 occurs."""

    class_names = CODING.class_names
    identity = fingerprint = "scenes"

    def __init__(self, sizes=SIZES):
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> dict:
        height, width = self.sizes[index]
        rows, columns = np.mgrid[:height, :width]
        labels = ((rows // 7 + columns // 9 + index) % 3).astype(np.uint8)
        labels[rows + columns < 6] = 255
        image = np.stack([labels, np.full_like(labels, index), labels], axis=-1)
        return {
            "image": image,
            "semantic": LabelMap(labels, CODING, f"{index}.png"),
            "label": -1,
            "name": f"{index}.jpg",
        }


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((300, 400), (2048, 512), (512, 683)),
        ((364, 500), (2048, 512), (512, 703)),
        ((512, 2300), (2048, 512), (456, 2048)),
        ((400, 300), (1024, 256), (341, 256)),
    ],
)
def test_pictures_fit_into_the_scale(size, scale, expected) -> None:
    assert geometry.fitted_size(*size, scale) == expected


def test_labels_are_resized_to_values_that_were_there() -> None:
    labels = np.random.default_rng(0).choice([0, 7, 255], (20, 30)).astype(np.uint8)
    for size in ((40, 60), (13, 17), (20, 31)):
        found = geometry.resize_labels(labels, size)
        rows, columns = (
            np.floor(np.arange(new) * old / new).astype(int)
            for old, new in zip(labels.shape, size, strict=True)
        )
        np.testing.assert_array_equal(found, labels[np.ix_(rows, columns)])


def test_crops_without_balance_are_uniform_over_all_places() -> None:
    generator = np.random.default_rng(0)
    labels = np.zeros((12, 14), np.uint8)
    boxes = [geometry.balanced_crop_box(labels, (8, 10), 1.0, generator) for _ in range(4000)]
    counts = np.zeros((5, 5))
    for top, left, height, width in boxes:
        assert (height, width) == (8, 10)
        counts[top, left] += 1
    expected = len(boxes) / counts.size
    assert ((counts - expected) ** 2 / expected).sum() < 50  # chi-square, 24 degrees of freedom


def test_balanced_crops_follow_the_retry_rule() -> None:
    """One column of four can hold a balanced crop: eleven draws, the last of them unchecked."""
    labels = np.zeros((4, 40), np.uint8)
    labels[:, 30:] = 1
    balanced_places = [left for left in range(37) if geometry.is_balanced(labels[:, left : left + 4], 0.75)]
    assert balanced_places == [28]
    share = len(balanced_places) / 37
    generator = np.random.default_rng(1)
    found = [geometry.balanced_crop_box(labels, (4, 4), 0.75, generator)[1] for _ in range(6000)]
    # Balanced at one of the ten checked draws, or at the eleventh by chance.
    expected = 1 - (1 - share) ** 11
    assert np.mean(np.asarray(found) == 28) == pytest.approx(
        expected, abs=4 * np.sqrt(expected * (1 - expected) / 6000)
    )


@pytest.mark.parametrize(
    ("labels", "balanced"),
    [
        ([0, 0, 0, 1], False),  # exactly three quarters is too much
        ([0, 0, 1, 1], True),
        ([0, 0, 0, 0], False),
        ([0, 0, 1, 255, 255, 255, 255, 255], True),  # ignored pixels do not count
        ([255, 255, 255, 255], False),
        ([0, 0, 0, 255], False),  # one class alone
    ],
)
def test_balance(labels, balanced) -> None:
    assert geometry.is_balanced(np.asarray([labels], np.uint8), 0.75) == balanced


def test_training_rows_keep_picture_and_labels_together() -> None:
    example = SegmentationTrain(crop=(24, 24), scale=None, ratio_range=(1.0, 1.0), flip=0.5)
    flipped = 0
    for draw in range(40):
        row = example(Scenes()[draw % 7], np.random.default_rng(draw))
        height, width = row["size"]
        assert {name: (value.shape, value.dtype.name) for name, value in row.items()} == {
            "image": ((24, 24, 3), "uint8"),
            "semantic": ((24, 24), "uint8"),
            "size": ((2,), "int32"),
        }
        np.testing.assert_array_equal(row["image"][:height, :width, 0], row["semantic"][:height, :width])
        assert (row["semantic"][height:] == 255).all()
        assert (row["semantic"][:, width:] == 255).all()
        assert not row["image"][height:].any()
        whole = Scenes()[draw % 7]["semantic"].data
        corner = row["semantic"][:height, :width]
        flipped += not any(
            np.array_equal(corner, whole[top : top + height, left : left + width])
            for top in range(whole.shape[0] - height + 1)
            for left in range(whole.shape[1] - width + 1)
        )
    assert 10 < flipped < 30


def test_training_batches_do_not_depend_on_hosts() -> None:
    example = SegmentationTrain(crop=(16, 16), scale=(64, 16))
    whole = next(train_batches(Scenes(), example, batch_size=4, seed=3, start_step=2))
    halves = [
        next(train_batches(Scenes(), example, batch_size=4, seed=3, start_step=2, host=h, hosts=2))
        for h in (0, 1)
    ]
    for name, values in whole.items():
        np.testing.assert_array_equal(values, np.concatenate([half[name] for half in halves]))


@pytest.mark.parametrize(("hosts", "batch_size"), [(1, 2), (1, 3), (2, 2), (2, 4)])
def test_every_picture_is_evaluated_once_at_its_own_size(hosts: int, batch_size: int) -> None:
    example = SegmentationEval(scale=(80, 40), canvas=16)
    of_host = [
        list(eval_batches(Scenes(), example, batch_size=batch_size, host=host, hosts=hosts))
        for host in range(hosts)
    ]
    assert len({len(batches) for batches in of_host}) == 1
    seen = []
    for batches in zip(*of_host, strict=True):
        assert len({batch["image"].shape[1:] for batch in batches}) == 1  # the same bucket on every host
        for batch in batches:
            for row in np.flatnonzero(batch["valid"]):
                index = int(batch["example_index"][row])
                size = Scenes().sizes[index]
                assert tuple(batch["size"][row]) == size
                assert batch["image"].shape[1:3] == geometry.fitted_size(*size, (80, 40))
                labels = batch["semantic"][row]
                np.testing.assert_array_equal(labels[: size[0], : size[1]], Scenes()[index]["semantic"].data)
                assert (labels[size[0] :] == 255).all()
                assert (labels[:, size[1] :] == 255).all()
                seen.append(index)
            for row in np.flatnonzero(~batch["valid"]):
                assert not batch["image"][row].any()
    assert sorted(seen) == list(range(7))


def test_buckets_are_the_shapes_of_rows() -> None:
    for example in (
        SegmentationEval(scale=(80, 40), ratios=(0.5, 1.0, 1.75), canvas=16),
        SegmentationEval(scale=None, multiple=8, canvas=16),
    ):
        buckets = find_buckets(Scenes(), example)
        shapes = [
            tuple(
                sorted(
                    (name, value.shape)
                    for name, value in example(Scenes()[index], np.random.default_rng()).items()
                )
            )
            for index in range(7)
        ]
        for first in range(7):
            for second in range(7):
                assert (buckets[first] == buckets[second]) == (shapes[first] == shapes[second])


def test_multiples_bound_the_number_of_shapes() -> None:
    sizes = [(512, width) for width in range(520, 1500, 7)]
    exact, rounded = (
        {example._sizes(*size)[0] for size in sizes}
        for example in (SegmentationEval(), SegmentationEval(multiple=32))
    )
    assert len(exact) == len(sizes)
    assert len(rounded) == 31  # 544 to 1504 in steps of 32


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"crop": (0, 4)}, "crop is"),
        ({"crop": (4, 4), "scale": (0, 4)}, "scale is"),
        ({"crop": (4, 4), "ratio_range": (2.0, 1.0)}, "ratio_range is"),
        ({"crop": (4, 4), "largest_share": 0.0}, "largest_share is"),
        ({"crop": (4, 4), "flip": 1.5}, "flip is"),
    ],
)
def test_fields_that_make_no_sense(fields, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        SegmentationTrain(**fields)
