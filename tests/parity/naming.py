"""PyTorch weights of Swin V1 as our parameter tree, for tests: official names and those of transformers 5."""

import re
from collections.abc import Mapping

import numpy as np

Tree = dict[str, dict]

OFFICIAL = (
    (r"patch_embed\.(proj|norm)", r"patch_embed/\1"),
    (r"layers\.(\d+)\.blocks\.(\d+)\.(norm\d|attn\.qkv|attn\.proj|mlp\.fc\d)", r"stage\1/block\2/\3"),
    (r"layers\.(\d+)\.downsample\.(norm|reduction)", r"stage\1/downsample/\2"),
    (r"(norm\d?|head)", r"\1"),
)
OPENMMLAB_BACKBONE = (
    ("patch_embed.projection", "patch_embed.proj"),
    ("stages.", "layers."),
    (".attn.w_msa.", ".attn."),
    (".ffn.layers.0.0.", ".mlp.fc1."),
    (".ffn.layers.1.", ".mlp.fc2."),
)
UPERNET = (
    (r"decode_head\.psp_modules\.(\d)\.1", lambda found: f"decode_head/pool{(1, 2, 3, 6)[int(found[1])]}"),
    (r"decode_head\.lateral_convs\.(\d)", r"decode_head/lateral\1"),
    (r"decode_head\.fpn_convs\.(\d)", r"decode_head/fpn\1"),
    (r"decode_head\.bottleneck", r"decode_head/bottleneck"),
    (r"decode_head\.fpn_bottleneck", r"decode_head/fuse"),
    (r"auxiliary_head\.convs\.(\d)", r"auxiliary_head/conv\1"),
    (r"(decode_head|auxiliary_head)\.conv_seg", r"\1/classifier"),
)
LEAVES = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
TRANSFORMERS = (
    (r"(?:swin\.)?embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"(?:swin\.)?embeddings\.norm", "patch_embed.norm"),
    (r"(?:swin\.)?encoder\.layers", "layers"),
    (r"hidden_states_norms\.stage(\d+)", lambda found: f"norm{int(found[1]) - 1}"),
    (r"^swin\.layernorm", "norm"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\..*relative_position_bias_table", "attn.relative_position_bias_table"),
    (r"attention\.o_proj", "attn.proj"),
    (r"^classifier", "head"),
)


def from_official(state: Mapping[str, np.ndarray]) -> Tree:
    """Parameters from a state dict with the names of the official repositories."""
    return unflatten(dict(_place(name, np.asarray(value, np.float32)) for name, value in state.items()))


def from_transformers(state: Mapping[str, np.ndarray]) -> Tree:
    """Parameters from the state dict of a transformers 5 Swin model (q, k, v apart, buffers ignored)."""
    official: dict[str, np.ndarray] = {}
    separate: dict[str, dict[str, np.ndarray]] = {}
    for name, value in state.items():
        if name.endswith("relative_position_index"):
            continue
        for pattern, replacement in TRANSFORMERS:
            name = re.sub(pattern, replacement, name)
        found = re.fullmatch(r"(.*)\.attention\.([qkv])_proj\.(weight|bias)", name)
        if found:
            separate.setdefault(f"{found[1]}.attn.qkv.{found[3]}", {})[found[2]] = np.asarray(value)
        else:
            official[name] = np.asarray(value)
    joined = {name: np.concatenate([parts[key] for key in "qkv"]) for name, parts in separate.items()}
    return from_official({**official, **joined})


def from_openmmlab_upernet(state: Mapping[str, np.ndarray]) -> tuple[Tree, Tree]:
    """Parameters and batch statistics from the state dict of an OpenMMLab UperNet on Swin."""
    backbone, heads = {}, {"params": {}, "batch_stats": {}}
    for name, value in state.items():
        if name.startswith("backbone."):
            backbone[name.removeprefix("backbone.")] = value
        elif not name.endswith("num_batches_tracked"):
            path, value = _place_in_head(name, np.asarray(value, np.float32))
            collection = "batch_stats" if name.rsplit(".", 1)[1].startswith("running") else "params"
            heads[collection][path] = value
    params = unflatten(heads["params"])
    if backbone:
        params["backbone"] = from_openmmlab(backbone)
    return params, unflatten(heads["batch_stats"])


def from_openmmlab(state: Mapping[str, np.ndarray]) -> Tree:
    """Parameters of OpenMMLab's own Swin, whose patch merging joins its quarters channel by channel."""
    official = {}
    for name, value in state.items():
        for theirs, ours in OPENMMLAB_BACKBONE:
            name = name.replace(theirs, ours)
        if ".downsample." in name:
            value = np.asarray(value)
            channels = value.shape[-1] // 4
            quarters = value.reshape(*value.shape[:-1], channels, 4).swapaxes(-1, -2)
            value = quarters[..., [0, 2, 1, 3], :].reshape(value.shape)
        official[name] = value
    return from_official(official)


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


def flatten(tree: Mapping) -> dict[str, np.ndarray]:
    """The leaves of a tree by their path, parts joined by "/"."""
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{path}": leaf for path, leaf in flatten(value).items()}
        else:
            flat[name] = np.asarray(value)
    return flat


def _place_in_head(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    module, kind = name.rsplit(".", 1)
    for pattern, replacement in UPERNET:
        found = re.match(pattern, module)
        if found:
            path = found.expand(replacement) if isinstance(replacement, str) else replacement(found)
            path += module[found.end() :].replace(".", "/")
            break
    else:
        raise KeyError(f"no place for {name}")
    if kind == "weight":
        kind, value = ("scale", value) if value.ndim == 1 else ("kernel", value.transpose(2, 3, 1, 0))
    return f"{path}/{LEAVES.get(kind, kind)}", value


def _place(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    if name.endswith("relative_position_bias_table"):
        block = re.sub(r"layers\.(\d+)\.blocks\.(\d+)\.", r"stage\1/block\2/", name)
        return block.replace(".", "/"), value
    module, kind = name.rsplit(".", 1)
    for pattern, replacement in OFFICIAL:
        if re.fullmatch(pattern, module):
            path = re.sub(pattern, replacement, module).replace(".", "/")
            break
    else:
        raise KeyError(f"no place for {name}")
    if kind == "bias":
        return f"{path}/bias", value
    if value.ndim == 1:
        return f"{path}/scale", value
    return f"{path}/kernel", value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
