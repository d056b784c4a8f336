"""What the tokens of a block exchange information by: window attention, and what the paper compares it with.

Parameter paths below a block's `attn/`, for d channels and windows of w:

    window      qkv/{kernel [d,3d], bias}   proj/{kernel [d,d], bias}   relative_position_bias_table [(2w-1)^2, heads]
    sliding     the same, but relative_position_bias_table [w^2, heads]: an offset is a place in the window
    performer, global                       qkv and proj
    mlp         mixing/{kernel [heads,N,N], bias [heads,N]}, output i of input j at [i, j], for N = w^2 tokens

The bias tables are float32, and absent without `relative_position`. Without `appearance` queries and keys keep their
part of `qkv`, which then gets no gradient: rows of table 4 differ in nothing else.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from swin_jax.models.attention import BlockAttention, captures_attention, sow_attention
from swin_jax.models.layers import Dense, TypedModule, small_normal
from swin_jax.ops import windows
from swin_jax.ops.performer import feature_count, orthogonal_directions, performer_attention
from swin_jax.ops.sliding_attention import sliding_attention, sliding_attention_naive
from swin_jax.ops.window_attention import attention_weights, window_attention
from swin_jax.ops.window_attention.padding import shifted_by_padding

if TYPE_CHECKING:
    from swin_jax.models.swin import SwinTransformer

Map = Float[Array, "batch height width channels"]

FIXED_FEATURES = 0
"""The seed of features that are not drawn anew: part of the model, as its shape is."""


def make_mixer(model: "SwinTransformer") -> Callable[..., nn.Module]:
    """The mixer of a model's blocks, to be made with num_heads, shifted, drop_rate, name and types."""
    windowed = {"window_size": model.window_size, "window_policy": model.window_policy, "shift": model.shift}
    position = {"relative_position": model.relative_position}
    qkv = {"qkv_bias": model.qkv_bias}
    if model.mixer == "mlp":
        return functools.partial(SpatialMlp, **windowed)
    if model.mixer == "window":
        attention = {"attn_drop_rate": float(model.attn_drop_rate), "implementation": model.implementation}
        appearance = {"appearance": model.appearance}
        return functools.partial(WindowAttention, **windowed, **qkv, **attention, **position, **appearance)
    if model.mixer.startswith("sliding"):
        naive = model.mixer == "sliding_naive"
        return functools.partial(
            SlidingAttention, window_size=model.window_size, naive=naive, **qkv, **position
        )
    if model.mixer == "global":
        return functools.partial(GlobalAttention, **qkv)
    return functools.partial(
        PerformerAttention, features=model.performer_features, redraw=model.performer_redraw, **qkv
    )


def window_and_shift(height: int, width: int, window: int, shifted: bool, policy: str) -> tuple[int, int]:
    """The window and shift a block uses on a map of `height` x `width`; the published codes have two rules.

    "classification": a map whose smaller side does not exceed the window gets a window of that side and no
    shift, for both axes; its bias is the centre of the table. "dense": always the configured window, always
    shifted in odd blocks. Both fill the map up to whole windows.
    """
    if policy == "classification" and min(height, width) <= window:
        return min(height, width), 0
    return window, window // 2 if shifted else 0


class WindowAttention(TypedModule):
    """Multi-head self-attention within windows, with relative position bias (section 3.2, eq. 4)."""

    num_heads: int
    window_size: int
    shifted: bool
    window_policy: str = "classification"
    shift: str = "cyclic"
    relative_position: bool = True
    appearance: bool = True
    qkv_bias: bool = True
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    implementation: str = "auto"

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        _, height, width, channels = x.shape
        shifted = self.shifted and self.shift != "none"
        window, shift = window_and_shift(height, width, self.window_size, shifted, self.window_policy)
        projection = Dense(3 * channels, use_bias=self.qkv_bias, name="qkv", **self.types)
        qkv = projection(x)
        # What fills the map up to whole windows are zeros BEFORE the projection: their qkv is its bias.
        bias = projection.variables["params"]["bias"] if self.qkv_bias else jnp.zeros(3 * channels)
        drops = train and self.attn_drop_rate > 0.0
        inputs: dict[str, Any] = {
            "qkv": qkv,
            "bias": self._bias(window),
            "window": window,
            "shift": shift,
            "pad_qkv": jnp.asarray(bias, qkv.dtype),
            "scale": (channels // self.num_heads) ** -0.5 if self.appearance else 0.0,
        }
        if captures_attention(self) and self.shift != "padding":
            sow_attention(self, BlockAttention(attention_weights(**inputs), height, width, window, shift))
        inputs["dropout_rate"] = self.attn_drop_rate
        inputs["dropout_key"] = self.make_rng("dropout") if drops else None
        if shift and self.shift == "padding":
            out = shifted_by_padding(**inputs)
        else:
            out = window_attention(**inputs, implementation=self.implementation)
        out = Dense(channels, name="proj", **self.types)(out)
        return nn.Dropout(self.drop_rate, deterministic=not train)(out)

    def _bias(self, window: int) -> Float[Array, "heads tokens tokens"]:
        if not self.relative_position:
            return jnp.zeros((self.num_heads, window**2, window**2), jnp.float32)
        table = bias_table(self, (2 * self.window_size - 1) ** 2, self.num_heads)
        return windows.relative_position_bias(table, window, self.window_size)


class SlidingAttention(TypedModule):
    """Multi-head self-attention of every token with the window around it; nothing shifts (tables 5 and 6)."""

    num_heads: int
    window_size: int
    shifted: bool
    naive: bool = False
    relative_position: bool = True
    qkv_bias: bool = True
    drop_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        channels, offsets = x.shape[-1], self.window_size**2
        qkv = Dense(3 * channels, use_bias=self.qkv_bias, name="qkv", **self.types)(x)
        bias = jnp.zeros((offsets, self.num_heads), jnp.float32)
        if self.relative_position:
            bias = bias_table(self, offsets, self.num_heads)
        attend = sliding_attention_naive if self.naive else sliding_attention
        out = Dense(channels, name="proj", **self.types)(attend(qkv, bias, window=self.window_size))
        return nn.Dropout(self.drop_rate, deterministic=not train)(out)


class GlobalAttention(TypedModule):
    """Multi-head self-attention of all tokens of the map, without relative position."""

    num_heads: int
    shifted: bool
    qkv_bias: bool = True
    drop_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        batch, height, width, channels = x.shape
        qkv = Dense(3 * channels, use_bias=self.qkv_bias, name="qkv", **self.types)(x)
        parts = qkv.reshape(batch, height * width, 3, self.num_heads, channels // self.num_heads)
        out = self.attend(*(parts[:, :, part] for part in range(3)), train=train)
        out = Dense(channels, name="proj", **self.types)(out.reshape(x.shape))
        return nn.Dropout(self.drop_rate, deterministic=not train)(out)

    def attend(self, q: Array, k: Array, v: Array, *, train: bool) -> Float[Array, "batch tokens heads _"]:
        """Of queries, keys and values by head."""
        del train
        return jax.nn.dot_product_attention(q, k, v)


class PerformerAttention(GlobalAttention):
    """Its estimate at linear cost (table 6). The paper names the method alone: the number of features and whether they
    are drawn anew are our choice."""

    features: int = 0
    redraw: bool = False

    def attend(self, q: Array, k: Array, v: Array, *, train: bool) -> Float[Array, "batch tokens heads _"]:
        channels = q.shape[-1]
        fresh = train and self.redraw
        key = self.make_rng("dropout") if fresh else jax.random.key(FIXED_FEATURES)
        directions = orthogonal_directions(key, self.features or feature_count(channels), channels)
        return performer_attention(q, k, v, directions)


class SpatialMlp(TypedModule):
    """One linear map over the tokens of a window for each head, shared by the head's channels (Swin-MLP, table 10).

    No non-linearity, position bias, mask or output projection. Shifted windows are those of a map with `window - shift`
    rows and columns of zeros above and to the left and `shift` below and to the right. A map is filled up with zeros to
    whole windows, of the configured size even where it is smaller: the parameters depend on no picture.
    """

    num_heads: int
    window_size: int
    shifted: bool
    window_policy: str = "classification"
    shift: str = "padding"
    drop_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        del train
        _, height, width, channels = x.shape
        shifted = self.shifted and self.shift != "none"
        _, shift = window_and_shift(height, width, self.window_size, shifted, self.window_policy)
        window = self.window_size
        above = window - shift if shift else 0
        canvas = jnp.pad(x, ((0, 0), (above, shift), (above, shift), (0, 0)))
        rows, columns = canvas.shape[1:3]
        cut = windows.cut(canvas, window, 0, jnp.zeros(channels))
        mixing = HeadwiseDense(window**2, self.num_heads, name="mixing", **self.types)
        mixed = mixing(cut.reshape(*cut.shape[:3], self.num_heads, channels // self.num_heads))
        out = windows.stitch(mixed.reshape(cut.shape), window, 0, rows, columns)
        return out[:, above : above + height, above : above + width]


class HeadwiseDense(TypedModule):
    """A matrix over tokens and a bias per token for each head."""

    tokens: int
    num_heads: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch windows tokens heads channels"]
    ) -> Float[Array, "batch windows tokens heads channels"]:
        kernel = self.param(
            "kernel", small_normal, (self.num_heads, self.tokens, self.tokens), self.param_dtype
        )
        bias = self.param("bias", nn.initializers.zeros, (self.num_heads, self.tokens), self.param_dtype)
        mixed = jnp.einsum("hij,bwjhc->bwihc", kernel.astype(x.dtype), x)
        return mixed + bias.T.astype(x.dtype)[None, None, :, :, None]


def bias_table(module: nn.Module, offsets: int, heads: int) -> Float[Array, "offsets heads"]:
    """The learnt bias of relative position, a parameter of `module`."""
    shape = (offsets, heads)
    return jnp.asarray(module.param("relative_position_bias_table", small_normal, shape, jnp.float32))
