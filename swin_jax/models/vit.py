"""Vision Transformer (Dosovitskiy et al., 2021) as trained by DeiT (Touvron et al., 2021): the paper's baseline.

Parameter paths:

    patch_embed/proj/{kernel [p,p,3,C], bias}     class_token [C], class_pos_embed [C]
    absolute_pos_embed [rows, columns, C]         (interpolated for other picture sizes)
    block{j}/norm1/{scale, bias}                  block{j}/norm2/{scale, bias}
    block{j}/attn/qkv/{kernel [C,3C], bias}       block{j}/attn/proj/{kernel [C,C], bias}
    block{j}/mlp/fc1/{kernel [C,4C], bias}        block{j}/mlp/fc2/{kernel [4C,C], bias}
    norm/{scale, bias}, head/{kernel, bias}       or, with features_only, pyramid/...: see `models/necks.py`

Random numbers while training come from one collection, "dropout".
"""

import functools
from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from swin_jax.models import checks
from swin_jax.models.isotropic import Isotropic, Tokens
from swin_jax.models.layers import (
    Dense,
    LayerNorm,
    Mlp,
    PatchEmbed,
    TypedModule,
    scale_examples,
    small_normal,
)
from swin_jax.models.necks import DeconvPyramid
from swin_jax.ops.resize import resize_grid

Pyramid = tuple[Float[Array, "batch _ _ _"], ...]

# ViTs are published with another epsilon than Swin.
VitNorm = functools.partial(LayerNorm, epsilon=1e-6)


class Attention(TypedModule):
    """Multi-head self-attention of all tokens, softmax in float32.

    Attributes:
      num_heads: attention heads.
      chunk: queries whose logits are held at a time, and computed again in the backward pass; 0 holds all.
    """

    num_heads: int
    chunk: int = 0

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        batch, tokens, channels = x.shape
        qkv = Dense(3 * channels, name="qkv", **self.types)(x)
        qkv = qkv.reshape(batch, tokens, 3, self.num_heads, channels // self.num_heads)
        attend = jax.nn.dot_product_attention
        if 0 < self.chunk < tokens:
            attend = functools.partial(_attend_in_chunks, chunk=self.chunk)
        out = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return Dense(channels, name="proj", **self.types)(out.reshape(batch, tokens, channels))


def _attend_in_chunks(q: Array, k: Array, v: Array, *, chunk: int) -> Array:
    """`jax.nn.dot_product_attention` of [batch, tokens, heads, channels], `chunk` queries after the other."""
    batch, tokens, heads, channels = q.shape
    chunks = -(-tokens // chunk)
    q = jnp.pad(q, ((0, 0), (0, chunks * chunk - tokens), (0, 0), (0, 0)))
    apart = jnp.moveaxis(q.reshape(batch, chunks, chunk, heads, channels), 1, 0)
    out = jax.lax.map(jax.checkpoint(lambda some: jax.nn.dot_product_attention(some, k, v)), apart)
    return jnp.moveaxis(out, 0, 1).reshape(batch, chunks * chunk, heads, channels)[:, :tokens]


class VitBlock(TypedModule):
    """Two residual branches: attention and MLP, each after a norm. `chunk` as of `Attention`."""

    num_heads: int
    mlp_ratio: float
    chunk: int = 0

    @nn.compact
    def __call__(
        self, x: Tokens, train: bool, branch_scales: Float[Array, "branches=2 batch"] | None = None
    ) -> Tokens:
        """`branch_scales` are one block's of `drop_path_scales`; None drops no branch."""
        of_attention, of_mlp = (None, None) if branch_scales is None else branch_scales
        attention = Attention(self.num_heads, self.chunk, name="attn", **self.types)
        branch = attention(VitNorm(name="norm1", **self.types)(x))
        x = x + scale_examples(branch, of_attention)
        mlp = Mlp(int(x.shape[-1] * self.mlp_ratio), name="mlp", **self.types)
        branch = mlp(VitNorm(name="norm2", **self.types)(x), train)
        return x + scale_examples(branch, of_mlp)


class VisionTransformer(Isotropic):
    """ViT with a class token: normalised pictures `[B, H, W, 3]` to logits, or to maps at strides 4 to 32.

    Attributes:
      embed_dim: channels.
      depth: blocks.
      num_heads: attention heads.
      patch_size: side of a patch in pixels.
      mlp_ratio: hidden channels of the MLP per channel.
      num_classes: outputs of the head; 0 leaves the class token `[B, C]`.
      drop_path_rate: stochastic depth of the last block; grows linearly from 0 at the first.
      absolute_position_size: (height, width) in pixels that the position embedding is made for.
      features_only: return four maps through `DeconvPyramid` instead of logits; needs patches of 16.
      constrain: applied to the tokens after the embedding and every block: the place for a sharding constraint.
      dtype: type of activations and matrix products; norms, softmax and the head are float32.
      param_dtype: type parameters are kept in.

    Raises:
      ValueError: when it is made, if a field makes no sense or fields do not fit together.
    """

    EMBEDDINGS: ClassVar[tuple[str, ...]] = (
        "patch_embed",
        "class_token",
        "class_pos_embed",
        "absolute_pos_embed",
    )

    embed_dim: int = 384
    num_heads: int = 6
    patch_size: int = 16
    mlp_ratio: float | int = 4.0
    num_classes: int = 1000
    drop_path_rate: float | int = 0.0
    absolute_position_size: Sequence[int] = (224, 224)
    features_only: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.absolute_position_size, list):
            self.absolute_position_size = tuple(self.absolute_position_size)
        checks.check_vit(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Array | np.ndarray, train: bool = False) -> Array | Pyramid:
        """Logits `[B, num_classes]` float32, or with `features_only` a tuple of maps `[B, h, w, C]`.

        Args:
          images: normalised pictures `[B, H, W, 3]`, RGB, of any float type and any height and width; filled up
            with zeros to whole patches.
          train: switches drop path on; with a rate above 0 it draws from the rng "dropout".

        Raises:
          ValueError: if `images` are not float pictures with 3 channels.
        """
        checks.check_images(images)
        height, width = images.shape[1:3]
        patches = PatchEmbed(self.embed_dim, self.patch_size, norm=False, name="patch_embed", **self.types)(
            jnp.asarray(images)
        )
        batch, rows, columns, channels = patches.shape
        rates = tuple(float(rate) for rate in np.linspace(0.0, self.drop_path_rate, self.depth))
        block = functools.partial(VitBlock, self.num_heads, float(self.mlp_ratio))
        x = self._through_blocks(self._with_class_token(patches), train, block, rates)
        if not self.features_only:
            return self._head(x[:, 0])
        x = VitNorm(name="norm", **self.types)(x[:, 1:]).reshape(batch, rows, columns, channels)
        maps = DeconvPyramid(name="pyramid", **self.types)(x, train)
        # What stands for the filling of the picture goes, so that a cell is where its number says.
        return tuple(
            value[:, : -(-height // stride), : -(-width // stride)]
            for value, stride in zip(maps, (4, 8, 16, 32), strict=True)
        )

    def _with_class_token(self, patches: Float[Array, "batch rows columns channels"]) -> Tokens:
        """The class token, then the patches row by row, each with its position."""
        batch, rows, columns, channels = patches.shape
        sides = tuple(-(-side // self.patch_size) for side in self.absolute_position_size)
        position = self.param("absolute_pos_embed", small_normal, (*sides, channels), self.param_dtype)
        token = self.param("class_token", small_normal, (channels,), self.param_dtype)
        token = token + self.param("class_pos_embed", small_normal, (channels,), self.param_dtype)
        patches = patches + resize_grid(position, rows, columns).astype(patches.dtype)[None]
        first = jnp.broadcast_to(token.astype(patches.dtype)[None, None], (batch, 1, channels))
        return jnp.concatenate([first, patches.reshape(batch, rows * columns, channels)], axis=1)

    def _head(self, token: Float[Array, "batch channels"]) -> Float[Array, "batch outputs"]:
        in_float32 = {**self.types, "dtype": jnp.float32}
        token = VitNorm(name="norm", **in_float32)(token)
        return Dense(self.num_classes, name="head", **in_float32)(token) if self.num_classes else token
