"""PyTorch weights of dense models as our variables, by the tables of `swin_jax.weights`."""

import functools
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

AROUND = {"stem.proj": "patch_embed.proj", "blocks.": "block"}
MIXER = AROUND | {"mlp_tokens": "token_mlp", "mlp_channels": "channel_mlp"}
RESMLP = AROUND | {
    "mlp_channels": "mlp",
    "linear_tokens": "tokens",
    "ls1": "layer_scale1",
    "ls2": "layer_scale2",
    "norm1": "affine1",
    "norm2": "affine2",
    "alpha": "scale",
    "beta": "bias",
}


def backbone(state: State) -> Trees:
    """A ResNet of torchvision, or a ViT of timm."""
    return variables(backbone_of_state(single(state), "drawn"))


def all_mlp(state: State) -> Trees:
    """timm's MLP-Mixer or ResMLP: values, or gradients."""
    renamed = RESMLP if "norm.alpha" in state else MIXER
    found = {}
    for name, value in single(state).items():
        path = functools.reduce(lambda path, pair: path.replace(*pair), renamed.items(), name)
        kernel = path.endswith("weight") and value.ndim > 1
        path = path.replace("weight", "kernel" if kernel else "scale").replace(".", "/")
        found[path] = (
            (value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T) if kernel else value.reshape(-1)
        )
    return {"params": unflatten(found)}


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
