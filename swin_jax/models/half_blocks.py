"""The halves of a Swin block as kernels: their parameters are those of the modules that would compute them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from swin_jax.models.attention import captures_attention
from swin_jax.models.token_mixing import WindowAttention, window_and_shift
from swin_jax.ops import windows
from swin_jax.ops.half_blocks import attention as attention_half
from swin_jax.ops.half_blocks import mlp as mlp_half
from swin_jax.ops.window_attention.kernel_case import say_once

INTERPRETED = {"pallas_tpu_blocks": False, "pallas_tpu_blocks_interpret": True}
"""Implementations of half blocks, and whether jax operations run the kernel."""

Map = Float[Array, "batch height width channels"]
Factor = Float[Array, " batch"] | None


class HalfBlocks(NamedTuple):
    """What a block may leave to kernels.

    Attributes:
      block: whose parameters these are.
      mixer: its window attention, or what stands in its place.
      hidden: channels of its MLP.
      train: whether dropout is on.
    """

    block: nn.Module
    mixer: nn.Module
    hidden: int
    train: bool

    def take_attention(self, x: Map) -> bool:
        """Whether the kernel computes the first half; where it was asked to and cannot, a logged sentence says why."""
        return self._asked() and _none(self._drops() or self._attention_obstacle(x))

    def take_mlp(self, x: Map) -> bool:
        """As `take_attention`, of the second half."""
        return self._asked() and _none(
            self._drops() or mlp_half.unsupported(x.shape[-1], self.hidden, x.dtype)
        )

    def attention(self, x: Map, factor: Factor) -> Map:
        mixer, channels = self._window_attention, x.shape[-1]
        window, shift = self._window_and_shift(x)
        norm, attn = self._params["norm1"], self._params["attn"]
        position = jnp.zeros((mixer.num_heads, window**2, window**2), jnp.float32)
        if mixer.relative_position:
            table = attn["relative_position_bias_table"]
            position = windows.relative_position_bias(table, window, mixer.window_size)
        weights = attention_half.Weights(
            norm["scale"],
            norm["bias"],
            attn["qkv"]["kernel"],
            attn["qkv"].get("bias", jnp.zeros(3 * channels)),
            attn["proj"]["kernel"],
            attn["proj"]["bias"],
            position,
        )
        return attention_half.attention_half_block(
            x,
            weights,
            _of_all(x, factor),
            window=window,
            shift=shift,
            scale=(channels // mixer.num_heads) ** -0.5 if mixer.appearance else 0.0,
            interpret=INTERPRETED[mixer.implementation],
        )

    def mlp(self, x: Map, factor: Factor) -> Map:
        norm, fc1, fc2 = self._params["norm2"], *(self._params["mlp"][name] for name in ("fc1", "fc2"))
        weights = mlp_half.Weights(
            norm["scale"], norm["bias"], fc1["kernel"], fc1["bias"], fc2["kernel"], fc2["bias"]
        )
        interpret = INTERPRETED[self._window_attention.implementation]
        return mlp_half.mlp_half_block(x, weights, _of_all(x, factor), interpret=interpret)

    def _asked(self) -> bool:
        """Not at initialisation, where the modules make their parameters, nor where attention is looked at."""
        asked = isinstance(self.mixer, WindowAttention) and self.mixer.implementation in INTERPRETED
        return asked and not self.block.is_initializing() and not captures_attention(self.block)

    def _drops(self) -> str:
        return "it has dropout" if self.train and self._window_attention.drop_rate > 0.0 else ""

    def _attention_obstacle(self, x: Map) -> str:
        mixer = self._window_attention
        window, shift = self._window_and_shift(x)
        if shift and mixer.shift == "padding":
            return "it shifts by padding"
        if self.train and mixer.attn_drop_rate > 0.0:
            return "attention weights are dropped"
        height, width, channels = x.shape[1:]
        sizes = {"window": window, "heads": mixer.num_heads, "dtype": x.dtype}
        return attention_half.unsupported(height, width, channels, **sizes)

    def _window_and_shift(self, x: Map) -> tuple[int, int]:
        mixer = self._window_attention
        shifted = mixer.shifted and mixer.shift != "none"
        return window_and_shift(x.shape[1], x.shape[2], mixer.window_size, shifted, mixer.window_policy)

    @property
    def _window_attention(self) -> WindowAttention:
        assert isinstance(self.mixer, WindowAttention)
        return self.mixer

    @property
    def _params(self) -> Mapping[str, Any]:
        return self.block.variables["params"]


def _of_all(x: Map, factor: Factor) -> Float[Array, " batch"]:
    return jnp.ones(x.shape[0], jnp.float32) if factor is None else factor


def _none(obstacle: str) -> bool:
    """Whether there is none; one is said, and the half is computed by its modules."""
    if obstacle:
        say_once(f"half of a block runs as several operations instead of one kernel: {obstacle}")
    return not obstacle
