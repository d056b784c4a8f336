"""Losses of detectors against OpenMMLab's numbers and closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import detection_losses as losses


def test_giou_loss_and_gradient_are_openmmlabs(golden):
    """Equal, empty, inverted and far boxes among them."""
    reference = {
        name: jnp.asarray(golden("openmmlab_boxes")[f"giou_loss/{name}"])
        for name in ("pred", "target", "loss", "grad_of_sum")
    }
    loss = jax.jit(losses.giou)(reference["pred"], reference["target"])
    np.testing.assert_allclose(loss, reference["loss"], atol=2e-6)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(losses.giou(p, reference["target"]))))(reference["pred"])
    scale = 1 + np.abs(reference["grad_of_sum"]).max(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient / scale, reference["grad_of_sum"] / scale, atol=1e-5)


def test_focal_loss_and_gradient_are_openmmlabs(golden):
    reference = {
        name: jnp.asarray(golden("openmmlab_boxes")[f"focal_loss/{name}"])
        for name in (
            "logits",
            "labels_5_is_background",
            "weight",
            "loss",
            "grad_of_sum",
            "mean_with_avg_factor_7",
        )
    }
    labels = reference["labels_5_is_background"]

    @jax.jit
    def of(logits):
        loss = losses.focal(logits, labels) * reference["weight"]
        return jnp.sum(loss), loss

    (total, loss), gradient = jax.value_and_grad(of, has_aux=True)(reference["logits"])
    np.testing.assert_allclose(loss, reference["loss"].sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(gradient, reference["grad_of_sum"], atol=1e-5)
    np.testing.assert_allclose(total / 7, reference["mean_with_avg_factor_7"], rtol=1e-5)


def test_smooth_l1_is_openmmlabs(golden):
    predictions, targets, loss = (
        jnp.asarray(golden("openmmlab_boxes")[f"smooth_l1_beta_1_9/{name}"])
        for name in ("pred", "target", "loss")
    )
    found = jax.jit(partial(losses.smooth_l1, beta=1 / 9))(predictions, targets)
    np.testing.assert_allclose(found, loss.sum(axis=1), rtol=1e-5)


def test_smooth_l1_meets_l1_where_differences_are_large():
    predictions, targets = jnp.array([[3.0, -4, 5, 6]]), jnp.zeros((1, 4))
    assert losses.l1(predictions, targets)[0] == 18
    assert losses.smooth_l1(predictions, targets, beta=1.0)[0] == 16
    assert losses.smooth_l1(predictions / 10, targets, beta=1.0)[0] == pytest.approx(0.43)


def test_focal_loss_without_focus_is_half_the_cross_entropy():
    logits = jnp.asarray(np.random.RandomState(0).standard_normal((6, 3)) * 4, jnp.float32)
    labels = jnp.array([0, 1, 2, 3, 3, 1])
    targets = labels[:, None] == jnp.arange(3)[None]
    plain = losses.sigmoid_cross_entropy(logits, targets).sum(axis=1)
    np.testing.assert_allclose(losses.focal(logits, labels, alpha=0.5, gamma=0.0), plain / 2, rtol=1e-6)


def test_cross_entropies_are_their_definitions_and_do_not_overflow():
    logits = jnp.array([-200.0, -3, 0, 3, 200])
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    of_logits = jax.jit(losses.sigmoid_cross_entropy)
    np.testing.assert_allclose(
        of_logits(logits, jnp.ones(5)), -np.log(np.maximum(p, 1e-87)), rtol=1e-5, atol=1e-7
    )
    gradient = jax.jit(jax.vmap(jax.grad(losses.sigmoid_cross_entropy)))(logits, jnp.zeros(5))
    np.testing.assert_allclose(gradient, p, atol=1e-6)
    rows = jnp.asarray(np.random.RandomState(1).standard_normal((2, 3, 4)), jnp.float32)
    labels = jnp.array([[0, 1, 3], [2, 2, 0]])
    expected = jax.nn.logsumexp(rows, axis=-1) - jnp.take_along_axis(rows, labels[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(jax.jit(losses.softmax_cross_entropy)(rows, labels), expected, rtol=1e-6)


def test_mask_loss_is_of_the_boxes_own_class():
    rng = np.random.RandomState(2)
    logits = jnp.asarray(rng.standard_normal((3, 4, 4, 5)), jnp.float32)
    targets, labels = jnp.asarray(rng.rand(3, 4, 4) < 0.5), jnp.array([4, 0, 2])
    of = jax.jit(jax.value_and_grad(lambda x: jnp.sum(losses.mask_cross_entropy(x, labels, targets))))
    loss, gradient = of(logits)
    p = 1 / (1 + np.exp(-np.stack([np.asarray(logits)[i, ..., label] for i, label in enumerate(labels)])))
    expected = -np.where(targets, np.log(p), np.log(1 - p)).mean(axis=(1, 2)).sum()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert (np.abs(gradient).sum(axis=(1, 2)) > 0).tolist() == (
        labels[:, None] == jnp.arange(5)[None]
    ).tolist()


def test_rows_that_do_not_count_add_nothing():
    targets = jnp.array([[0.0, 0, 4, 4], [0, 0, 0, 0]])
    valid = jnp.array([True, False])

    def total(predictions):
        return losses.total(losses.giou(predictions, targets), valid)

    predictions = jnp.array([[0.0, 0, 4, 2], [1, 2, 3, 4]])
    value, gradient = jax.jit(jax.value_and_grad(total))(predictions)
    assert value == pytest.approx(0.5)
    assert np.abs(gradient[0]).sum() > 0
    assert not np.asarray(gradient[1]).any()
    assert losses.total(jnp.ones(2), jnp.zeros(2, bool)) == 0
