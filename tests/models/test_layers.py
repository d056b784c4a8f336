"""The shared parts: exact formulas, published orders, and the statistics of what is random."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models import layers


def test_gelu_is_the_exact_form():
    x = np.linspace(-5, 5, 101)
    expected = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x]
    np.testing.assert_allclose(layers.gelu(jnp.asarray(x, jnp.float32)), expected, atol=1e-6)


def test_the_gradient_of_gelu_is_phi_plus_x_times_the_density():
    x = np.linspace(-5, 5, 101)
    exact = [
        0.5 * (1 + math.erf(v / math.sqrt(2))) + v * math.exp(-v * v / 2) / math.sqrt(2 * math.pi) for v in x
    ]
    gradient = jax.vmap(jax.grad(layers.gelu))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(gradient, exact, atol=1e-6)


def test_gelu_of_bfloat16_keeps_its_input_alone_for_the_backward_pass():
    x = jnp.linspace(-5, 5, 101, dtype=jnp.bfloat16)
    _, backward = jax.vjp(layers.gelu, x)
    assert [leaf.dtype for leaf in jax.tree.leaves(backward)] == [jnp.bfloat16]


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 5)])
def test_matmul_has_the_gradients_of_a_matrix_product(shape: tuple[int, ...]):
    draw = np.random.RandomState(0)
    x, kernel, factor = (
        jnp.asarray(draw.standard_normal(size), jnp.float32) for size in (shape, (5, 6), (*shape[:-1], 6))
    )

    def total(product: Callable, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return (product(x, kernel) * factor).sum()

    ours = jax.value_and_grad(partial(total, layers.matmul), argnums=(0, 1))(x, kernel)
    theirs = jax.value_and_grad(partial(total, jnp.matmul), argnums=(0, 1))(x, kernel)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), ours, theirs)


def test_quarters_are_merged_rows_first():
    # Each token says (row, column) as 10 * row + column.
    tokens = jnp.asarray([[10.0 * row + column for column in range(4)] for row in range(2)])[None, :, :, None]
    merged = layers.merge_quarters(tokens)
    np.testing.assert_array_equal(merged[0, 0], [[0, 10, 1, 11], [2, 12, 3, 13]])


def test_quarters_keep_the_channels_of_a_token_together():
    tokens = jnp.arange(2 * 2 * 3, dtype=jnp.float32).reshape(1, 2, 2, 3)
    expected = np.concatenate([tokens[0, 0, 0], tokens[0, 1, 0], tokens[0, 0, 1], tokens[0, 1, 1]])
    np.testing.assert_array_equal(layers.merge_quarters(tokens)[0, 0, 0], expected)


def test_merging_normalises_then_projects_without_bias():
    merging = layers.PatchMerging(6)
    x = jnp.asarray(np.random.RandomState(0).standard_normal((1, 3, 5, 3)), jnp.float32)
    variables = merging.init(jax.random.key(0), x)
    assert set(variables["params"]["reduction"]) == {"kernel"}
    padded = layers.merge_quarters(jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))))
    centred = padded - padded.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    expected = normal @ variables["params"]["reduction"]["kernel"]
    np.testing.assert_allclose(merging.apply(variables, x), expected, atol=1e-5)


def test_norms_add_1e_5_to_the_variance():
    x = jnp.asarray([[1e-3, -1e-3]])
    norm = layers.LayerNorm()
    out = norm.apply(norm.init(jax.random.key(0), x), x)
    assert float(out[0, 0]) == pytest.approx(1e-3 / math.sqrt(1e-6 + 1e-5), rel=1e-4)


def test_patch_projection_is_a_strided_convolution():
    projection = layers.PatchProjection(5, 4)
    images = jnp.asarray(np.random.RandomState(0).standard_normal((2, 10, 7, 3)), jnp.float32)
    variables = projection.init(jax.random.key(0), images)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    padded = jnp.pad(images, ((0, 0), (0, 2), (0, 1), (0, 0)))
    expected = jax.lax.conv_general_dilated(
        padded, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(
        projection.apply(variables, images), expected + bias[None, None, None], atol=1e-5
    )


def test_patch_projection_starts_uniform_within_the_root_of_its_fan_in():
    variables = layers.PatchProjection(2000, 4).init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    bound = 1 / math.sqrt(48)
    for value in variables["params"].values():
        assert float(jnp.abs(value).max()) <= bound
        assert float(value.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_stochastic_depth_drops_with_its_rate_and_scales_what_it_keeps():
    rates = (0.0, 0.1, 0.3)
    scales = np.asarray(layers.drop_path_scales(jax.random.key(0), rates, 4000))
    assert scales.shape == (3, 2, 4000)
    assert (scales[0] == 1).all()
    for rate, of_block in zip(rates, scales, strict=True):
        assert set(np.unique(of_block)) <= {np.float32(0), np.float32(1) / np.float32(1 - rate)}
        assert (of_block == 0).mean(axis=1) == pytest.approx(rate, abs=0.03)


def test_every_branch_of_every_block_draws_for_itself():
    scales = layers.drop_path_scales(jax.random.key(0), (0.5, 0.5), 64)
    assert len({tuple(branch) for branch in np.asarray(scales).reshape(4, 64).tolist()}) == 4


def test_a_factor_multiplies_its_whole_example_and_keeps_the_type():
    x = jnp.ones((2, 3, 3, 4), jnp.bfloat16)
    out = layers.scale_examples(x, jnp.asarray([0.0, 1 / 0.7], jnp.float32))
    assert out.dtype == jnp.bfloat16
    assert not out[0].any()
    np.testing.assert_array_equal(out[1], jnp.full((3, 3, 4), 1 / 0.7, jnp.bfloat16))
    assert layers.scale_examples(x, None) is x
