"""PyTorch weights of dense models as our parameters and batch statistics, for tests.

Tables of (our module, their module); a module is a convolution or linear layer (`weight`, `bias`) or a norm. `{j}` is
a number that both sides share.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from swin_jax.weights import unflatten
from swin_jax.weights.upernet import upernet_of_state

State = Mapping[str, np.ndarray]
Tree = dict[str, Any]
Table = tuple[tuple[str, str], ...]

RESNET: Table = (
    ("stem/conv", "conv1"),
    ("stem/bn", "bn1"),
    # OpenMMLab's ResNetV1c: convolution, norm, ReLU three times in one list.
    *((f"stem{i}/conv", f"stem.{3 * i}") for i in range(3)),
    *((f"stem{i}/bn", f"stem.{3 * i + 1}") for i in range(3)),
    *(
        (f"stage{i}/block{{j}}/conv{k}/conv", f"layer{i + 1}.{{j}}.conv{k}")
        for i in range(4)
        for k in (1, 2, 3)
    ),
    *((f"stage{i}/block{{j}}/conv{k}/bn", f"layer{i + 1}.{{j}}.bn{k}") for i in range(4) for k in (1, 2, 3)),
    *((f"stage{i}/block{{j}}/shortcut/conv", f"layer{i + 1}.{{j}}.downsample.0") for i in range(4)),
    *((f"stage{i}/block{{j}}/shortcut/bn", f"layer{i + 1}.{{j}}.downsample.1") for i in range(4)),
    ("head", "fc"),
)
VIT: Table = (
    ("patch_embed/proj", "patch_embed.proj"),
    *((f"block{{j}}/{name.replace('.', '/')}", f"blocks.{{j}}.{name}") for name in (
        "norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2",
    )),
    ("norm", "norm"),
    ("head", "head"),
)  # fmt: skip


def from_table(state: State, table: Table) -> dict[str, Tree]:
    """`{"params": ..., "batch_stats": ...}` of a state dict.

    Raises:
      KeyError: a name has no place in the table.
    """
    flat: dict[str, dict[str, np.ndarray]] = {"params": {}, "batch_stats": {}}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        path, leaf = _place(name, table)
        value = np.asarray(value, np.float32)
        if leaf == "weight":
            leaf, value = _weight(value)
        running = leaf.removeprefix("running_")
        flat["params" if running == leaf else "batch_stats"][f"{path}/{running}"] = value
    return {collection: unflatten(values) for collection, values in flat.items()}


def upernet(state: State) -> dict[str, Tree]:
    """UperNet on Swin with the names of OpenMMLab or transformers, or its heads alone."""
    found = upernet_of_state({name: np.asarray(value, np.float32) for name, value in state.items()}, "drawn")
    return {collection: unflatten(values) for collection, values in found.items()}


def vit_from_timm(state: State) -> Tree:
    """A ViT with a class token; the first position is the token's."""
    rest = {name: value for name, value in state.items() if name not in ("cls_token", "pos_embed")}
    params = from_table(rest, VIT)["params"]
    position = np.asarray(state["pos_embed"])[0]
    side = int(np.sqrt(len(position) - 1))
    params["class_token"] = np.asarray(state["cls_token"])[0, 0]
    params["class_pos_embed"] = position[0]
    params["absolute_pos_embed"] = position[1:].reshape(side, side, -1)
    return params


def _place(name: str, table: Table) -> tuple[str, str]:
    module, leaf = name.rsplit(".", 1)
    for ours, theirs in table:
        pattern = re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(theirs))
        found = re.fullmatch(pattern, module)
        if found:
            return ours.format(**found.groupdict()), leaf
    raise KeyError(f"no place for {name}")


def _weight(value: np.ndarray) -> tuple[str, np.ndarray]:
    if value.ndim == 1:
        return "scale", value
    return "kernel", value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
