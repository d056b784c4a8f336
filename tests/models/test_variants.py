"""The options by which a Swin becomes each row of the paper's ablations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.swin import SwinTransformer

MICRO = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "window_size": 3, "num_classes": 3}
VARIANTS = {
    "no shift": {"shift": "none"},
    "padding": {"shift": "padding"},
    "no position": {"relative_position": False},
    "absolute": {"relative_position": False, "absolute_position_embedding": True},
    "both": {"absolute_position_embedding": True},
    "no appearance": {"appearance": False},
    "sliding": {"mixer": "sliding"},
    "sliding, naive": {"mixer": "sliding_naive"},
    "performer": {"mixer": "performer"},
    "global": {"mixer": "global"},
    "mlp": {"mixer": "mlp", "shift": "padding"},
    "mlp, no shift": {"mixer": "mlp", "shift": "none"},
}
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((2, 36, 28, 3)), jnp.float32)


def made(**fields):
    model = SwinTransformer(**(MICRO | fields))
    variables = jax.jit(model.init)(jax.random.key(1), IMAGES)
    spread = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape), variables)
    return model, spread


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=list(VARIANTS))
def test_every_variant_runs_scanned_and_recomputed_alike(fields):
    model, variables = made(**fields, depths=(2, 4))
    plain = jax.jit(model.apply)(variables, IMAGES)
    assert plain.shape == (2, 3)
    assert np.isfinite(plain).all()
    other = model.clone(scan=True, remat="full")
    np.testing.assert_allclose(jax.jit(other.apply)(variables, IMAGES), plain, atol=1e-4)


def applied(model, variables):
    return jax.jit(model.apply)(variables, IMAGES)


def test_padding_gives_what_the_cyclic_shift_gives():
    model, variables = made()
    padded = model.clone(shift="padding")
    np.testing.assert_allclose(applied(padded, variables), applied(model, variables), atol=1e-4)
    unshifted = model.clone(shift="none")
    assert not np.allclose(applied(unshifted, variables), applied(model, variables), atol=1e-2)


def test_sliding_windows_have_one_set_of_parameters_in_both_forms():
    model, variables = made(mixer="sliding")
    naive = model.clone(mixer="sliding_naive")
    np.testing.assert_allclose(applied(naive, variables), applied(model, variables), atol=1e-4)


def test_without_appearance_attention_does_not_depend_on_what_is_there():
    model, variables = made(appearance=False)
    attention = model.apply(variables, IMAGES, mutable=["attention"])[1]["attention"]
    other = model.apply(variables, -2 * IMAGES, mutable=["attention"])[1]["attention"]
    for ours, theirs in zip(jax.tree.leaves(attention), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with_appearance = model.clone(appearance=True).apply(variables, IMAGES, mutable=["attention"])[1]
    ours, theirs = (jax.tree.leaves(x)[0] for x in (attention, with_appearance["attention"]))
    assert not np.allclose(ours, theirs, atol=1e-3)


def test_without_relative_position_there_is_no_table():
    shapes = jax.eval_shape(SwinTransformer(**MICRO, relative_position=False).init, jax.random.key(0), IMAGES)
    assert "relative_position_bias_table" not in str(jax.tree.structure(shapes))


def test_performer_draws_anew_only_in_training_and_only_if_asked():
    model, variables = made(mixer="performer", performer_features=8)

    def run(model, seed, train):
        return model.apply(variables, IMAGES, train, rngs={"dropout": jax.random.key(seed)})

    np.testing.assert_array_equal(run(model, 0, True), run(model, 1, True))
    anew = model.clone(performer_redraw=True)
    assert not np.allclose(run(anew, 0, True), run(anew, 1, True), atol=1e-3)
    np.testing.assert_array_equal(run(anew, 0, False), run(model, 1, False))


def test_an_unshifted_mlp_keeps_a_window_to_itself_and_a_shifted_one_does_not():
    images = jnp.zeros((1, 24, 24, 3))
    changed = images.at[:, :4, :4].set(1.0)  # the first token of 6 x 6
    for shift, reached in (("none", 3), ("padding", 5)):
        model, variables = made(mixer="mlp", shift=shift, depths=(2,), num_heads=(2,), features_only=True)
        moved = model.apply(variables, changed)[0] - model.apply(variables, images)[0]
        rows = np.flatnonzero(np.abs(np.asarray(moved)).max(axis=(0, 2, 3)) > 1e-5)
        assert rows.max() < reached


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"mixer": "slinding"}, "mixer"),
        ({"shift": "roll"}, "shift"),
        ({"mixer": "sliding", "window_size": 4}, "needs an odd window_size, got 4"),
        ({"mixer": "mlp"}, "shift must be 'padding' or 'none', got 'cyclic'"),
        ({"mixer": "performer", "attn_drop_rate": 0.1}, "must be 0 with mixer 'performer', got 0.1"),
        (
            {"mixer": "global", "appearance": False},
            "needs mixer 'window' and relative_position, got 'global'",
        ),
        ({"appearance": False, "relative_position": False}, "got 'window' and False"),
        ({"performer_features": -1}, "performer_features"),
        ({"mixer": "performer", "performer_redraw": True, "scan": True}, "performer_redraw must be False"),
    ],
)
def test_contradictions_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SwinTransformer(**(MICRO | fields))
