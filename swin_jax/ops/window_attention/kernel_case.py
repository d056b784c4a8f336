"""What all kernels of window attention share: the map they are given, and the cases that none of them computes."""

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from swin_jax.ops import windows

ABSENT = -1e30
"""The logit of a key that is not of the window: its weight is 0 exactly, and not NaN."""

log = logging.getLogger(__name__)


class MapGeometry(NamedTuple):
    """A map of whole windows, and how it is cut; `interpret` lets jax operations run the kernel, on any platform."""

    height: int
    width: int
    window: int
    shift: int
    heads: int
    scale: float
    interpret: bool

    @property
    def rows(self) -> int:
        """Of windows."""
        return self.height // self.window

    @property
    def columns(self) -> int:
        return self.width // self.window


Geometry = TypeVar("Geometry", bound=MapGeometry)


def on_whole_windows(
    geometry: type[Geometry],
    attend: Callable[[Geometry, Array, Array], Array],
    qkv: Float[Array, "batch height width channels3"],
    bias: Float[Array, "heads tokens tokens"],
    *,
    window: int,
    shift: int,
    pad_qkv: Float[Array, " channels3"],
    scale: float,
    interpret: bool = False,
    **_: Any,
) -> Float[Array, "batch height width channels"]:
    """`window_attention` by `attend(geometry, map, bias)`, which is given a map of whole windows and a float32 bias.

    The other arguments are those of `window_attention`, checked and not `unsupported`.
    """
    height, width = qkv.shape[1:3]
    filled = windows.pad_to_windows(qkv, window, pad_qkv)
    rows, columns = filled.shape[1:3]
    cut = geometry(rows, columns, window, shift, bias.shape[0], float(scale), interpret)
    return attend(cut, filled, bias.astype(jnp.float32))[:, :height, :width]


def unsupported(
    *,
    scale: float | Float[Array, " heads"],
    normalize_qk: bool,
    dropout_rate: float,
    dropout_key: Any,
    **_: Any,
) -> str:
    """Why no kernel computes this, in a sentence; "" where it is for the kernel to say."""
    if normalize_qk or isinstance(scale, Array):
        return "it has no cosine attention"
    if dropout_key is not None and dropout_rate > 0.0:
        return "it has no dropout of attention weights"
    return ""


@functools.cache
def say_once(message: str) -> None:
    """Logs that something runs without its kernel: once, and not in every block."""
    log.warning(message)
