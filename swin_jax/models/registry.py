"""Published models by name: architecture, preprocessing and published figures."""

import dataclasses
from typing import Any

from swin_jax.models.checks import nearest
from swin_jax.models.swin import SwinTransformer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FREE_FORM = "swin"
"""A name for experiments: `SwinTransformer`'s defaults (those of Swin-T), everything by overrides."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How evaluation pictures are made, and what training normalises by.

    Attributes:
      size: (height, width) of the picture the model gets.
      resize: before the centre crop of `size`: the length of the shorter side, or (height, width) whatever
        the aspect; None resizes nothing.
      interpolation: of that resize.
      mean: subtracted per channel from RGB in [0, 1].
      std: divided by, per channel.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


@dataclasses.dataclass(frozen=True)
class Published:
    """Figures of the published model table, rounded as printed there; None where it has no such row."""

    params: float | None = None
    macs: float | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered model."""

    fields: dict[str, Any]
    preprocessing: Preprocessing
    published: Published


TINY = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
SMALL = {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)}
BASE = {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}
LARGE = {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)}
TINY_C24 = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (4, 8, 16, 32)}
"""24 channels per head; the baseline of the Swin-MLP comparison."""


def _preprocessing(size: int) -> Preprocessing:
    # Published: 384 squashes the whole picture, smaller sizes cut the centre of one resized to size * 256 /
    # 224.
    return Preprocessing((size, size), (size, size) if size == 384 else size * 256 // 224)


def _entry(shape: dict[str, Any], size: int, window: int, classes: int, *published: float) -> Entry:
    fields = {**shape, "window_size": window, "num_classes": classes}
    return Entry(fields, _preprocessing(size), Published(*published))


# Parameters and MACs as printed in the model table: Liu et al. (2021), table 1, and the released models.
REGISTRY: dict[str, Entry] = {
    "swin_tiny_patch4_window7_224": _entry(TINY, 224, 7, 1000, 28e6, 4.5e9),
    "swin_small_patch4_window7_224": _entry(SMALL, 224, 7, 1000, 50e6, 8.7e9),
    "swin_base_patch4_window7_224": _entry(BASE, 224, 7, 1000, 88e6, 15.4e9),
    "swin_large_patch4_window7_224": _entry(LARGE, 224, 7, 1000, 197e6, 34.5e9),
    "swin_tiny_patch4_window12_384": _entry(TINY, 384, 12, 1000),
    "swin_small_patch4_window12_384": _entry(SMALL, 384, 12, 1000),
    "swin_base_patch4_window12_384": _entry(BASE, 384, 12, 1000, 88e6, 47.1e9),
    "swin_large_patch4_window12_384": _entry(LARGE, 384, 12, 1000, 197e6, 103.9e9),
    "swin_tiny_c24_patch4_window8_256": _entry(TINY_C24, 256, 8, 1000, 28e6, 5.9e9),
    "swin_tiny_patch4_window7_224_22k": _entry(TINY, 224, 7, 21841),
    "swin_small_patch4_window7_224_22k": _entry(SMALL, 224, 7, 21841),
    "swin_base_patch4_window7_224_22k": _entry(BASE, 224, 7, 21841),
    "swin_large_patch4_window7_224_22k": _entry(LARGE, 224, 7, 21841),
    "swin_tiny_patch4_window12_384_22k": _entry(TINY, 384, 12, 21841),
    "swin_small_patch4_window12_384_22k": _entry(SMALL, 384, 12, 21841),
    "swin_base_patch4_window12_384_22k": _entry(BASE, 384, 12, 21841),
    "swin_large_patch4_window12_384_22k": _entry(LARGE, 384, 12, 21841),
}


def model_names() -> tuple[str, ...]:
    """Every registered model; `create_model` also takes the free-form "swin"."""
    return tuple(REGISTRY)


def matching(**fields: Any) -> tuple[str, ...]:
    """The published names whose models have these fields."""
    defaults = {field.name: field.default for field in dataclasses.fields(SwinTransformer)}
    return tuple(
        name
        for name, entry in REGISTRY.items()
        if all((defaults | entry.fields)[field] == value for field, value in fields.items())
    )


def create_model(name: str, **overrides: Any) -> SwinTransformer:
    """Makes the module of a published name.

    Args:
      name: one of `model_names()`, or "swin" for an architecture given by overrides.
      **overrides: fields of `SwinTransformer` that differ from the published model's.

    Raises:
      ValueError: if there is no model of that name or no such field (both naming the nearest), or if a value
        makes no sense.
    """
    fields = {**_lookup(name).fields, **overrides}
    known = _field_names()
    for field in overrides:
        if field not in known:
            raise ValueError(
                f"model {name!r} has no field {field!r}; did you mean {nearest(field, known)!r}?"
            )
    return SwinTransformer(**fields)


def preprocessing(name: str) -> Preprocessing:
    """The published evaluation preprocessing of a model. Raises ValueError as `create_model` does."""
    return _lookup(name).preprocessing


def published(name: str) -> Published:
    """The published figures of a model. Raises ValueError as `create_model` does."""
    return _lookup(name).published


def _lookup(name: str) -> Entry:
    if name == FREE_FORM:
        return Entry({}, _preprocessing(224), Published())
    if name not in REGISTRY:
        known = (*REGISTRY, FREE_FORM)
        meant = nearest(name, known)
        raise ValueError(f"no model is called {name!r}; did you mean {meant!r}? (swin_jax.summary lists all)")
    return REGISTRY[name]


def _field_names() -> tuple[str, ...]:
    every = (field.name for field in dataclasses.fields(SwinTransformer))
    return tuple(field for field in every if field not in ("parent", "name"))
