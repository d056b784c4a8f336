"""Published models by name: architecture, preprocessing and published figures."""

import dataclasses
from typing import Any, TypeAlias, cast

from swin_jax.models.checks import nearest
from swin_jax.models.mixer import MlpMixer
from swin_jax.models.resmlp import ResMlp
from swin_jax.models.resnet import ResNet
from swin_jax.models.swin import SwinTransformer
from swin_jax.models.vit import VisionTransformer

Classifier: TypeAlias = SwinTransformer | VisionTransformer | ResNet | MlpMixer | ResMlp

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
"""Mean and std of pixels from -1 to 1, which ViT and MLP-Mixer are published with."""
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
    """One registered model: fields of `module` that differ from its defaults, pictures, figures."""

    fields: dict[str, Any]
    preprocessing: Preprocessing
    published: Published
    module: type[Classifier] = SwinTransformer


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


def _mlp_entry(
    shape: dict[str, Any], heads: tuple[int, ...], size: int, window: int, *published: float
) -> Entry:
    """Swin-MLP."""
    return _entry(
        {**shape, "num_heads": heads, "mixer": "mlp", "shift": "padding"}, size, window, 1000, *published
    )


def _deit(width: int, size: int, *published: float) -> Entry:
    fields = {"embed_dim": width, "num_heads": width // 64, "absolute_position_size": (size, size)}
    pictures = Preprocessing((size, size), size * 256 // 224)
    return Entry(fields, pictures, Published(*published), VisionTransformer)


def _vit(width: int, depth: int, *published: float) -> Entry:
    entry = _deit(width, 384, *published)
    pictures = Preprocessing((384, 384), (384, 384), "bilinear", HALF, HALF)
    return dataclasses.replace(entry, fields=entry.fields | {"depth": depth}, preprocessing=pictures)


def _resnet(blocks: int, groups: int, width: int, *published: float) -> Entry:
    fields = {"depths": (3, 4, blocks, 3), "groups": groups, "width_per_group": width}
    return Entry(fields, Preprocessing((224, 224), 256, "bilinear"), Published(*published), ResNet)


MIXER_BASE = {"embed_dim": 768, "depth": 12}
RESMLP_SMALL = {"embed_dim": 384, "depth": 24, "layer_scale": 1e-5}
RESMLP_BASE = {"embed_dim": 768, "depth": 24, "layer_scale": 1e-6}
"""With patches of 16, as in the paper's table; the weights that ResMLP's authors released have patches of 8."""
MIXER_PICTURES = Preprocessing((224, 224), 256, "bicubic", HALF, HALF)

# Parameters and MACs as printed: Liu et al. (2021), table 1 (DeiT, ViT) and table 10 (Mixer, ResMLP); of ResNets and
# ResNeXts as commonly, by their present implementations. 307 M of ViT-L are ViT's own table's; with 1000 classes it has
# 304.7 M.
BASELINES: dict[str, Entry] = {
    "deit_small_patch16_224": _deit(384, 224, 22e6, 4.6e9),
    "deit_base_patch16_224": _deit(768, 224, 86e6, 17.5e9),
    "deit_base_patch16_384": _deit(768, 384, 86e6, 55.4e9),
    "vit_base_patch16_384": _vit(768, 12, 86e6, 55.4e9),
    "vit_large_patch16_384": _vit(1024, 24, 307e6, 190.7e9),
    "resnet50": _resnet(6, 1, 64, 25.6e6, 4.1e9),
    "resnet101": _resnet(23, 1, 64, 44.5e6, 7.8e9),
    "resnext101_32x4d": _resnet(23, 32, 4, 44.2e6, 8.0e9),
    "resnext101_64x4d": _resnet(23, 64, 4, 83.5e6, 15.6e9),
    "mixer_base_patch16_224": Entry(MIXER_BASE, MIXER_PICTURES, Published(59e6, 12.7e9), MlpMixer),
    "resmlp_small_24_224": Entry(RESMLP_SMALL, _preprocessing(224), Published(30e6, 6.0e9), ResMlp),
    "resmlp_base_24_224": Entry(RESMLP_BASE, _preprocessing(224), Published(116e6, 23.0e9), ResMlp),
}

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
    "swin_mlp_tiny_c24_patch4_window8_256": _mlp_entry(TINY, (4, 8, 16, 32), 256, 8, 20e6, 4.0e9),
    "swin_mlp_tiny_c12_patch4_window8_256": _mlp_entry(TINY, (8, 16, 32, 64), 256, 8, 21e6, 4.0e9),
    "swin_mlp_tiny_c6_patch4_window8_256": _mlp_entry(TINY, (16, 32, 64, 128), 256, 8, 23e6, 4.0e9),
    # 32 channels a head, though table 10 of the paper calls it D24.
    "swin_mlp_base_patch4_window7_224": _mlp_entry(BASE, (4, 8, 16, 32), 224, 7, 61e6, 10.4e9),
    "swin_tiny_patch4_window7_224_22k": _entry(TINY, 224, 7, 21841),
    "swin_small_patch4_window7_224_22k": _entry(SMALL, 224, 7, 21841),
    "swin_base_patch4_window7_224_22k": _entry(BASE, 224, 7, 21841),
    "swin_large_patch4_window7_224_22k": _entry(LARGE, 224, 7, 21841),
    "swin_tiny_patch4_window12_384_22k": _entry(TINY, 384, 12, 21841),
    "swin_small_patch4_window12_384_22k": _entry(SMALL, 384, 12, 21841),
    "swin_base_patch4_window12_384_22k": _entry(BASE, 384, 12, 21841),
    "swin_large_patch4_window12_384_22k": _entry(LARGE, 384, 12, 21841),
    **BASELINES,
}


def model_names() -> tuple[str, ...]:
    """Every registered model; `create_model` also takes the free-form "swin"."""
    return tuple(REGISTRY)


def matching(**fields: Any) -> tuple[str, ...]:
    """The published names of the Swins that have these fields."""
    defaults = {field.name: field.default for field in dataclasses.fields(SwinTransformer)}
    return tuple(
        name
        for name, entry in REGISTRY.items()
        if entry.module is SwinTransformer
        and all((defaults | entry.fields)[field] == value for field, value in fields.items())
    )


def create_model(name: str, **overrides: Any) -> Classifier:
    """Makes the module of a published name.

    Args:
      name: one of `model_names()`, or "swin" for a `SwinTransformer` given by overrides.
      **overrides: fields of the module that differ from the published model's.

    Raises:
      ValueError: if there is no model of that name or no such field (both naming the nearest), or if a value
        makes no sense.
    """
    entry = _lookup(name)
    known = _field_names(entry.module)
    for field in overrides:
        if field not in known:
            raise ValueError(
                f"model {name!r} has no field {field!r}; did you mean {nearest(field, known)!r}?"
            )
    return entry.module(**entry.fields | overrides)


def create_swin(name: str, use: str, **overrides: Any) -> SwinTransformer:
    """As `create_model`, where a Swin is needed.

    Raises:
      ValueError: as `create_model`, or if the model is another, naming it and what it cannot do: `use`.
    """
    module = _lookup(name).module
    if not issubclass(module, SwinTransformer):
        raise ValueError(f"{use} is for Swins alone, not for {name!r} ({module.__name__})")
    return cast(SwinTransformer, create_model(name, **overrides))


def picture_size(model: Classifier) -> tuple[int, int]:
    """Height and width of a small picture that the model can be initialised on: its parameters do not depend on it."""
    if isinstance(model, MlpMixer | ResMlp):
        height, width = model.image_size  # these take no other
        return height, width
    return (64, 64) if isinstance(model, ResNet) else (8 * model.patch_size, 8 * model.patch_size)


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


def _field_names(module: type[Classifier]) -> tuple[str, ...]:
    every = (field.name for field in dataclasses.fields(module))
    return tuple(field for field in every if field not in ("parent", "name"))
