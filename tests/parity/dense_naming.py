"""PyTorch weights of dense models as our variables, by the tables of `swin_jax.weights`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from swin_jax.weights import unflatten
from swin_jax.weights.backbones import backbone_of_state
from swin_jax.weights.composed import composed_of_state
from swin_jax.weights.layouts import Layout, read_state, rows

State = Mapping[str, np.ndarray]
Trees = dict[str, dict[str, Any]]

PYRAMID = Layout(
    "pyramid",
    rows(("up4_{i}", "up4_{i}", "convolution"), ("up8", "up8", "convolution"), ("bn", "bn", "batch_norm")),
    marks=(),
    anchor="",
)


def backbone(state: State) -> Trees:
    """A ResNet of torchvision, or a ViT of timm."""
    return variables(backbone_of_state(single(state), "drawn"))


def pyramid(state: State) -> Trees:
    """The neck of a ViT, but for the kernels of its transposed convolutions."""
    return variables(read_state(state, PYRAMID, "").params)


def upernet(state: State) -> Trees:
    """UperNet on Swin with the names of OpenMMLab or transformers, or its heads alone."""
    found = composed_of_state(single(state), "drawn")
    return {"params": unflatten(found.params), "batch_stats": unflatten(found.statistics)}


def single(state: State) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float32) for name, value in state.items()}


def variables(flat: State) -> Trees:
    """Parameters and running statistics apart."""
    statistics = {path: value for path, value in flat.items() if path.endswith(("/mean", "/var"))}
    params = {path: value for path, value in flat.items() if path not in statistics}
    return {"params": unflatten(params), "batch_stats": unflatten(statistics)}
