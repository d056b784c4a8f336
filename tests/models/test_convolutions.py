"""Batch norm against a scalar oracle, on one device and on eight; convolution blocks against their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from swin_jax.models.convolutions import BatchNorm, ConvBatchNorm, Deconv2x2

SHAPE = (8, 3, 5, 4)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def norm_variables() -> dict:
    return {
        "params": {"scale": drawn(4, seed=1), "bias": drawn(4, seed=2)},
        "batch_stats": {"mean": drawn(4, seed=3), "var": 1.0 + drawn(4, seed=4) ** 2},
    }


def train(images) -> tuple:
    return BatchNorm().apply(norm_variables(), images, True, mutable=["batch_stats"])


def test_training_takes_the_batchs_statistics_and_moves_the_running_ones_by_a_tenth():
    images, variables = drawn(*SHAPE, seed=5) * 3.0 + 7.0, norm_variables()
    out, state = train(jnp.asarray(images))
    for channel in range(4):
        values = [float(value) for value in images[..., channel].ravel()]
        mean = sum(values) / len(values)
        squares = sum((value - mean) ** 2 for value in values)
        scale, bias = (variables["params"][name][channel] for name in ("scale", "bias"))
        expected = (images[..., channel] - mean) / np.sqrt(squares / len(values) + 1e-5) * scale + bias
        np.testing.assert_allclose(out[..., channel], expected, atol=1e-5)
        old = {name: variables["batch_stats"][name][channel] for name in ("mean", "var")}
        moved = {"mean": mean, "var": squares / (len(values) - 1)}  # unbiased, unlike what normalises
        for name, value in moved.items():
            ours = state["batch_stats"][name][channel]
            np.testing.assert_allclose(ours, 0.9 * old[name] + 0.1 * value, rtol=1e-5)


def test_evaluation_takes_the_running_statistics():
    variables, images = norm_variables(), drawn(*SHAPE, seed=5)
    out = BatchNorm().apply(variables, jnp.asarray(images), False)
    stats, params = variables["batch_stats"], variables["params"]
    expected = (images - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_eight_devices_give_the_numbers_of_one():
    images = jnp.asarray(drawn(*SHAPE, seed=6))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    shards = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    assert len(shards.sharding.device_set) == 8
    one, eight = jax.jit(train)(images), jax.jit(train)(shards)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, eight)


def test_a_large_mean_costs_no_digits_of_the_variance():
    images = drawn(*SHAPE, seed=7)
    plain, _ = train(jnp.asarray(images))
    shifted, _ = train(jnp.asarray(images + np.float32(1000.0)))
    np.testing.assert_allclose(plain, shifted, atol=1e-3)


def test_statistics_are_float32_whatever_is_computed_in():
    variables = jax.eval_shape(
        lambda: BatchNorm(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16).init(
            jax.random.key(0), jnp.ones(SHAPE, jnp.bfloat16), False
        )
    )
    assert variables["batch_stats"]["mean"].dtype == variables["batch_stats"]["var"].dtype == jnp.float32
    norm = BatchNorm(dtype=jnp.bfloat16)
    images = jnp.asarray(drawn(*SHAPE, seed=8), jnp.bfloat16)
    out, state = norm.apply(norm_variables(), images, True, mutable=["batch_stats"])
    assert out.dtype == jnp.bfloat16
    _, exact = train(images.astype(jnp.float32))
    jax.tree.map(np.testing.assert_array_equal, state, exact)


def test_one_value_per_channel_cannot_be_normalised():
    with pytest.raises(
        ValueError, match=r"more than one value per channel in training, got a map \(1, 1, 1, 4\)"
    ):
        BatchNorm().apply(norm_variables(), jnp.ones((1, 1, 1, 4)), True, mutable=["batch_stats"])


@pytest.mark.parametrize(
    ("size", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (3, 1, 2), (1, 2, 1), (7, 2, 1)]
)
def test_a_convolution_pads_evenly_and_shrinks_by_its_stride_alone(size: int, stride: int, dilation: int):
    images, block = drawn(1, 7, 10, 2, seed=9), ConvBatchNorm(3, size, stride, dilation)
    kernel = drawn(size, size, 2, 3, seed=10)
    params = {"conv": {"kernel": kernel}, "bn": {"scale": np.ones(3), "bias": np.zeros(3)}}
    stats = {"bn": {"mean": np.zeros(3), "var": np.ones(3)}}
    out = block.apply({"params": params, "batch_stats": stats}, jnp.asarray(images), False)
    margin = dilation * (size // 2)
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    rows, columns = -(-7 // stride), -(-10 // stride)
    expected = np.zeros((1, rows, columns, 3))
    for row in range(rows):
        for column in range(columns):
            patch = padded[
                :,
                row * stride : row * stride + 2 * margin + 1 : dilation,
                column * stride : column * stride + 2 * margin + 1 : dilation,
            ]
            expected[:, row, column] = np.einsum("bhwi,hwio->bo", patch, kernel)
    np.testing.assert_allclose(out, np.maximum(expected, 0.0) / np.sqrt(1.0 + 1e-5), atol=1e-4)


def test_a_deconvolution_writes_four_cells_for_each():
    images, kernel, bias = drawn(1, 2, 3, 4, seed=11), drawn(2, 2, 4, 5, seed=12), drawn(5, seed=13)
    out = Deconv2x2(5).apply({"params": {"kernel": kernel, "bias": bias}}, jnp.asarray(images))
    expected = np.zeros((1, 4, 6, 5), np.float32)
    for row in range(4):
        for column in range(6):
            cell = images[:, row // 2, column // 2] @ kernel[row % 2, column % 2]
            expected[:, row, column] = cell + bias
    np.testing.assert_allclose(out, expected, atol=1e-5)
