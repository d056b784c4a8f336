"""The same weights in transformers' Swin and in ours, live: logits, maps, gradients, at every kind of size.

Reading on small maps: `SwinForImageClassification` is told the image size, as the published classifier is;
`SwinBackbone` always shifts, as the published dense code does.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.registry import create_model
from swin_jax.weights import flatten
from tests.parity import drawn

try:
    from tests.parity import torch_swin
except ModuleNotFoundError as error:
    pytest.fail(f"live parity needs {error.name}: run `make parity`, which installs it", pytrace=False)

TINY = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
NARROW = {"embed_dim": 32, "depths": [2, 2, 3, 2], "num_heads": [1, 2, 4, 8], "window_size": 7}
CLASSES = 10


def close(ours: Any, theirs: np.ndarray, tolerance: float) -> None:
    assert np.shape(ours) == np.shape(theirs)
    assert float(np.abs(np.asarray(ours) - theirs).max()) <= tolerance * float(np.abs(theirs).max())


def parameters(model: Any) -> dict:
    return drawn.tree(drawn.weights(torch_swin.shapes(model)))


@pytest.mark.parametrize("size", drawn.CLASSIFICATION_SIZES)
def test_logits_of_the_classification_policy(size: tuple[int, int]):
    theirs = torch_swin.classifier(size, num_labels=CLASSES, **TINY)
    ours = create_model("swin_tiny_patch4_window7_224", num_classes=CLASSES)
    images = drawn.pictures(*size, batch=1)
    logits = jax.jit(ours.apply)({"params": parameters(theirs)}, images)
    close(logits, torch_swin.logits(theirs, images), 1e-4)


@pytest.mark.parametrize("size", drawn.DENSE_SIZES)
def test_maps_of_the_dense_policy(size: tuple[int, int]):
    theirs = torch_swin.backbone(**TINY)
    ours = create_model("swin_tiny_patch4_window7_224", window_policy="dense", features_only=True)
    images = drawn.pictures(*size, batch=1)
    maps = jax.jit(ours.apply)({"params": parameters(theirs)}, images)
    for our_map, their_map in zip(maps, torch_swin.maps(theirs, images), strict=True):
        close(our_map, their_map, 1e-4)


@pytest.mark.parametrize("size", [(224, 224), (200, 264)])
def test_gradients_of_the_classifier(size: tuple[int, int]):
    theirs = torch_swin.classifier(size, num_labels=CLASSES, **NARROW)
    model = create_model("swin", num_classes=CLASSES, **NARROW)
    images = drawn.pictures(*size)
    labels = drawn.labels(len(images), CLASSES)

    def loss(params: dict) -> jax.Array:
        chosen = jax.nn.log_softmax(model.apply({"params": params}, images))
        return -jnp.take_along_axis(chosen, jnp.asarray(labels)[:, None], axis=1).mean()

    ours = flatten(jax.jit(jax.grad(loss))(parameters(theirs)))
    compare_gradients(ours, flatten(torch_swin.classifier_gradients(theirs, images, labels)))


@pytest.mark.parametrize("size", [(224, 224), (97, 131)])
def test_gradients_of_the_dense_backbone(size: tuple[int, int]):
    theirs = torch_swin.backbone(**NARROW)
    model = create_model("swin", window_policy="dense", features_only=True, **NARROW)
    images = drawn.pictures(*size, batch=1)

    def loss(params: dict) -> jax.Array:
        maps = model.apply({"params": params}, images)
        return sum((value * drawn.cotangent(stage, value.shape)).mean() for stage, value in enumerate(maps))

    ours = flatten(jax.jit(jax.grad(loss))(parameters(theirs)))
    compare_gradients(ours, flatten(torch_swin.dense_gradients(theirs, images)))


def compare_gradients(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    # The key's bias has no gradient in theory; it is a third of the qkv bias, whose largest entry is the scale.
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
        close(ours[path], value, 1e-3)
