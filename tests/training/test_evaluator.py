"""Which rows an evaluation keeps to draw."""

import numpy as np

from swin_jax.training.evaluator import Sample


def batch(indices: range, side: int = 2, valid: bool = True) -> dict[str, np.ndarray]:
    numbers = np.asarray(indices)
    return {
        "example_index": numbers,
        "image": np.broadcast_to(numbers[:, None, None], (len(numbers), side, side)),
        "valid": np.full(len(numbers), valid),
    }


def kept(batches: list[dict[str, np.ndarray]], size: int = 24) -> np.ndarray:
    sample = Sample(size)
    for one in batches:
        sample.add(one, {"guess": one["example_index"] * 10})
    rows, predictions = sample.rows()
    np.testing.assert_array_equal(rows["image"][:, 0, 0], rows["example_index"])
    np.testing.assert_array_equal(predictions["guess"], rows["example_index"] * 10)
    return rows["example_index"]


def test_rows_come_from_every_part_of_the_data() -> None:
    found = kept([batch(range(start, start + 50)) for start in range(0, 10_000, 50)])
    counts = np.bincount(found // 1000, minlength=10)
    assert len(set(found.tolist())) == 24
    assert counts.min() >= 1
    assert counts.max() <= 5


def test_batches_and_their_order_do_not_matter() -> None:
    small = [batch(range(start, start + 8)) for start in range(0, 400, 8)]
    np.testing.assert_array_equal(kept(small), kept([batch(range(400))]))
    np.testing.assert_array_equal(kept(small[::-1]), kept(small))


def test_fewer_rows_than_asked_are_all_kept() -> None:
    assert sorted(kept([batch(range(5)), batch(range(5, 7))]).tolist()) == list(range(7))


def test_padding_and_other_shapes_are_not_kept() -> None:
    others = [batch(range(4)), batch(range(4, 8), valid=False), batch(range(8, 12), side=3)]
    assert sorted(kept(others).tolist()) == [0, 1, 2, 3]
