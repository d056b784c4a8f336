"""The order of examples is a permutation of every epoch, a pure function of the step, and the same everywhere."""

import time

import numpy as np
import pytest

from swin_jax.data import plan


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097])
def test_every_epoch_is_a_permutation(size):
    order = plan.examples_at(7, np.arange(3 * size), size).reshape(3, size)
    np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(size), (3, 1)))


def test_epochs_and_seeds_differ():
    orders = [plan.examples_at(seed, np.arange(200), 100).reshape(2, 100) for seed in (0, 1)]
    for other in (orders[0][1], orders[1][0]):
        assert np.mean(orders[0][0] == other) < 0.1


def test_batches_run_through_the_ends_of_epochs():
    joined = np.concatenate([plan.plan(3, step, 32, 50) for step in range(25)])
    np.testing.assert_array_equal(joined, plan.examples_at(3, np.arange(800), 50))
    np.testing.assert_array_equal(
        np.bincount(joined), np.full(50, 16)
    )  # 800 rows of 50 examples, none dropped


def test_the_order_is_well_mixed():
    size = 20_000
    order = plan.examples_at(0, np.arange(size), size)
    share = np.array([np.bincount(part // 1000, minlength=20) for part in order.reshape(20, 1000)]) / 50
    assert (
        abs(share - 1).max() < 0.6
    )  # every twentieth of the order has something of every twentieth of the set
    for lag in (1, 2, 64, 128):
        assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < 0.03
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 0.03
    # Neighbours of a sorted set do not follow one another more often than by chance (expected 2).
    assert np.sum(abs(np.diff(order)) == 1) < 10


def test_any_step_of_a_large_set_is_reached_at_once():
    plan.plan(0, 0, 1024, 14_197_122)
    begun = time.perf_counter()
    indices = plan.plan(0, 10**6, 1024, 14_197_122)
    assert time.perf_counter() - begun < 0.25
    assert indices.shape == (1024,)
    assert indices.max() < 14_197_122


@pytest.mark.parametrize(("batch_size", "repeats"), [(24, 3), (32, 3), (16, 2), (20, 1)])
def test_repeats_read_every_example_that_often_and_apart(batch_size, repeats):
    size = 50
    steps = size * repeats
    joined = np.stack([plan.plan(5, step, batch_size, size, repeats) for step in range(steps)])
    np.testing.assert_array_equal(np.bincount(joined.ravel()), np.full(size, repeats * batch_size))
    once = plan.examples_at(5, np.arange(batch_size * steps // repeats), size)
    # The order is the same as without: read that often, before the next one.
    readings = np.repeat(once, repeats).reshape(steps, batch_size)
    np.testing.assert_array_equal(np.sort(joined, axis=1), np.sort(readings, axis=1))
    if repeats > 1:  # mixing pairs neighbours
        found = np.stack([plan.places(t, np.arange(batch_size), batch_size, repeats) for t in range(steps)])
        assert (found[:, ::2] != found[:, 1::2]).all()


def test_the_order_and_the_draws_never_change():
    """A run is resumed by later versions of this program and of numpy: the numbers are part of the format."""
    np.testing.assert_array_equal(plan.plan(42, 1000, 8, 50_000), ORDER)
    draws = plan.generator(42, plan.DRAWS, 123_456).integers(0, 1000, 5)
    np.testing.assert_array_equal(draws, DRAWS)


ORDER = [14399, 11661, 4319, 36378, 25123, 27602, 35620, 2203]
DRAWS = [224, 545, 453, 86, 221]


def test_draws_differ_between_positions_purposes_and_seeds():
    base = plan.generator(0, plan.DRAWS, 5).random(4)
    for other in [(1, plan.DRAWS, 5), (0, plan.REPLACEMENT, 5), (0, plan.DRAWS, 6)]:
        assert not np.any(plan.generator(*other).random(4) == base)
    np.testing.assert_array_equal(plan.generator(0, plan.DRAWS, 5).random(4), base)
