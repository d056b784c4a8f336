"""What a model's fields and inputs must be; each breach is one ValueError that names the field."""

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array

from swin_jax.ops.window_attention import implementation_names

if TYPE_CHECKING:
    from swin_jax.models.all_mlp import AllMlp
    from swin_jax.models.cascade import HybridTaskCascade
    from swin_jax.models.mask_rcnn import MaskRCNN
    from swin_jax.models.resnet import ResNet
    from swin_jax.models.swin import SwinTransformer
    from swin_jax.models.upernet import UperNet
    from swin_jax.models.vit import VisionTransformer

MIXERS = ("window", "sliding", "sliding_naive", "performer", "global", "mlp")
SHIFTS = ("cyclic", "padding", "none")
WINDOW_POLICIES = ("classification", "dense")


def nearest(name: str, known: Sequence[str]) -> str:
    """The known name most like `name`."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def check_choice(field: str, value: object, known: Sequence[str]) -> None:
    """Raises ValueError, suggesting the nearest, unless `value` is one of `known`."""
    if value not in known:
        meant = nearest(str(value), known)
        raise ValueError(f"{field} must be one of {', '.join(known)}, got {value!r}; did you mean {meant!r}?")


def check_ratio(field: str, value: object) -> None:
    """Raises ValueError unless `value` is a number above 0."""
    if not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{field} must be a number above 0, got {value!r}")


def check_images(images: Array | np.ndarray) -> None:
    """Raises ValueError unless `images` are float pictures `[B, H, W, 3]`."""
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise ValueError(
            f"images must be [batch, height, width, 3] with RGB channels last, got shape {images.shape}"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images must be normalised floats, got {images.dtype}: subtract the mean, divide by the std"
        )


def check_swin(model: "SwinTransformer", remat_policies: Sequence[str]) -> None:
    """Raises ValueError if a field of a `SwinTransformer` makes no sense or fields do not fit together."""
    for field, least in (("embed_dim", 1), ("window_size", 1), ("patch_size", 1), ("num_classes", 0)):
        _check_integer(field, getattr(model, field), least)
    for field in ("depths", "num_heads"):
        _check_integers(field, getattr(model, field), 1)
    _check_size("absolute_position_size", model.absolute_position_size)
    _check_stages(model)
    for field in ("drop_path_rate", "drop_rate", "attn_drop_rate"):
        _check_rate(field, getattr(model, field))
    check_ratio("mlp_ratio", model.mlp_ratio)
    for field in ("dtype", "param_dtype"):
        _check_float_type(field, getattr(model, field))
    check_choice("window_policy", model.window_policy, WINDOW_POLICIES)
    _check_mixer(model)
    if model.scan and (model.drop_rate or model.attn_drop_rate):
        raise ValueError(
            f"scan draws for drop path alone: with it drop_rate and attn_drop_rate must be 0, got "
            f"{model.drop_rate} and {model.attn_drop_rate}"
        )
    if model.remat is not None:
        check_choice("remat", model.remat, remat_policies)
    check_choice("implementation", model.implementation, implementation_names())


def _check_mixer(model: "SwinTransformer") -> None:
    check_choice("mixer", model.mixer, MIXERS)
    check_choice("shift", model.shift, SHIFTS)
    _check_integer("performer_features", model.performer_features, 0)
    if model.mixer.startswith("sliding") and model.window_size % 2 == 0:
        raise ValueError(f"mixer {model.mixer!r} needs an odd window_size, got {model.window_size}")
    if model.mixer == "mlp" and model.shift == "cyclic":
        raise ValueError("mixer 'mlp' shifts by padding: shift must be 'padding' or 'none', got 'cyclic'")
    if model.mixer != "window" and model.attn_drop_rate:
        raise ValueError(
            f"attn_drop_rate is of window attention, and must be 0 with mixer {model.mixer!r}, got "
            f"{model.attn_drop_rate}"
        )
    if not model.appearance and not (model.mixer == "window" and model.relative_position):
        raise ValueError(
            "appearance=False leaves attention its relative position alone: it needs mixer 'window' and "
            f"relative_position, got {model.mixer!r} and {model.relative_position}"
        )
    if model.scan and model.performer_redraw:
        raise ValueError("scan draws for drop path alone: with it performer_redraw must be False")


def check_resnet(model: "ResNet") -> None:
    """Raises ValueError if a field of a `ResNet` makes no sense or fields do not fit together."""
    _check_integer("num_classes", model.num_classes, 0)
    for field in ("groups", "width_per_group"):
        _check_integer(field, getattr(model, field), 1)
    for field in ("depths", "strides", "dilations"):
        _check_integers(field, getattr(model, field), 1)
        _check_one_per_stage(field, getattr(model, field), model.depths)
    _check_frozen_stages(model.frozen_stages, len(model.depths))
    _check_out_indices(model.out_indices, len(model.depths))
    _check_rate("drop_path_rate", model.drop_path_rate)
    for field in ("dtype", "param_dtype"):
        _check_float_type(field, getattr(model, field))


def check_vit(model: "VisionTransformer") -> None:
    """Raises ValueError if a field of a `VisionTransformer` makes no sense or fields do not fit together."""
    for field, least in (
        ("embed_dim", 1),
        ("depth", 1),
        ("num_heads", 1),
        ("patch_size", 1),
        ("num_classes", 0),
    ):
        _check_integer(field, getattr(model, field), least)
    if model.embed_dim % model.num_heads:
        raise ValueError(f"num_heads must divide the {model.embed_dim} channels, got {model.num_heads}")
    if model.features_only and model.patch_size != 16:
        raise ValueError(f"patch_size must be 16 for maps at strides 4 to 32, got {model.patch_size}")
    check_ratio("mlp_ratio", model.mlp_ratio)
    _check_rate("drop_path_rate", model.drop_path_rate)
    _check_size("absolute_position_size", model.absolute_position_size)
    for field in ("dtype", "param_dtype"):
        _check_float_type(field, getattr(model, field))


def check_all_mlp(model: "AllMlp") -> None:
    """Raises ValueError if a field of an MLP-Mixer or ResMLP makes no sense."""
    for field, least in (("embed_dim", 1), ("depth", 1), ("patch_size", 1), ("num_classes", 0)):
        _check_integer(field, getattr(model, field), least)
    check_ratio("mlp_ratio", model.mlp_ratio)
    _check_rate("drop_path_rate", model.drop_path_rate)
    _check_size("image_size", model.image_size)
    for field in ("dtype", "param_dtype"):
        _check_float_type(field, getattr(model, field))


def check_picture_size(model: str, size: Sequence[int], wanted: Sequence[int]) -> None:
    """Raises ValueError unless pictures have the only (height, width) that a model takes."""
    if tuple(size) != tuple(wanted):
        raise ValueError(
            f"{model} has a weight for each pair of patches and takes pictures of its image_size {tuple(wanted)} "
            f"alone, got {tuple(size)}: make it with image_size={tuple(size)}, or resize the pictures"
        )


def check_upernet(model: "UperNet") -> None:
    """Raises ValueError if a field of a `UperNet` makes no sense."""
    for field in ("num_classes", "channels", "auxiliary_channels", "auxiliary_convs"):
        _check_integer(field, getattr(model, field), 1)
    _check_integers("pool_scales", model.pool_scales, 1)
    if len(set(model.pool_scales)) < len(model.pool_scales):
        raise ValueError(f"pool_scales must differ from each other, got {model.pool_scales!r}")
    _check_integer("auxiliary_index", model.auxiliary_index, 0)
    if model.auxiliary_index > 3:
        raise ValueError(f"auxiliary_index must be 0 to 3, one of the four maps, got {model.auxiliary_index}")
    _check_rate("head_drop_rate", model.head_drop_rate)


def check_mask_rcnn(model: "MaskRCNN") -> None:
    """Raises ValueError if a field of a `MaskRCNN` makes no sense."""
    for field in ("num_classes", "channels", "fc_channels", "mask_channels", "anchors_per_cell"):
        _check_integer(field, getattr(model, field), 1)
    for field in ("mask_convs", "box_convs"):
        _check_integer(field, getattr(model, field), 0)


def check_htc(model: "HybridTaskCascade") -> None:
    """Raises ValueError if a field of a `HybridTaskCascade` that other cascades do not have makes no sense."""
    _check_integer("semantic_classes", model.semantic_classes, 1)
    if model.semantic_classes > 255:
        raise ValueError(f"semantic_classes must be at most 255, got {model.semantic_classes}")
    if model.with_masks and model.mask_channels != model.channels:
        raise ValueError(
            f"mask_channels must be the pyramid's {model.channels} channels, to which a mask head adds what the one "
            f"before it knows, got {model.mask_channels}"
        )


def _check_integer(field: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{field} must be an integer of at least {least}, got {value!r}")


def _check_integers(field: str, values: object, least: int) -> None:
    if not isinstance(values, tuple) or not values:
        raise ValueError(f"{field} must be a tuple of integers, got {values!r}")
    for index, value in enumerate(values):
        _check_integer(f"{field}[{index}]", value, least)


def _check_float_type(field: str, value: object) -> None:
    try:
        known = jnp.issubdtype(jnp.dtype(value), jnp.floating)  # type: ignore[arg-type]
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"{field} must be a floating point type, got {value!r}")


def _check_rate(field: str, value: object) -> None:
    if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise ValueError(f"{field} must be a number of at least 0 and below 1, got {value!r}")


def _check_stages(model: "SwinTransformer") -> None:
    _check_one_per_stage("num_heads", model.num_heads, model.depths)
    for index, heads in enumerate(model.num_heads):
        channels = model.embed_dim * 2**index
        if channels % heads:
            raise ValueError(
                f"num_heads[{index}] must divide the {channels} channels of stage {index}, got {heads}"
            )
    _check_frozen_stages(model.frozen_stages, len(model.depths) + 1)
    _check_out_indices(model.out_indices, len(model.depths))


def _check_one_per_stage(field: str, values: Sequence[int], depths: Sequence[int]) -> None:
    if len(values) != len(depths):
        raise ValueError(
            f"{field} must have one entry per stage: depths {tuple(depths)} has {len(depths)}, "
            f"{field} {tuple(values)} has {len(values)}"
        )


def _check_size(field: str, value: Sequence[int]) -> None:
    _check_integers(field, value, 1)
    if len(value) != 2:
        raise ValueError(f"{field} must be (height, width), got {value!r}")


def _check_frozen_stages(value: object, most: int) -> None:
    if not isinstance(value, int) or not -1 <= value <= most:
        raise ValueError(f"frozen_stages must be an integer from -1 to {most}, got {value!r}")


def _check_out_indices(indices: Sequence[int] | None, stages: int) -> None:
    if indices is None:
        return
    _check_integers("out_indices", indices, 0)
    if list(indices) != sorted(set(indices)) or max(indices) >= stages:
        raise ValueError(f"out_indices must be ascending stages below {stages}, got {tuple(indices)}")
