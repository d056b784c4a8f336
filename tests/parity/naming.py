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
    tree: Tree = {}
    for name, value in state.items():
        path, value = _place(name, np.asarray(value, np.float32))
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


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


def flatten(tree: Mapping) -> dict[str, np.ndarray]:
    """The leaves of a tree by their path, parts joined by "/"."""
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{path}": leaf for path, leaf in flatten(value).items()}
        else:
            flat[name] = np.asarray(value)
    return flat


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
