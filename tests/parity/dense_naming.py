"""PyTorch weights of dense models as our parameters and batch statistics, for tests.

Tables of (our module, their module); a module is a convolution or linear layer (`weight`, `bias`), a norm, or a
`ConvBatchNorm`. `{i}` and `{j}` are numbers that both sides share.
"""

import re
from collections.abc import Mapping

import numpy as np

from tests.parity.naming import Tree, from_official, from_transformers

State = Mapping[str, np.ndarray]
Table = tuple[tuple[str, str], ...]

UPERNET: Table = (
    *((f"decode_head/pool{scale}", f"decode_head.psp_modules.{i}.1") for i, scale in enumerate((1, 2, 3, 6))),
    ("decode_head/lateral{i}", "decode_head.lateral_convs.{i}"),
    ("decode_head/fpn{i}", "decode_head.fpn_convs.{i}"),
    ("decode_head/bottleneck", "decode_head.bottleneck"),
    ("decode_head/fuse", "decode_head.fpn_bottleneck"),
    ("decode_head/classifier", "decode_head.conv_seg"),
    ("auxiliary_head/conv{i}", "auxiliary_head.convs.{i}"),
    ("auxiliary_head/classifier", "auxiliary_head.conv_seg"),
)
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
OPENMMLAB_SWIN = (
    ("patch_embed.projection", "patch_embed.proj"),
    ("stages.", "layers."),
    (".attn.w_msa.", ".attn."),
    (".ffn.layers.0.0.", ".mlp.fc1."),
    (".ffn.layers.1.", ".mlp.fc2."),
)


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


def upernet_from_openmmlab(state: State) -> dict[str, Tree]:
    """UperNet on Swin with the names of OpenMMLab."""
    backbone, heads = _without_backbone(state)
    return _joined(from_openmmlab_swin(backbone) if backbone else None, heads)


def upernet_from_transformers(state: State) -> dict[str, Tree]:
    """UperNet on Swin with the names of transformers 5."""
    backbone, heads = _without_backbone(state)
    names = {name: name.replace("batch_norm", "bn").replace("classifier", "conv_seg") for name in heads}
    return _joined(from_transformers(backbone), {names[name]: value for name, value in heads.items()})


def from_openmmlab_swin(state: State) -> Tree:
    """OpenMMLab's own Swin, whose patch merging joins its quarters channel by channel."""
    official = {}
    for name, value in state.items():
        for theirs, ours in OPENMMLAB_SWIN:
            name = name.replace(theirs, ours)
        if ".downsample." in name:
            quarters = value.reshape(*value.shape[:-1], -1, 4).swapaxes(-1, -2)
            value = quarters[..., [0, 2, 1, 3], :].reshape(value.shape)
        official[name] = value
    return from_official(official)


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


def unflatten(flat: Mapping[str, np.ndarray]) -> Tree:
    """The tree of paths whose parts are joined by "/"."""
    tree: Tree = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def _without_backbone(state: State) -> tuple[State, State]:
    inside = {name: value for name, value in state.items() if name.startswith("backbone.")}
    heads = {name: value for name, value in state.items() if name not in inside}
    return {name.removeprefix("backbone."): value for name, value in inside.items()}, heads


def _joined(backbone: Tree | None, heads: State) -> dict[str, Tree]:
    variables = from_table(heads, UPERNET)
    if backbone is not None:
        variables["params"]["backbone"] = backbone
    return variables


def _place(name: str, table: Table) -> tuple[str, str]:
    module, leaf = name.rsplit(".", 1)
    for ours, theirs in table:
        pattern = re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(theirs))
        found = re.fullmatch(pattern + r"(?P<part>|\.conv|\.bn)", module)
        if found:
            numbers = {key: value for key, value in found.groupdict().items() if key != "part"}
            return ours.format(**numbers) + found["part"].replace(".", "/"), leaf
    raise KeyError(f"no place for {name}")


def _weight(value: np.ndarray) -> tuple[str, np.ndarray]:
    if value.ndim == 1:
        return "scale", value
    return "kernel", value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
