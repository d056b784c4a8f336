"""What transformers' Swin computes from drawn weights: logits, maps and gradients, in our layout."""

from typing import Any

import numpy as np
import torch

from swin_jax.weights.peers import import_peer
from tests.parity import drawn

transformers = import_peer("transformers")
transformers.logging.set_verbosity_error()
SwinBackbone, SwinConfig = transformers.SwinBackbone, transformers.SwinConfig
SwinForImageClassification = transformers.SwinForImageClassification
torch.manual_seed(0)


def classifier(size: tuple[int, int], **fields) -> torch.nn.Module:
    """A classifier whose rule for small maps follows `size`, as the published one's does."""
    return _drawn(SwinForImageClassification(SwinConfig(image_size=size, **fields)))


def backbone(**fields) -> torch.nn.Module:
    """A dense backbone that returns all four maps."""
    stages = [f"stage{index + 1}" for index in range(len(fields["depths"]))]
    return _drawn(SwinBackbone(SwinConfig(out_features=stages, drop_path_rate=0.0, **fields)))


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter; the backbone's unused final norm left out."""
    named = {name: tuple(value.shape) for name, value in model.named_parameters()}
    return {name: shape for name, shape in named.items() if not _unused(model, name)}


def logits(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Logits of pictures `[B, H, W, 3]`."""
    with torch.no_grad():
        return model(_nchw(images)).logits.numpy()


def maps(model: torch.nn.Module, images: np.ndarray) -> list[np.ndarray]:
    """The four maps `[B, h, w, C]`."""
    with torch.no_grad():
        return [value.permute(0, 2, 3, 1).numpy() for value in model(_nchw(images)).feature_maps]


def classifier_gradients(model: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Gradients of the mean cross-entropy."""
    predicted = model(_nchw(images)).logits
    return _gradients(model, torch.nn.functional.cross_entropy(predicted, torch.from_numpy(labels)))


def dense_gradients(model: torch.nn.Module, images: np.ndarray) -> dict[str, Any]:
    """Gradients of the summed means of the maps times their drawn cotangents."""
    outputs = [value.permute(0, 2, 3, 1) for value in model(_nchw(images)).feature_maps]
    factors = [drawn.cotangent(stage, tuple(value.shape)) for stage, value in enumerate(outputs)]
    terms = [
        (value * torch.from_numpy(factor)).mean() for value, factor in zip(outputs, factors, strict=True)
    ]
    return _gradients(model, torch.stack(terms).sum())


def _drawn(model: torch.nn.Module) -> torch.nn.Module:
    values = drawn.weights({name: tuple(value.shape) for name, value in model.named_parameters()})
    model.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)
    return model.eval()


def _gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, Any]:
    model.zero_grad()
    loss.backward()
    named = {name: value.grad for name, value in model.named_parameters() if not _unused(model, name)}
    return drawn.tree({name: gradient.numpy() for name, gradient in named.items()})


def _unused(model: torch.nn.Module, name: str) -> bool:
    return isinstance(model, SwinBackbone) and name.startswith("swin.layernorm.")


def _nchw(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
