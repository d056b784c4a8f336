"""The same weights in torchvision's ResNet, timm's DeiT, transformers' UperNet and in ours, live."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.necks import DeconvPyramid
from swin_jax.models.resnet import ResNet
from swin_jax.models.segmenters import create_segmenter
from swin_jax.models.vit import VisionTransformer
from swin_jax.ops.losses import segmentation_cross_entropy
from swin_jax.ops.resize import resize_bilinear
from swin_jax.weights import flatten
from tests.parity import drawn
from tests.parity.dense_naming import backbone, pyramid, upernet

try:
    from tests.parity import torch_dense
except ModuleNotFoundError as error:
    pytest.fail(f"live parity needs {error.name}: run `make parity`, which installs it", pytrace=False)

BACKBONE = {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8], "window_size": 7}
CLASSES, CHANNELS = 5, 32


def close(ours: Any, theirs: np.ndarray, tolerance: float) -> None:
    assert np.shape(ours) == np.shape(theirs)
    assert float(np.abs(np.asarray(ours) - theirs).max()) <= tolerance * float(np.abs(theirs).max())


@pytest.mark.parametrize(
    ("depths", "fields"), [((3, 4, 6, 3), {}), ((1, 2, 1, 1), {"groups": 4, "width_per_group": 8})]
)
def test_resnet(depths: tuple[int, ...], fields: dict):
    theirs = torch_dense.resnet(depths, num_classes=10, **fields)
    variables = backbone(torch_dense.state(theirs))
    images = drawn.pictures(97, 131, batch=1)
    logits = jax.jit(ResNet(depths, 10, **fields).apply)(variables, images)
    close(logits, torch_dense.outputs(theirs, images), 1e-4)
    maps = jax.jit(ResNet(depths, features_only=True, **fields).apply)(variables, images)
    for our_map, their_map in zip(maps, torch_dense.resnet_maps(theirs, images), strict=True):
        close(our_map, their_map, 1e-4)


def test_deit_small():
    theirs = torch_dense.deit(embed_dim=384, depth=12, num_heads=6, num_classes=10)
    images = drawn.pictures(224, 224, batch=1)
    variables = backbone(torch_dense.state(theirs))
    logits = jax.jit(VisionTransformer(num_classes=10).apply)(variables, images)
    close(logits, torch_dense.outputs(theirs, images), 1e-4)


def test_deconvolution_pyramid():
    theirs = torch_dense.deconv_pyramid(6)
    x = drawn.cotangent(0, (1, 6, 8, 6))
    state = torch_dense.state(theirs)
    deconvs = {name: value for name, value in state.items() if name.startswith("up") and value.ndim == 4}
    rest = {name: value for name, value in state.items() if name not in deconvs}
    variables = pyramid(rest)
    for name, value in deconvs.items():  # [inputs, outputs, 2, 2]
        variables["params"][name.split(".")[0]]["kernel"] = value.transpose(2, 3, 0, 1)
    maps = DeconvPyramid().apply(variables, jnp.asarray(x), False)
    for our_map, their_map in zip(maps, torch_dense.pyramid_maps(theirs, x), strict=True):
        close(our_map, their_map, 1e-5)


def segmenter(theirs: Any) -> tuple[Any, dict]:
    fields = {"channels": CHANNELS, "auxiliary_channels": CHANNELS, "head_drop_rate": 0.0}
    model = create_segmenter("upernet_swin_tiny", CLASSES, **fields, **BACKBONE)
    return model, upernet(torch_dense.state(theirs))


@pytest.mark.parametrize("size", [(512, 512), (203, 267)])
def test_logits_of_upernet(size: tuple[int, int]):
    theirs = torch_dense.upernet(channels=CHANNELS, classes=CLASSES, **BACKBONE)
    model, variables = segmenter(theirs)
    images = drawn.pictures(*size, batch=1)
    logits = jax.jit(lambda x: resize_bilinear(model.apply(variables, x)[0], size))(images)
    close(logits, torch_dense.upernet_logits(theirs, images), 1e-4)


def test_a_training_step_of_upernet():
    theirs = torch_dense.upernet(channels=CHANNELS, classes=CLASSES, **BACKBONE)
    model, variables = segmenter(theirs)
    images = drawn.pictures(97, 131)
    labels = np.random.RandomState(0).randint(0, CLASSES, (2, 97, 131))
    labels[:, :20] = torch_dense.IGNORE
    loss, gradients, statistics = torch_dense.upernet_training(theirs, images, labels)

    def total(params: dict) -> tuple[jax.Array, dict]:
        current = {"params": params, "batch_stats": variables["batch_stats"]}
        heads, state = model.apply(current, images, train=True, mutable=["batch_stats"])
        terms = []
        for logits in heads:
            resized = resize_bilinear(logits, labels.shape[1:])
            summed, count = segmentation_cross_entropy(resized, jnp.asarray(labels), avg_non_ignore=True)
            terms.append(summed / count)
        return terms[0] + 0.4 * terms[1], state["batch_stats"]

    (ours, moved), our_gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(variables["params"])
    np.testing.assert_allclose(ours, loss, rtol=1e-5)
    their_statistics = flatten(upernet(statistics)["batch_stats"])
    for path, value in flatten(moved).items():
        close(value, their_statistics[path], 1e-4)
    flat = flatten(our_gradients)
    theirs_flat = flatten(upernet(gradients)["params"])
    assert flat.keys() == theirs_flat.keys()
    largest = max(float(np.abs(value).max()) for value in theirs_flat.values())
    for path, value in theirs_flat.items():
        # What only shifts a channel before its batch norm has no gradient but rounding.
        assert float(np.abs(flat[path] - value).max()) <= 1e-3 * max(
            float(np.abs(value).max()), 1e-3 * largest
        )
