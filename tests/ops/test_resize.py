"""Interpolation of tables and maps and adaptive averaging, against their definitions and PyTorch's numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops.resize import adaptive_average_pool, resize_bias_table, resize_bilinear, resize_grid

TORCH = Path(__file__).parents[1] / "goldens" / "torch_maps.npz"
"""What PyTorch 2.13's `interpolate` and `adaptive_avg_pool2d` give, `[B, C, H, W]`."""


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


def torch_maps(name: str) -> np.ndarray:
    with np.load(TORCH) as file:
        return file[name].transpose(0, 2, 3, 1)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(26, 34), (23, 31), (7, 9), (100, 77)])
def test_bilinear_resize_equals_pytorchs_up_and_down(size: tuple[int, int], align_corners: bool):
    rule = "align_corners" if align_corners else "half_pixel"
    ours = resize_bilinear(jnp.asarray(torch_maps("resize/input_13x17")), size, align_corners=align_corners)
    # PyTorch rounds positions to float32: at cell 16 that is 1e-6 of a cell, on slopes of up to 5 a cell.
    np.testing.assert_allclose(ours, torch_maps("resize/bilinear_{}_{}x{}".format(rule, *size)), atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_one_line_is_repeated_and_one_line_is_taken(align_corners: bool):
    values = jnp.arange(6.0).reshape(1, 1, 3, 2)
    wide = resize_bilinear(values, (4, 3), align_corners=align_corners)
    np.testing.assert_array_equal(wide, jnp.broadcast_to(values, (1, 4, 3, 2)))
    one = resize_bilinear(values, (1, 1), align_corners=align_corners)
    np.testing.assert_array_equal(one[0, 0, 0], values[0, 0, 0 if align_corners else 1])


def test_a_bfloat16_map_stays_one_and_a_constant_one_stays_constant():
    values = jnp.full((1, 5, 7, 3), 0.75, jnp.bfloat16)
    resized = resize_bilinear(values, (10, 14))
    assert resized.dtype == jnp.bfloat16
    np.testing.assert_array_equal(resized, jnp.full((1, 10, 14, 3), 0.75, jnp.bfloat16))


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", ["13x17", "7x5", "3x4"])
def test_adaptive_averaging_equals_pytorchs_also_with_more_bins_than_cells(size: str, bins: int):
    values = jnp.asarray(torch_maps(f"adaptive_avg_pool/input_{size}"))
    expected = torch_maps(f"adaptive_avg_pool/{size}_to_{bins}")
    np.testing.assert_allclose(adaptive_average_pool(values, (bins, bins)), expected, atol=1e-6)


def test_gradients_need_no_scatter():
    def total(values):
        resized = resize_bilinear(values, (12, 9))
        return jnp.sum(resized**2) + jnp.sum(adaptive_average_pool(values, (3, 2)) ** 2)

    program = jax.jit(jax.grad(total)).lower(jnp.ones((1, 6, 5, 2))).as_text()
    assert "scatter" not in program
    assert "gather" not in program
