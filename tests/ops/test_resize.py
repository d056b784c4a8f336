"""Bicubic interpolation of position tables against its definition."""

import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops.resize import resize_bias_table, resize_grid


def keys_kernel(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def weights(old: int, new: int) -> np.ndarray:
    """`[new, old]`: half-pixel centres, four neighbours, edges replicated, no antialiasing."""
    matrix = np.zeros((new, old))
    for target in range(new):
        centre = (target + 0.5) * old / new - 0.5
        for source in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[target, min(max(source, 0), old - 1)] += keys_kernel(centre - source)
    return matrix


@pytest.mark.parametrize(("old", "new"), [((13, 13), (23, 23)), ((13, 13), (9, 9)), ((14, 10), (7, 19))])
def test_grid_equals_the_definition(old: tuple[int, int], new: tuple[int, int]):
    values = np.random.RandomState(0).standard_normal((*old, 3))
    expected = np.einsum("ih,jw,hwc->ijc", weights(old[0], new[0]), weights(old[1], new[1]), values)
    np.testing.assert_allclose(resize_grid(jnp.asarray(values, jnp.float32), *new), expected, atol=1e-5)


def test_the_same_size_changes_nothing():
    values = jnp.asarray(np.random.RandomState(0).standard_normal((5, 4, 2)), jnp.float32)
    assert resize_grid(values, 5, 4) is values


def test_a_bias_table_is_a_square_grid_of_heads():
    table = np.random.RandomState(1).standard_normal((169, 3))
    matrix = weights(13, 23)
    expected = np.einsum("ih,jw,hwc->ijc", matrix, matrix, table.reshape(13, 13, 3)).reshape(529, 3)
    np.testing.assert_allclose(resize_bias_table(jnp.asarray(table, jnp.float32), 12), expected, atol=1e-5)


@pytest.mark.parametrize("rows", [168, 196])
def test_a_table_of_another_length_is_refused(rows: int):
    with pytest.raises(ValueError, match=rf"a bias table has \(2 \* window - 1\)\*\*2 rows, got {rows}"):
        resize_bias_table(jnp.zeros((rows, 2)), 7)
