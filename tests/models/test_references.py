"""Numbers of three PyTorch implementations, stored: the official code, OpenMMLab's backbone and transformers.

`tests/goldens/official_classifier.npz` and `openmmlab_dense.npz` hold weights, inputs and outputs;
`transformers.npz` holds outputs alone (tests/parity/make_references.py writes it), weights and pictures are drawn.
"""

import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.registry import create_model
from swin_jax.weights import flatten
from tests.parity import drawn

GOLDENS = Path(__file__).parents[1] / "goldens"
FIELDS = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "window_size": 7}


@cache
def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDENS / f"{name}.npz") as file:
        return dict(file)


def close(ours, theirs, tolerance: float, scale: float | None = None) -> None:
    """Largest difference as a share of the reference's largest value (or of `scale`)."""
    assert np.shape(ours) == np.shape(theirs)
    scale = float(np.abs(theirs).max()) if scale is None else scale
    assert float(np.abs(np.asarray(ours) - theirs).max()) <= tolerance * scale


def official_weights(reference: dict[str, np.ndarray]) -> dict:
    return drawn.tree({name[6:]: value for name, value in reference.items() if name.startswith("state/")})


def nhwc(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32).transpose(0, 2, 3, 1)


def cross_entropy(model, params, images, labels):
    chosen = jax.nn.log_softmax(model.apply({"params": params}, images))
    return -jnp.take_along_axis(chosen, labels[:, None], axis=1).mean()


def test_the_official_classifier_gives_the_same_logits_loss_and_gradient_norms():
    reference = load("official_classifier")
    model = create_model("swin", num_classes=5, **FIELDS)
    params = official_weights(reference)
    images, labels = nhwc(reference["input_224"]), jnp.asarray(reference["labels"], jnp.int32)
    logits = jax.jit(lambda: model.apply({"params": params}, images))()
    close(logits, reference["out_224/logits"], 1e-5)
    loss, gradients = jax.jit(jax.value_and_grad(lambda p: cross_entropy(model, p, images, labels)))(params)
    close(loss, reference["loss"], 1e-5)
    norms = {name: np.linalg.norm(value) for name, value in flatten(gradients).items()}
    ones = {f"{name[10:]}": value for name, value in reference.items() if name.startswith("grad_norm/")}
    shaped = {name: np.full(reference[f"state/{name}"].shape, norm) for name, norm in ones.items()}
    for name, norm in flatten(drawn.tree(shaped)).items():
        close(norms[name], norm.flat[0], 1e-3)


@pytest.mark.parametrize("size", ["203x267", "224x224"])
def test_openmmlabs_backbone_gives_the_same_maps(size: str):
    reference = load("openmmlab_dense")
    model = create_model("swin", features_only=True, window_policy="dense", **FIELDS)
    params = official_weights(reference)
    maps = jax.jit(lambda x: model.apply({"params": params}, x))(nhwc(reference[f"input_{size}"]))
    assert len(maps) == 4
    for stage, ours in enumerate(maps):
        name = f"out_{size}/c{stage + 2}"
        if name in reference:
            close(drawn.grid(ours), nhwc(reference[name]), 1e-5)


def transformers_model(kind: str, **overrides):
    reference = load("transformers")
    meta = json.loads(str(reference["meta"]))
    if kind == "classifier":
        overrides |= {"num_classes": meta["classes"]}
    else:
        overrides |= {"features_only": True, "window_policy": "dense"}
    params = drawn.tree(drawn.weights(meta["shapes"][kind]))
    return create_model("swin", **meta["fields"], **overrides), params, reference, meta


@pytest.mark.parametrize("size", drawn.CLASSIFICATION_SIZES)
def test_transformers_classifier_gives_the_same_logits(size: tuple[int, int]):
    model, params, reference, _ = transformers_model("classifier")
    logits = jax.jit(model.apply)({"params": params}, drawn.pictures(*size))
    close(logits, reference["logits/{}x{}".format(*size)], 1e-4)


@pytest.mark.parametrize("size", drawn.DENSE_SIZES)
def test_transformers_backbone_gives_the_same_maps(size: tuple[int, int]):
    model, params, reference, _ = transformers_model("dense")
    maps = jax.jit(model.apply)({"params": params}, drawn.pictures(*size, batch=1))
    for stage, ours in enumerate(maps):
        close(drawn.grid(ours), reference["map/{}x{}/{}".format(*size, stage)], 1e-4)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["classifier", "dense"])
def test_transformers_gives_the_same_gradient_of_every_parameter(kind: str):
    model, params, reference, meta = transformers_model(kind)
    size = meta["gradient_size"][kind]

    def loss(params):
        if kind == "classifier":
            images = drawn.pictures(*size)
            return cross_entropy(
                model, params, images, jnp.asarray(drawn.labels(len(images), meta["classes"]))
            )
        maps = model.apply({"params": params}, drawn.pictures(*size, batch=1))
        return sum((value * drawn.cotangent(stage, value.shape)).mean() for stage, value in enumerate(maps))

    ours = flatten(jax.jit(jax.grad(loss))(params))
    prefix = f"gradient/{kind}/"
    theirs = {
        name.removeprefix(prefix): value for name, value in reference.items() if name.startswith(prefix)
    }
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
        close(drawn.sample(ours[path]), value[:-1], 1e-3, scale=float(value[-1]))
