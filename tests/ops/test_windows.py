"""Closed-form oracles of windows, regions and relative positions."""

import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import windows


def test_relative_index_of_a_2x2_window():
    expected = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    np.testing.assert_array_equal(windows.relative_position_index(2), expected)


def test_relative_index_of_a_7x7_window():
    index = windows.relative_position_index(7)
    np.testing.assert_array_equal(index[0, :7], [84, 83, 82, 81, 80, 79, 78])
    assert (index[0, 7], index[0, 48], index[48, 0]) == (71, 0, 168)
    assert index.sum() == 201684


def test_a_smaller_window_reads_the_centre_of_the_table():
    offsets = np.arange(-3, 4)
    # Every entry of this table for windows of 4 says its own offset, as 100 * rows + columns.
    table = (100 * offsets[:, None] + offsets[None, :]).reshape(-1, 1).astype(np.float32)
    own = windows.relative_position_bias(jnp.asarray(table), 2, 4)[0]
    tokens = [(row, column) for row in range(2) for column in range(2)]
    expected = [[100 * (r - s) + c - d for s, d in tokens] for r, c in tokens]
    np.testing.assert_array_equal(own, expected)


def test_a_window_larger_than_its_table_is_refused():
    with pytest.raises(ValueError, match="a window of 5 needs offsets that a bias table for 4 does not hold"):
        windows.relative_position_index(5, 4)


def test_bias_is_indexed_by_head_query_key():
    table = np.arange(9 * 2, dtype=np.float32).reshape(9, 2)
    bias = windows.relative_position_bias(jnp.asarray(table), 2)
    index = windows.relative_position_index(2)
    for head, query, key in np.ndindex(2, 4, 4):
        assert bias[head, query, key] == table[index[query, key], head]


def test_region_ids_of_an_8x8_map():
    rows = ["00001122", "33334455", "66667788"]
    expected = [[int(digit) for digit in rows[band]] for band in (0, 0, 0, 0, 1, 1, 2, 2)]
    np.testing.assert_array_equal(windows.region_ids(8, 8, 4, 2), expected)


@pytest.mark.parametrize(
    ("size", "window", "count", "with_mask", "entries"),
    [(56, 7, 64, 15, 18240), (28, 7, 16, 7, 8832), (14, 7, 4, 3, 4128), (96, 12, 64, 15, 160704)],
)
def test_mask_counts(size: int, window: int, count: int, with_mask: int, entries: int):
    mask = np.asarray(windows.shift_mask(size, size, window, window // 2))
    assert mask.shape == (count, window**2, window**2)
    assert set(np.unique(mask)) == {0.0, -100.0}
    masked = (mask == -100).sum(axis=(1, 2))
    assert (masked > 0).sum() == with_mask
    assert masked.sum() == entries


def test_masked_entries_per_kind_of_window():
    masked = (np.asarray(windows.shift_mask(21, 28, 7, 3)) == -100).sum(axis=(1, 2)).reshape(3, 4)
    np.testing.assert_array_equal(masked, [[0, 0, 0, 1176], [0, 0, 0, 1176], [1176, 1176, 1176, 1776]])


def test_partition_counts_windows_and_tokens_row_by_row():
    place = jnp.arange(4 * 6).reshape(1, 4, 6, 1)
    parts = windows.partition(place, 2)[0, :, :, 0]
    assert parts.shape == (6, 4)
    np.testing.assert_array_equal(parts[0], [0, 1, 6, 7])
    np.testing.assert_array_equal(parts[1], [2, 3, 8, 9])
    np.testing.assert_array_equal(parts[3], [12, 13, 18, 19])


def test_reverse_undoes_partition():
    picture = jnp.arange(2 * 6 * 9 * 5).reshape(2, 6, 9, 5)
    np.testing.assert_array_equal(windows.reverse(windows.partition(picture, 3), 3, 6, 9), picture)


def test_partition_refuses_a_map_that_does_not_divide():
    with pytest.raises(ValueError, match="a map of 6x7 does not divide into windows of 3: pad it first"):
        windows.partition(jnp.zeros((1, 6, 7, 1)), 3)


def test_cyclic_shift_moves_up_and_left():
    picture = jnp.arange(16).reshape(1, 4, 4, 1)
    assert windows.cyclic_shift(picture, 1)[0, 0, 0, 0] == 5
    np.testing.assert_array_equal(windows.cyclic_shift(windows.cyclic_shift(picture, 3), -3), picture)


def test_padding_is_below_and_right_and_of_the_given_value():
    padded = windows.pad_to_windows(jnp.ones((1, 3, 5, 2)), 4, jnp.array([7.0, 8.0]))
    assert padded.shape == (1, 4, 8, 2)
    np.testing.assert_array_equal(padded[0, :3, :5], np.ones((3, 5, 2)))
    np.testing.assert_array_equal(padded[0, 3, :, 0], np.full(8, 7.0))
    np.testing.assert_array_equal(padded[0, :, 5:, 1], np.full((4, 3), 8.0))


def test_heads_are_consecutive_channels():
    channels = jnp.arange(6, dtype=jnp.float32).reshape(1, 1, 1, 6)
    split = windows.split_heads(channels, 3)
    np.testing.assert_array_equal(split[0, 0, :, 0], [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(windows.merge_heads(split), channels)
