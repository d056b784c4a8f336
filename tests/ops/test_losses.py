"""Cross-entropy of pixels against PyTorch's numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops.losses import pixel_cross_entropy, segmentation_cross_entropy

TORCH = Path(__file__).parents[1] / "goldens" / "torch_maps.npz"


@pytest.fixture(name="torch")
def fixture_torch() -> dict[str, np.ndarray]:
    with np.load(TORCH) as file:
        prefix = "segmentation_cross_entropy/"
        return {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}


@pytest.mark.parametrize("avg_non_ignore", [False, True])
def test_the_mean_over_all_pixels_or_over_those_with_a_label(torch: dict, avg_non_ignore: bool):
    logits = jnp.asarray(torch["logits"].transpose(0, 2, 3, 1))
    labels = jnp.asarray(torch["labels"], jnp.uint8)
    total, count = segmentation_cross_entropy(logits, labels, avg_non_ignore=avg_non_ignore)
    expected = torch["mean_over_valid_pixels" if avg_non_ignore else "mean_over_all_pixels"]
    np.testing.assert_allclose(total / count, expected, rtol=1e-6)


def test_an_ignored_pixel_has_no_loss_and_no_gradient():
    logits = jnp.asarray(np.random.RandomState(0).standard_normal((1, 2, 2, 3)), jnp.float32)
    labels = jnp.asarray([[[255, 1], [2, 255]]], jnp.uint8)
    losses = pixel_cross_entropy(logits, labels)
    np.testing.assert_array_equal(losses == 0.0, labels == 255)
    gradient = jax.grad(lambda x: pixel_cross_entropy(x, labels).sum())(logits)
    np.testing.assert_array_equal(jnp.any(gradient != 0.0, axis=-1), labels != 255)


def test_a_batch_of_ignored_pixels_has_a_denominator_of_zero_only_where_labels_are_counted():
    logits, labels = jnp.zeros((1, 2, 3, 4)), jnp.full((1, 2, 3), 255, jnp.uint8)
    assert segmentation_cross_entropy(logits, labels) == (0.0, 6.0)
    assert segmentation_cross_entropy(logits, labels, avg_non_ignore=True) == (0.0, 0.0)


def test_bfloat16_logits_give_a_float32_loss():
    logits, labels = jnp.ones((1, 2, 3, 4), jnp.bfloat16), jnp.ones((1, 2, 3), jnp.uint8)
    assert pixel_cross_entropy(logits, labels).dtype == jnp.float32
