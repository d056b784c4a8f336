"""Boxes against OpenMMLab's numbers and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import boxes

iou, iof, giou = jax.jit(boxes.iou), jax.jit(boxes.iof), jax.jit(boxes.giou)
encode, decode = (jax.jit(coder, static_argnames=("stds", "means")) for coder in (boxes.encode, boxes.decode))
clip, flip = jax.jit(boxes.clip), jax.jit(boxes.flip, static_argnums=1)
STDS = {"s1": (1.0,) * 4, "s0.1": (0.1, 0.1, 0.2, 0.2), "s0.033": (0.033, 0.033, 0.067, 0.067)}


def some_boxes(count: int, seed: int = 0) -> jax.Array:
    rng = np.random.RandomState(seed)
    corner = rng.uniform(0, 150, (count, 2))
    return jnp.asarray(np.concatenate([corner, corner + rng.uniform(1, 90, (count, 2))], axis=1), jnp.float32)


def test_overlaps_of_all_pairs_are_openmmlabs(golden):
    reference = golden("openmmlab_boxes")
    a, b = reference["giou_loss/pred"], reference["giou_loss/target"]
    np.testing.assert_allclose(
        jax.jit(boxes.pairwise_iou)(a, b), reference["giou_loss/iou_matrix"], atol=1e-6
    )
    found = giou(a[:, None], b[None])
    np.testing.assert_allclose(found, reference["giou_loss/giou_matrix"], atol=2e-6)


@pytest.mark.parametrize("gap", [0.0, 0.5, 3.0])
def test_giou_of_unit_squares_at_a_distance(gap: float):
    a = jnp.array([0.0, 0.0, 1.0, 1.0])
    b = a + jnp.array([1 + gap, 0, 1 + gap, 0])
    assert giou(a, b) == pytest.approx(-gap / (2 + gap), abs=1e-6)
    assert giou(a, a) == 1


def test_overlaps_do_not_depend_on_the_scale():
    a, b = some_boxes(20), some_boxes(20, 1)
    for overlap in (iou, iof, giou):
        np.testing.assert_allclose(overlap(a, b), overlap(a * 8, b * 8), rtol=1e-5)


def test_iof_is_the_covered_share_of_the_first():
    inner, outer = jnp.array([2.0, 2, 4, 6]), jnp.array([0.0, 0, 3, 100])
    assert (iof(inner, outer), iof(outer, inner)) == (0.5, pytest.approx(4 / 300))


def test_overlaps_with_empty_boxes_are_zero_and_their_gradients_finite():
    empty, other = jnp.array([5.0, 5, 5, 5]), jnp.array([0.0, 0, 10, 10])
    for a, b in ((empty, empty), (empty, other), (other, empty)):
        assert iou(a, b) == 0
        assert np.isfinite(jax.grad(giou)(a, b)).all()


@pytest.mark.parametrize("name", STDS)
def test_coder_is_openmmlabs(golden, name: str):
    reference = golden("openmmlab_boxes")
    stds = STDS[name]
    priors, deltas, targets = (
        jnp.asarray(reference[f"coder/{what}"]) for what in ("priors", "deltas", "targets")
    )
    encoded = encode(priors, targets, stds=stds)
    np.testing.assert_allclose(encoded, reference[f"coder/{name}/encoded"], rtol=1e-5, atol=1e-5)
    decoded = decode(priors, deltas, stds=stds)
    scale = np.abs(reference[f"coder/{name}/decoded"]).max()
    np.testing.assert_allclose(decoded, reference[f"coder/{name}/decoded"], rtol=1e-6, atol=1e-7 * scale)
    cut = clip(decoded, jnp.array([192, 256]))
    np.testing.assert_allclose(cut, reference[f"coder/{name}/decoded_clipped_192x256"], atol=1e-7 * scale)


def test_class_specific_deltas_share_their_prior(golden):
    reference = golden("openmmlab_boxes")
    deltas = jnp.asarray(reference["coder/class_specific_s0.1/deltas"]).reshape(30, 5, 4)
    found = decode(jnp.asarray(reference["coder/priors"])[:, None], deltas, stds=STDS["s0.1"])
    found = clip(found, jnp.array([192, 256])).reshape(30, 20)
    np.testing.assert_allclose(
        found, reference["coder/class_specific_s0.1/decoded_clipped_192x256"], atol=1e-4
    )


def test_decoding_undoes_encoding_also_with_means():
    priors, targets = some_boxes(30), some_boxes(30, 1)
    coder = {"stds": STDS["s0.1"], "means": (0.1, -0.2, 0.3, 0.0)}
    deltas = encode(priors, targets, **coder)
    np.testing.assert_allclose(decode(priors, deltas, **coder), targets, atol=1e-3)


def test_padded_rows_encode_to_finite_numbers():
    assert np.isfinite(encode(jnp.zeros((2, 4)), jnp.zeros((2, 4)))).all()


def test_flipping_mirrors_within_the_true_width():
    box = jnp.array([[10.0, 20, 30, 50]])
    np.testing.assert_array_equal(flip(box, 100), [[70, 20, 90, 50]])
    np.testing.assert_array_equal(flip(flip(box, 100), 100), box)


def test_clipping_is_to_height_and_width():
    box = jnp.array([[-5.0, -7, 300, 250], [10, 20, 30, 40]])
    np.testing.assert_array_equal(clip(box, jnp.array([100, 200])), [[0, 0, 200, 100], [10, 20, 30, 40]])
