"""The same weights in timm's DeiT, ResNet, ResNeXt, MLP-Mixer and ResMLP and in ours, live; and their exact counts."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.measure.torch_peer import timm_name
from swin_jax.models import registry
from swin_jax.weights import flatten
from tests.parity import drawn
from tests.parity.dense_naming import all_mlp, backbone

try:
    from tests.parity import torch_dense
except ModuleNotFoundError as error:
    pytest.fail(f"live parity needs {error.name}: run `make parity`, which installs it", pytrace=False)

CLASSES, SIZE = 10, (96, 160)
# Our fields, and timm's.
ALL_MLP = {
    "mixer_base_patch16_224": (
        {"embed_dim": 48, "depth": 3, "image_size": SIZE},
        {"embed_dim": 48, "num_blocks": 3, "residual": False},
    ),
    "resmlp_small_24_224": (
        {"embed_dim": 48, "depth": 4, "image_size": SIZE},
        {"embed_dim": 48, "num_blocks": 4, "residual": True},
    ),
}


def close(ours: Any, theirs: np.ndarray, tolerance: float) -> None:
    assert np.shape(ours) == np.shape(theirs)
    assert float(np.abs(np.asarray(ours) - theirs).max()) <= tolerance * float(np.abs(theirs).max())


@pytest.mark.parametrize("name", registry.BASELINES)
def test_parameters_are_as_many_as_timms(name: str):
    # timm names that model with patches of 8 alone.
    fields = {"embed_dim": 768, "num_blocks": 24} if name == "resmlp_base_24_224" else {}
    model = registry.create_model(name)
    picture = jax.ShapeDtypeStruct((1, *registry.picture_size(model), 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), picture)["params"]
    ours = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert ours == torch_dense.parameters_of(timm_name(name), **fields)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("deit_base_patch16_384", {"embed_dim": 96, "depth": 3, "num_heads": 3}),
        ("vit_large_patch16_384", {"embed_dim": 64, "depth": 4, "num_heads": 4}),
    ],
)
def test_deit_and_vit_at_384(name: str, fields: dict):
    model = torch_dense.timm_model(name, num_classes=CLASSES, **fields)
    images = drawn.pictures(384, 384, batch=1)
    ours = registry.create_model(name, num_classes=CLASSES, **fields)
    logits = jax.jit(ours.apply)(backbone(torch_dense.state(model)), images)
    close(logits, torch_dense.outputs(model, images), 1e-4)


@pytest.mark.parametrize(
    ("name", "depths"),
    [("resnet50", (3, 4, 6, 3)), ("resnext101_32x4d", (2, 2, 3, 1)), ("resnext101_64x4d", (1,) * 4)],
)
def test_resnet_and_resnext(name: str, depths: tuple[int, ...]):
    theirs = torch_dense.timm_model(name, num_classes=CLASSES, layers=list(depths))
    ours = registry.create_model(name, num_classes=CLASSES, depths=depths)
    images = drawn.pictures(*SIZE, batch=1)
    logits = jax.jit(ours.apply)(backbone(torch_dense.state(theirs)), images)
    close(logits, torch_dense.outputs(theirs, images), 1e-4)


@pytest.mark.parametrize("name", ALL_MLP)
def test_logits_and_gradients_of_mixer_and_resmlp(name: str):
    fields, their_fields = ALL_MLP[name]
    theirs = torch_dense.all_mlp(img_size=SIZE, num_classes=CLASSES, **their_fields)
    ours = registry.create_model(name, num_classes=CLASSES, **fields)
    images, labels = drawn.pictures(*SIZE), drawn.labels(2, CLASSES)

    def loss(variables: dict) -> tuple[jax.Array, jax.Array]:
        logits = ours.apply(variables, images)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(labels)[:, None], axis=1)
        return -chosen.mean(), logits

    gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(all_mlp(torch_dense.state(theirs)))
    close(logits, torch_dense.outputs(theirs, images), 1e-4)
    found = flatten(gradients)
    expected = flatten(all_mlp(torch_dense.classifier_gradients(theirs, images, labels)))
    assert found.keys() == expected.keys()
    largest = max(float(np.abs(value).max()) for value in expected.values())
    for path, value in expected.items():
        # What shifts all channels of a token before its norm has no gradient but rounding.
        scale = max(float(np.abs(value).max()), 1e-3 * largest)
        assert float(np.abs(found[path] - value).max()) <= 1e-3 * scale, path


def test_a_whole_resmlp():
    theirs = torch_dense.timm_model("resmlp_24_224", num_classes=CLASSES)
    ours = registry.create_model("resmlp_small_24_224", num_classes=CLASSES)
    images = drawn.pictures(224, 224, batch=1)
    logits = jax.jit(ours.apply)(all_mlp(torch_dense.state(theirs)), images)
    close(logits, torch_dense.outputs(theirs, images), 1e-4)
