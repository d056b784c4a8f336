"""The comparison's classifiers trained, evaluated and loaded as Swins are; what only Swins can names them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swin_jax
from swin_jax import pretrained, summary, train
from swin_jax.attention_pictures import choose_attention
from swin_jax.config import Config
from swin_jax.origin import open_origin
from swin_jax.restore import open_run
from swin_jax.training.run_directory import read_metrics
from swin_jax.weights import flatten
from swin_jax.weights.backbones import RESNET, VIT
from swin_jax.weights.files import write_safetensors
from swin_jax.weights.layouts import write_state
from tests.runs.conftest import OVERRIDES

Micro = Callable[..., Config]
OF_A_SWIN = ("embed_dim", "depths", "num_heads", "window_size", "patch_size", "drop_path_rate")
FIELDS: dict[str, dict[str, Any]] = {
    "resnet50": {"depths": (1, 1), "strides": None, "drop_path_rate": 0.1},
    "deit_small_patch16_224": {"embed_dim": 12, "depth": 1, "patch_size": 4},
    "mixer_base_patch16_224": {"embed_dim": 8, "depth": 1, "patch_size": 4, "image_size": (16, 16)},
    "resmlp_small_24_224": {"embed_dim": 8, "depth": 2, "patch_size": 4, "image_size": (16, 16)},
}
