"""ResNet and ViT backbones: exact counts, what is frozen, batch norm that stands still, sizes that do not divide."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from swin_jax.models.resnet import ResNet
from swin_jax.models.vit import VisionTransformer


def count(model: nn.Module) -> int:
    picture = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), picture)["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("fields", "classifier", "backbone"),
    [
        ({}, 25_557_032, 23_508_032),
        ({"depths": (3, 4, 23, 3), "groups": 32, "width_per_group": 4}, 44_177_704, 42_128_704),
        ({"depths": (3, 4, 23, 3), "groups": 64, "width_per_group": 4}, 83_455_272, 81_406_272),
        # A stem of 3x3 convolutions: 28,768 parameters instead of 9,536.
        ({"deep_stem": True}, 25_576_264, 23_527_264),
    ],
)
def test_published_parameters_of_resnets(fields: dict, classifier: int, backbone: int):
    assert count(ResNet(**fields)) == classifier
    assert count(ResNet(features_only=True, **fields)) == backbone


@pytest.mark.parametrize(
    ("fields", "published"), [({}, 22_050_664), ({"embed_dim": 768, "num_heads": 12}, 86_567_656)]
)
def test_published_parameters_of_vits(fields: dict, published: int):
    assert count(VisionTransformer(**fields)) == published


def micro(**fields: Any) -> tuple[ResNet, dict]:
    model = ResNet(depths=(1, 1, 1, 1), features_only=True, groups=2, width_per_group=4, **fields)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    generator = np.random.RandomState(0)

    def draw(leaf):
        value = jnp.asarray(generator.standard_normal(leaf.shape), jnp.float32)
        return value / np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim == 4 else 0.5 + jnp.abs(value)

    return model, jax.tree.map(draw, shapes)


def train(model: ResNet, variables: dict) -> tuple[dict, dict]:
    """Gradients of a scalar of the maps, and the running statistics, of a training step."""
    images = jnp.asarray(np.random.RandomState(1).standard_normal((2, 33, 47, 3)), jnp.float32)

    def loss(params):
        current = {"params": params, "batch_stats": variables["batch_stats"]}
        maps, state = model.apply(current, images, train=True, mutable=["batch_stats"])
        return sum(jnp.mean(value**2) for value in maps), state["batch_stats"]

    return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])


def same(first: Any, second: Any) -> bool:
    return all(bool(jnp.all(a == b)) for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True))


def test_frozen_stages_have_no_gradient_and_keep_their_statistics():
    model, variables = micro(frozen_stages=2)
    gradients, statistics = train(model, variables)
    for part, tree in gradients.items():
        frozen = part in ("stem", "stage0", "stage1")
        assert model.frozen(f"{part}/any/kernel") == frozen
        assert all(bool(jnp.any(leaf != 0.0)) != frozen for leaf in jax.tree.leaves(tree)), part
        assert same(statistics[part], variables["batch_stats"][part]) == frozen


def test_norm_eval_trains_scales_by_standing_statistics():
    model, variables = micro(norm_eval=True)
    gradients, statistics = train(model, variables)
    assert same(statistics, variables["batch_stats"])
    assert bool(jnp.any(gradients["stem"]["bn"]["scale"] != 0.0))


def test_strides_and_dilations_keep_the_size_of_the_last_maps():
    model, variables = micro(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    maps = jax.eval_shape(model.apply, variables, jnp.zeros((1, 65, 97, 3)))
    assert [value.shape[1:] for value in maps] == [
        (17, 25, 256),
        (9, 13, 512),
        (9, 13, 1024),
        (9, 13, 2048),
    ]


def test_layers_count_the_stem_every_block_and_the_head():
    model = ResNet()
    assert model.num_layers == 18
    assert [model.layer_of(path) for path in ("stem/conv/kernel", "stage1/block2/conv1/bn/bias")] == [0, 6]
    assert model.layer_of("head/kernel") == 17


def test_a_vits_maps_leave_out_what_fills_the_last_patches():
    model = VisionTransformer(embed_dim=8, depth=1, num_heads=2, features_only=True)
    images = jnp.zeros((1, 61, 78, 3))
    maps = jax.eval_shape(lambda key: model.init_with_output(key, images)[0], jax.random.key(0))
    assert [value.shape for value in maps] == [(1, 16, 20, 8), (1, 8, 10, 8), (1, 4, 5, 8), (1, 2, 3, 8)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet(depths=(1, 1), dilations=(1,)), "strides must have one entry per stage"),
        (lambda: ResNet(frozen_stages=5), "frozen_stages must be an integer from -1 to 4, got 5"),
        (lambda: ResNet(groups=0), "groups must be an integer of at least 1, got 0"),
        (lambda: VisionTransformer(num_heads=5), "num_heads must divide the 384 channels, got 5"),
        (lambda: VisionTransformer(patch_size=14, features_only=True), "patch_size must be 16 for maps"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()
