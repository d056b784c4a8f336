"""ResNet and ViT (DeiT) files as our parameters and batch statistics: what segmenters on them begin with.

torchvision's and timm's names of ResNets, OpenMMLab's of those with a deep stem, timm's and DeiT's of ViTs.
"""

import re
from collections.abc import Mapping

import numpy as np

from swin_jax.weights.kinds import Shape
from swin_jax.weights.layouts import Layout, State, listed, read_state, rows

RESNET = Layout(
    "resnet",
    rows(
        ("stem/conv", "conv1", "convolution"),
        ("stem/bn", "bn1", "batch_norm"),
        # OpenMMLab's ResNetV1c: convolution, norm, ReLU three times in one list.
        ("stem{i}/conv", "stem.{3i}", "convolution"),
        ("stem{i}/bn", "stem.{3i+1}", "batch_norm"),
        ("stage{i}/block{j}/conv{k}/conv", "layer{i+1}.{j}.conv{k}", "convolution"),
        ("stage{i}/block{j}/conv{k}/bn", "layer{i+1}.{j}.bn{k}", "batch_norm"),
        ("stage{i}/block{j}/shortcut/conv", "layer{i+1}.{j}.downsample.0", "convolution"),
        ("stage{i}/block{j}/shortcut/bn", "layer{i+1}.{j}.downsample.1", "batch_norm"),
        ("head", "fc", "linear"),
    ),
    marks=(r"layer1\.0\.conv1\.weight",),
    anchor=r"layer1\.0\.conv1\.weight",
)
VIT = Layout(
    "vit",
    rows(
        ("patch_embed/proj", "patch_embed.proj", "convolution"),
        ("class_token", "cls_token", "table"),
        ("class_pos_embed", "class_pos_embed", "table"),
        ("absolute_pos_embed", "absolute_pos_embed", "position"),
        *(
            (
                f"block{{j}}/{name.replace('.', '/')}",
                f"blocks.{{j}}.{name}",
                "norm" if "norm" in name else "linear",
            )
            for name in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        ),
        ("norm", "norm", "norm"),
        ("head", "head", "linear"),
    ),
    marks=(r"blocks\.0\.attn\.qkv\.weight", r"cls_token$"),
    anchor=r"blocks\.0\.attn\.qkv\.weight",
)


def is_backbone(wanted: Mapping[str, Shape]) -> bool:
    """Whether these are the paths of a model that `fit_backbone` fits to."""
    return any(re.match(r"stage0/block0/conv1/|block0/attn/", path) for path in wanted)


def fit_backbone(
    state: State, source: str, wanted: Mapping[str, Shape]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The parameters and statistics of a classifier or backbone, and what was left out, a clause each.

    Args:
      state: name -> array, as in a file.
      source: for messages.
      wanted: our path -> shape of the parameters and batch statistics to be filled. Of those the neck of a ViT
        (`pyramid/`) and its head are in no such file.

    Raises:
      ValueError: it is of another model.
    """
    found = backbone_of_state(state, source, wanted)
    left = [name for name in found if name not in wanted]
    surplus = [name for name in left if not name.startswith(("head/", "norm/"))]
    problems = [f"surplus {name} {found[name].shape}" for name in surplus]
    problems += [
        f"missing {name} {shape}"
        for name, shape in wanted.items()
        if name not in found and not name.startswith("pyramid/")
    ]
    problems += [
        f"{name} is {value.shape}, expected {wanted[name]}"
        for name, value in found.items()
        if name in wanted and value.shape != tuple(wanted[name])
    ]
    if problems:
        raise ValueError(f"{source} does not fit the model: {listed(problems)}")
    notes = [f"dropped, as a backbone has none: {listed(left)}"] if left else []
    return {name: value for name, value in found.items() if name in wanted}, notes


def backbone_of_state(
    state: State, source: str, wanted: Mapping[str, Shape] | None = None
) -> dict[str, np.ndarray]:
    """A state dict in our paths, parameters and statistics together.

    Raises:
      ValueError: it is neither a ResNet with bottlenecks nor a ViT with a class token, or a name has no place.
    """
    layout, prefix = next(
        ((layout, prefix) for layout in (RESNET, VIT) if (prefix := layout.prefix_of(state)) is not None),
        (None, ""),
    )
    if layout is None:
        raise ValueError(f"{source} has the names of no ResNet and no ViT ({listed(state, most=4)})")
    if layout is VIT:
        state = _without_joined_positions(state, prefix, source)
    reading = read_state(state, layout, prefix, wanted)
    if reading.problems or reading.unknown:
        raise ValueError(f"{source} ({layout.name}): {listed([*reading.problems, *reading.unknown])}")
    return {path: np.asarray(value, np.float32) for path, value in reading.params.items()}


def _without_joined_positions(state: State, prefix: str, source: str) -> dict[str, np.ndarray]:
    """The first of a ViT's positions is its class token's: it becomes an array of its own."""
    kept = dict(state)
    joined = kept.pop(f"{prefix}pos_embed", None)
    if joined is None or joined.ndim != 3:
        raise ValueError(f"{source} has no pos_embed [1, tokens, channels]")
    token = kept[f"{prefix}cls_token"]
    kept[f"{prefix}cls_token"] = token.reshape(-1)
    kept[f"{prefix}class_pos_embed"] = joined[0, 0]
    kept[f"{prefix}absolute_pos_embed"] = joined[:, 1:]
    return kept
