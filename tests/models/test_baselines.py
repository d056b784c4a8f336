"""The classifiers that a Swin is compared with: counts, MACs, sizes, draws in training, refusals."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models import registry
from swin_jax.models.classifier_complexity import classifier_macs
from swin_jax.models.mixer import MlpMixer
from swin_jax.models.resmlp import ResMlp

# timm's parameters (of the base ResMLP with patches of 16), and billions of MACs.
COUNTS = {
    "deit_small_patch16_224": (22_050_664, 4.574),
    "deit_base_patch16_224": (86_567_656, 17.472),
    "deit_base_patch16_384": (86_859_496, 55.378),
    "vit_base_patch16_384": (86_859_496, 55.378),
    "vit_large_patch16_384": (304_715_752, 190.708),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnext101_32x4d": (44_177_704, 7.970),
    "resnext101_64x4d": (83_455_272, 15.460),
    "mixer_base_patch16_224": (59_880_472, 12.602),
    "resmlp_small_24_224": (30_020_680, 5.961),
    "resmlp_base_24_224": (115_736_776, 23.021),
}
# Their published figures count what is no matrix product: see models/classifier_complexity.py.
COUNTED_OTHERWISE = ("resnext101_64x4d", "mixer_base_patch16_224")
# Fields that make each small; every kind of module is among them.
SMALL = {
    "deit_small_patch16_224": {"embed_dim": 12, "depth": 2},
    "resnet50": {"depths": (2, 1), "strides": (1, 2), "dilations": (1, 1), "width_per_group": 2},
    "mixer_base_patch16_224": {"embed_dim": 8, "depth": 2, "image_size": (32, 48)},
    "resmlp_small_24_224": {"embed_dim": 8, "depth": 2, "image_size": (32, 48), "layer_scale": 1.0},
}
IMAGES = np.random.RandomState(0).standard_normal((3, 32, 48, 3)).astype(np.float32)


def small(name: str, **fields: Any) -> tuple[registry.Classifier, dict]:
    """A small model of each kind with drawn parameters: what starts at zero would hide its branch."""
    model = registry.create_model(name, **({"num_classes": 5} | SMALL[name] | fields))
    variables = jax.jit(model.init)(jax.random.key(0), IMAGES)
    generator = np.random.RandomState(1)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.3 * generator.standard_normal(leaf.shape), leaf.dtype),
        variables["params"],
    )
    return model, {**variables, "params": params}


def test_the_table_is_complete():
    assert set(COUNTS) == set(registry.BASELINES) < set(registry.model_names())


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_multiply_accumulates(name: str):
    model, size = registry.create_model(name), registry.preprocessing(name).size
    picture = jax.ShapeDtypeStruct((1, *registry.picture_size(model), 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), picture)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == COUNTS[name][0]
    macs = classifier_macs(model, *size) / 1e9
    assert round(macs, 3) == COUNTS[name][1]
    published = registry.published(name).macs
    assert published is not None
    assert (abs(macs - published / 1e9) <= 0.05) == (name not in COUNTED_OTHERWISE)


@pytest.mark.parametrize(
    ("name", "size", "resize", "interpolation", "mean"),
    [
        ("deit_small_patch16_224", 224, 256, "bicubic", registry.IMAGENET_MEAN),
        ("deit_base_patch16_384", 384, 438, "bicubic", registry.IMAGENET_MEAN),
        ("vit_large_patch16_384", 384, (384, 384), "bilinear", registry.HALF),
        ("resnet101", 224, 256, "bilinear", registry.IMAGENET_MEAN),
        ("mixer_base_patch16_224", 224, 256, "bicubic", registry.HALF),
        ("resmlp_base_24_224", 224, 256, "bicubic", registry.IMAGENET_MEAN),
    ],
)
def test_preprocessing(name: str, size: int, resize: Any, interpolation: str, mean: Any):
    rule = registry.preprocessing(name)
    assert (rule.size, rule.resize, rule.interpolation) == ((size, size), resize, interpolation)
    assert rule.mean == mean


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", SMALL)
def test_logits_are_float32_whatever_is_computed_in(name: str, dtype: Any):
    model, variables = small(name, dtype=dtype)
    logits = jax.jit(model.apply)(variables, IMAGES)
    assert (logits.shape, logits.dtype) == ((3, 5), jnp.float32)
    exact = jax.jit(small(name)[0].apply)(variables, IMAGES)
    assert float(jnp.abs(logits - exact).max()) <= 0.05 * float(jnp.abs(exact).max())
    features = jax.eval_shape(small(name, num_classes=0)[0].apply, variables, IMAGES)
    assert features.shape == (3, variables["params"]["head"]["kernel"].shape[0])


@pytest.mark.parametrize("name", SMALL)
def test_drop_path_draws_in_training_alone(name: str):
    model, variables = small(name, drop_path_rate=0.5)

    def logits(train: bool, seed: int) -> np.ndarray:
        apply = jax.jit(model.apply, static_argnames=("train", "mutable"))
        rngs = {"dropout": jax.random.key(seed)}
        return np.asarray(apply(variables, IMAGES, train=train, rngs=rngs, mutable=("batch_stats",))[0])

    first = logits(True, 0)
    np.testing.assert_array_equal(first, logits(True, 0))
    assert any((logits(True, seed) != first).any() for seed in (1, 2, 3))
    np.testing.assert_array_equal(logits(False, 0), logits(False, 1))
    np.testing.assert_allclose(
        logits(False, 0), small(name)[0].apply(variables, IMAGES), rtol=1e-4, atol=1e-4
    )


def test_a_dropped_block_of_a_resnet_is_its_shortcut():
    """With a rate near one, the last block adds nothing; in frozen stages nothing is dropped."""
    rates = {"drop_path_rate": 1.0 - 1e-6, "norm_eval": True, "features_only": True}
    plain, variables = small("resnet50", norm_eval=True, features_only=True)
    rngs = {"dropout": jax.random.key(0)}
    model = small("resnet50", **rates)[0]
    maps = model.apply(variables, IMAGES, train=True, rngs=rngs)
    whole = plain.apply(variables, IMAGES, train=True)
    assert float(jnp.abs(maps[1] - whole[1]).max()) > 0.1
    frozen = small("resnet50", frozen_stages=2, **rates)[0].apply(variables, IMAGES, train=True, rngs=rngs)
    np.testing.assert_array_equal(frozen[1], whole[1])


def test_rates_of_drop_path_grow_in_a_mixer_and_are_one_in_a_resmlp():
    """In a single block a Mixer's rate is that of the first, 0."""
    rngs = {"dropout": jax.random.key(0)}
    mixer, variables = small("mixer_base_patch16_224", depth=1, drop_path_rate=0.9)
    apply = mixer.apply
    np.testing.assert_array_equal(
        apply(variables, IMAGES, train=True, rngs=rngs), apply(variables, IMAGES, train=False)
    )
    resmlp, variables = small("resmlp_small_24_224", depth=1, drop_path_rate=0.9)
    assert (resmlp.apply(variables, IMAGES, train=True, rngs=rngs) != resmlp.apply(variables, IMAGES)).any()


def test_layer_scale_is_where_a_resmlp_begins():
    for name, start in (("resmlp_small_24_224", 1e-5), ("resmlp_base_24_224", 1e-6)):
        model = registry.create_model(name, embed_dim=8, depth=1)
        block = model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)))["params"]["block0"]
        assert {float(block[scale][3]) for scale in ("layer_scale1", "layer_scale2")} == {
            float(np.float32(start))
        }


def test_layers_count_the_embedding_every_block_and_the_head():
    for model in (MlpMixer(depth=3), ResMlp(depth=3)):
        paths = (
            "patch_embed/proj/kernel",
            "block0/mlp/fc1/bias",
            "block2/norm1/bias",
            "norm/scale",
            "head/bias",
        )
        assert [model.layer_of(path) for path in paths] == [0, 1, 3, 4, 4]
        assert model.num_layers == 5
        assert not model.frozen("patch_embed/proj/kernel")


@pytest.mark.parametrize("name", ["mixer_base_patch16_224", "resmlp_small_24_224"])
def test_pictures_of_another_size_are_refused(name: str):
    model, variables = small(name)
    with pytest.raises(
        ValueError, match=r"takes pictures of its image_size \(32, 48\) alone, got \(48, 32\): make"
    ):
        model.apply(variables, IMAGES.swapaxes(1, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MlpMixer(token_mlp_ratio=0), "token_mlp_ratio must be a number above 0, got 0"),
        (lambda: MlpMixer(image_size=[224]), r"image_size must be \(height, width\), got \(224,\)"),
        (lambda: ResMlp(depth=0), "depth must be an integer of at least 1, got 0"),
        (lambda: ResMlp(layer_scale=0.0), "layer_scale must be a number above 0, got 0.0"),
        (lambda: ResMlp(drop_path_rate=1.0), "drop_path_rate must be a number of at least 0 and below 1"),
        (
            lambda: registry.create_model("resnet50", embed_dim=3),
            "model 'resnet50' has no field 'embed_dim'; did you mean",
        ),
        (
            lambda: registry.create_model("mixer_base_patch16_224", token_ratio=3),
            r"no field 'token_ratio'; did you mean 'token_mlp_ratio'\?",
        ),
        (
            lambda: registry.create_swin("resnet50", "this", window_size=8),
            r"this is for Swins alone, not for 'resnet50' \(ResNet\)",
        ),
    ],
)
def test_a_field_that_makes_no_sense_is_named(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_only_swins_match_fields_of_a_swin():
    assert registry.matching(embed_dim=96, depths=(2, 2, 6, 2), num_classes=21841) == (
        "swin_tiny_patch4_window7_224_22k",
        "swin_tiny_patch4_window12_384_22k",
    )
    assert not set(registry.matching(num_classes=1000)) & set(registry.BASELINES)
