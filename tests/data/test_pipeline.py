"""Batches: the same rows with the same draws for any number of hosts and threads, from any step on."""

import itertools
import logging

import numpy as np
import pytest

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.examples import ClassificationEval, ClassificationTrain
from swin_jax.data.pipeline import eval_batches, plan, row_fields, train_batches
from swin_jax.data.sources import open_source

TRAIN = ClassificationTrain(size=(16, 16))
EVAL = ClassificationEval(size=(16, 16), resize=18)


class Numbers:
    """Pictures whose every pixel is their index; those of `bad` cannot be read. Remembers what was read."""

    class_names = ("even", "odd")
    identity = "numbers"
    fingerprint = "0"

    def __init__(self, size: int, bad: tuple[int, ...] = ()):
        self.size, self.bad, self.reads = size, bad, []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        self.reads.append(index)
        if index in self.bad:
            raise UnreadablePicture(f"number {index}", "it is bad")
        return {"image": np.full((12, 12, 3), index, np.uint8), "label": index % 2, "name": f"number {index}"}


def draw(record: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """An example function that shows the draws."""
    return {"label": np.asarray(record["label"], np.int32), "draw": rng.random(2)}


def first(count: int, *arguments, **options) -> list[dict[str, np.ndarray]]:
    batches = train_batches(*arguments, **options)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def assert_equal(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_batches_follow_the_plan():
    for step, batch in enumerate(first(5, Numbers(50), TRAIN, batch_size=24, seed=3)):
        expected = plan(3, step, 24, 50)
        np.testing.assert_array_equal(batch["example_index"], expected)
        np.testing.assert_array_equal(batch["image"][:, 5, 5, 0], expected)
        np.testing.assert_array_equal(batch["label"], expected % 2)
        assert batch["valid"].all()
        assert not batch["replaced"].any()
        kinds = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
        assert kinds == {
            "image": ((24, 16, 16, 3), "uint8"),
            "label": ((24,), "int32"),
            "example_index": ((24,), "uint32"),
            "valid": ((24,), "bool"),
            "replaced": ((24,), "bool"),
        }


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("hosts", [1, 2, 8])
def test_rows_and_draws_do_not_depend_on_hosts_and_threads(hosts, threads):
    reference = first(4, Numbers(100), draw, batch_size=80, seed=1)
    parts = [
        first(4, Numbers(100), draw, batch_size=80, seed=1, host=host, hosts=hosts, threads=threads)
        for host in range(hosts)
    ]
    joined = [
        {name: np.concatenate([part[step][name] for part in parts]) for name in reference[step]}
        for step in range(4)
    ]
    assert_equal(joined, reference)


def test_starts_at_any_step_without_reading_what_came_before():
    reference = first(12, Numbers(100), draw, batch_size=10, seed=1)
    source = Numbers(100)
    assert_equal(first(2, source, draw, batch_size=10, seed=1, start_step=10, threads=1), reference[10:])
    # Two batches and what is read ahead, not the ten before.
    assert len(source.reads) <= 10 * 6
    assert set(source.reads[:10]) == set(reference[10]["example_index"].tolist())
    late = first(1, Numbers(100), draw, batch_size=10, seed=1, start_step=10**9)
    np.testing.assert_array_equal(late[0]["example_index"], plan(1, 10**9, 10, 100))


def test_draws_are_new_for_every_row_epoch_and_seed():
    draws = np.concatenate([batch["draw"] for batch in first(6, Numbers(10), draw, batch_size=10, seed=1)])
    assert len(np.unique(draws)) == draws.size
    other = np.concatenate([batch["draw"] for batch in first(6, Numbers(10), draw, batch_size=10, seed=2)])
    assert not np.any(draws == other)


@pytest.mark.parametrize(
    ("size", "batch_size", "hosts"), [(100, 32, 1), (100, 32, 4), (64, 32, 2), (3, 32, 4), (33, 32, 2)]
)
def test_evaluation_counts_every_example_once_on_equally_many_batches(size, batch_size, hosts):
    parts = [
        list(eval_batches(Numbers(size), EVAL, batch_size=batch_size, host=host, hosts=hosts))
        for host in range(hosts)
    ]
    assert {len(part) for part in parts} == {-(-size // batch_size)}
    seen = []
    for step in range(len(parts[0])):
        for part in parts:
            batch = part[step]
            assert batch["image"].shape == (batch_size // hosts, 16, 16, 3)
            assert batch["image"].dtype == np.uint8
            real = batch["valid"]
            seen += batch["example_index"][real].tolist()
            np.testing.assert_array_equal(batch["image"][real][:, 0, 0, 0], batch["example_index"][real])
            assert not batch["image"][~real].any()
            assert not batch["label"][~real].any()
    assert seen == list(range(size))


def test_first_unreadable_picture_stops_with_its_name():
    batches = train_batches(Numbers(50, bad=(13,)), TRAIN, batch_size=10, seed=0)
    with pytest.raises(UnreadablePicture, match=r"^number 13 cannot be read as a picture: it is bad$"):
        list(itertools.islice(batches, 5))


def test_evaluation_stops_at_an_unreadable_picture():
    with pytest.raises(UnreadablePicture, match=r"^number 13 cannot be read"):
        list(eval_batches(Numbers(50, bad=(13,)), EVAL, batch_size=10))


@pytest.mark.parametrize(("hosts", "threads"), [(1, 1), (2, 3)])
def test_unreadable_pictures_are_replaced_alike_everywhere(hosts, threads, caplog):
    source, options = Numbers(50, bad=(13, 31)), {"batch_size": 10, "seed": 0, "max_unreadable": 2}
    with caplog.at_level(logging.WARNING):
        parts = [
            first(10, source, draw, host=host, hosts=hosts, threads=threads, **options)
            for host in range(hosts)
        ]
    joined = [
        {name: np.concatenate([part[step][name] for part in parts]) for name in parts[0][0]}
        for step in range(10)
    ]
    clean = first(10, Numbers(50), draw, batch_size=10, seed=0)
    places = []
    for step, (batch, whole) in enumerate(zip(joined, clean, strict=True)):
        bad = np.isin(whole["example_index"], (13, 31))
        np.testing.assert_array_equal(batch["replaced"], bad)
        np.testing.assert_array_equal(batch["example_index"][~bad], whole["example_index"][~bad])
        np.testing.assert_array_equal(batch["draw"], whole["draw"])
        np.testing.assert_array_equal(batch["label"], batch["example_index"] % 2)
        assert not np.isin(batch["example_index"], (13, 31)).any()
        places += [(step, index) for index in batch["example_index"][bad].tolist()]
    # Two epochs of two bad pictures; each time another stands in. The same for every arrangement.
    assert len(places) == 4
    assert places == [(0, 48), (2, 18), (5, 4), (7, 12)]
    assert "number 13 cannot be read as a picture: it is bad; replaced" in caplog.text


def test_more_unreadable_pictures_than_allowed_stop_the_run():
    batches = train_batches(Numbers(50, bad=(1, 2, 3)), draw, batch_size=10, seed=0, max_unreadable=2)
    with pytest.raises(UnreadablePicture, match=r"unreadable picture 3, allowed are 2$"):
        list(itertools.islice(batches, 5))


def test_a_set_without_any_readable_picture_stops():
    batches = train_batches(Numbers(4, bad=(0, 1, 2, 3)), draw, batch_size=2, seed=0, max_unreadable=100)
    with pytest.raises(UnreadablePicture, match=r"number \d cannot be read .*; no replacement was readable"):
        next(batches)


def test_row_fields_tell_what_a_batch_will_hold(shared_pictures):
    source = open_source("folder", "val", root=str(shared_pictures))
    assert row_fields(source, EVAL) == {"image": ((16, 16, 3), "uint8"), "label": ((), "int32")}
    assert row_fields(Numbers(5, bad=(0, 1)), EVAL)["label"] == ((), "int32")
    with pytest.raises(UnreadablePicture, match="number 2"):
        row_fields(Numbers(3, bad=(0, 1, 2)), EVAL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 10, "hosts": 4}, "batch_size 10 is not a positive multiple of the number of hosts 4"),
        ({"batch_size": 0}, "batch_size 0 is not a positive multiple"),
        ({"host": 2, "hosts": 2}, "host is 2; it must be from 0 to 1"),
        ({"threads": 0}, "workers is 0 and threads 0"),
        ({"workers": -1}, "workers is -1"),
        ({"max_unreadable": -1}, "max_unreadable -1 must not be negative"),
    ],
)
def test_impossible_arguments_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        train_batches(Numbers(50), TRAIN, **{"batch_size": 10, "seed": 0, **options})


def test_an_empty_source_is_refused():
    with pytest.raises(ValueError, match="no examples"):
        train_batches(Numbers(0), TRAIN, batch_size=10, seed=0)
