"""Small models and drawn parameters, made without running a model."""

from functools import cache
from typing import Any

import numpy as np

from swin_jax.models.registry import create_model
from swin_jax.pretrained import init_shapes, shapes_of
from swin_jax.weights import Weights, sort_state, state_of

FIELDS = {"embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2), "window_size": 7}
CLASSES = 5
CLASSIFIER_LAYOUTS = ("official", "timm", "torchvision", "transformers", "transformers-5", "openmmlab")
DENSE_LAYOUTS = ("official-dense", "transformers", "transformers-5", "openmmlab")


def model(**overrides: Any) -> Any:
    return create_model("swin", **({"num_classes": CLASSES} | FIELDS | overrides))


@cache
def shapes(**overrides: Any) -> dict[str, tuple[int, ...]]:
    return shapes_of(init_shapes(model(**overrides)))


def params(seed: int = 0, **overrides: Any) -> dict[str, np.ndarray]:
    """Every parameter random, none at its first value."""
    generator = np.random.RandomState(seed)
    return {
        path: generator.standard_normal(shape).astype(np.float32)
        for path, shape in shapes(**overrides).items()
    }


def state(layout: str, **overrides: Any) -> dict[str, np.ndarray]:
    """A checkpoint of a layout, with the buffers that its owner keeps."""
    return state_of(params(**overrides), layout, image_size=(112, 112))


def weights(layout: str = "official", **overrides: Any) -> Weights:
    return sort_state(state(layout, **overrides), "file.pth")


def same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bool:
    """Whether two flat trees agree in every path and bit."""
    return ours.keys() == theirs.keys() and all(
        ours[path].shape == theirs[path].shape and ours[path].tobytes() == theirs[path].tobytes()
        for path in ours
    )
