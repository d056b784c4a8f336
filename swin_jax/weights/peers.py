"""The other implementations as oracles: the same weights, loaded strictly by their own code, give which logits?

Everything here needs PyTorch and one of timm, torchvision, transformers; what is absent is said as `Unavailable`.
"""

import importlib
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from swin_jax.weights.architecture import Architecture
from swin_jax.weights.files import write_safetensors
from swin_jax.weights.layouts import listed

LIBRARIES = {
    "timm": "timm",
    "official": "timm",  # which loads files of the official code by its own filter
    "torchvision": "torchvision",
    "transformers": "transformers",
    "transformers-5": "transformers",
}
"""Layout -> the library that computes with it."""


class Unavailable(RuntimeError):
    """No implementation of a layout can be asked here; the message says why."""


def peer_logits(
    layout: str,
    state: Mapping[str, np.ndarray],
    model: Architecture,
    images: np.ndarray,
) -> tuple[np.ndarray, str]:
    """Logits [B, K] that the owner of a layout computes, and the name and version of its library.

    Args:
      layout: of the names in `state`.
      state: name -> array, loaded strictly.
      model: the classifier's architecture.
      images: normalised pictures [B, H, W, 3] of the size the classifier is made for.

    Raises:
      Unavailable: there is no importable implementation, or it cannot be made for these sizes.
      ValueError: it does not accept the names.
    """
    if layout not in LIBRARIES:
        raise Unavailable(f"no importable implementation uses the layout {layout!r}")
    if model.dense:
        raise Unavailable("a backbone has no logits to compare")
    library = import_peer(LIBRARIES[layout])
    peer = load_peer(layout, state, model, images.shape[1:3])
    return run_peer(peer, images), f"{library.__name__} {library.__version__}"


def import_peer(name: str) -> Any:
    """A library that computes with PyTorch. Raises Unavailable if it cannot be imported."""
    try:
        declare_torchvision_operators()
        return importlib.import_module(name)
    except Exception as error:  # a library beside a PyTorch it was not built for fails in its own ways
        raise Unavailable(f"{name} cannot be imported ({str(error).splitlines()[0]})") from error


@cache
def declare_torchvision_operators() -> Any:
    """Makes torchvision, and what imports it, importable beside a PyTorch its operators were not built for.

    Only the declarations are asked for at import; a call would fail. Without torchvision nothing is changed.
    """
    try:
        importlib.import_module("torchvision")
        return None
    except ModuleNotFoundError:
        return None
    except RuntimeError:  # "operator torchvision::nms does not exist"
        torch = importlib.import_module("torch")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        library.define(schema)
    return library  # declarations live as long as this object: the cache keeps it


def make_peer(layout: str, model: Architecture, size: tuple[int, int]) -> Any:
    """The PyTorch module of a classifier, in evaluation mode, at its own first values.

    Raises:
      Unavailable: the library cannot be imported, or has no such model.
    """
    library = import_peer(LIBRARIES[layout])
    fields = {
        "embed_dim": model.embed_dim,
        "depths": list(model.depths),
        "num_heads": list(model.num_heads),
        "mlp_ratio": model.mlp_ratio,
    }
    window, patch = model.window_size, model.patch_size
    if layout == "torchvision":
        if not (model.qkv_bias and model.patch_norm) or model.absolute_position_embedding:
            raise Unavailable("torchvision has no such model")
        made = library.models.swin_transformer.SwinTransformer(
            [patch, patch], window_size=[window, window], num_classes=model.num_classes, **fields
        )
    elif LIBRARIES[layout] == "timm":
        if model.absolute_position_embedding:
            raise Unavailable("timm has no absolute position embedding")
        made = library.models.SwinTransformer(
            img_size=size,
            patch_size=patch,
            window_size=window,
            num_classes=model.num_classes,
            qkv_bias=model.qkv_bias,
            **fields,
        )
    else:
        config = library.SwinConfig(**transformers_config(model, size))
        made = library.SwinForImageClassification(config)
    return made.eval()


def load_peer(
    layout: str, state: Mapping[str, np.ndarray], model: Architecture, size: tuple[int, int]
) -> Any:
    """The PyTorch module with the weights of `state`.

    Raises:
      Unavailable: as `make_peer`.
      ValueError: a strict load refuses the names or shapes.
    """
    if layout == "transformers":
        return _load_transformers(state, model, size)
    torch = importlib.import_module("torch")
    peer = make_peer(layout, model, size)
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    if layout == "official":
        filters = importlib.import_module("timm.models.swin_transformer")
        tensors = filters.checkpoint_filter_fn(tensors, peer)
    try:
        peer.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ValueError(
            f"{LIBRARIES[layout]} refuses the weights: {' '.join(str(error).split())[:500]}"
        ) from error
    return peer


def _load_transformers(state: Mapping[str, np.ndarray], model: Architecture, size: tuple[int, int]) -> Any:
    """By its own loader, which renames what files hold to what it has in memory."""
    library = import_peer("transformers")
    library.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as directory:
        library.SwinConfig(**transformers_config(model, size)).save_pretrained(directory)
        write_safetensors(Path(directory) / "model.safetensors", state, {"format": "pt"})
        peer, info = library.SwinForImageClassification.from_pretrained(directory, output_loading_info=True)
    wrong = {
        kind: names
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if (names := info[kind])
    }
    if wrong:
        told = "; ".join(
            f"{kind.replace('_', ' ')}: {listed(map(str, names))}" for kind, names in wrong.items()
        )
        raise ValueError(f"transformers refuses the weights: {told}")
    # Memory mapped from the file is not aligned as torch's own is, which changes the last bits of its products.
    for value in peer.parameters():
        value.data = value.data.clone()
    return peer.eval()


def run_peer(peer: Any, images: np.ndarray) -> np.ndarray:
    """Logits of a PyTorch classifier for pictures [B, H, W, 3]."""
    torch = importlib.import_module("torch")
    with torch.no_grad():
        out = peer(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
    return getattr(out, "logits", out).numpy()


def transformers_config(
    model: Architecture, size: tuple[int, int], class_names: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The fields of a transformers config for a classifier, as its config.json has them."""
    names = class_names or tuple(f"LABEL_{index}" for index in range(model.num_classes))
    return {
        "model_type": "swin",
        "architectures": ["SwinForImageClassification"],
        "image_size": size[0] if size[0] == size[1] else list(size),
        "patch_size": model.patch_size,
        "num_channels": 3,
        "embed_dim": model.embed_dim,
        "depths": list(model.depths),
        "num_heads": list(model.num_heads),
        "window_size": model.window_size,
        "mlp_ratio": model.mlp_ratio,
        "qkv_bias": model.qkv_bias,
        "use_absolute_embeddings": model.absolute_position_embedding,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }
