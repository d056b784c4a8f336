"""Swin Transformer, version 1 (Liu et al., 2021, arXiv 2103.14030).

Parameter paths, the public format whatever the execution:

    patch_embed/proj/{kernel [p,p,3,C], bias}          patch_embed/norm/{scale, bias}
    absolute_pos_embed [rows, columns, C]              (only with absolute_position_embedding)
    stage{i}/block{j}/norm1/{scale, bias}              stage{i}/block{j}/norm2/{scale, bias}
    stage{i}/block{j}/attn/qkv/{kernel [d,3d], bias}   stage{i}/block{j}/attn/proj/{kernel [d,d], bias}
    stage{i}/block{j}/attn/relative_position_bias_table [(2w-1)^2, heads], float32
    (with another `mixer` than "window" what stands below attn/ is as `models/token_mixing.py` says)
    stage{i}/block{j}/mlp/fc1/{kernel [d,4d], bias}    stage{i}/block{j}/mlp/fc2/{kernel [4d,d], bias}
    stage{i}/downsample/norm/{scale, bias}             stage{i}/downsample/reduction/kernel [4d,2d]
    norm/{scale, bias}, head/{kernel, bias}            or, with features_only, norm{i}/{scale, bias}

Random numbers while training come from one collection, "dropout".
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from swin_jax.models import checks, half_blocks
from swin_jax.models.attention import captures_attention
from swin_jax.models.layers import (
    Dense,
    LayerNorm,
    Mlp,
    PatchEmbed,
    PatchMerging,
    TypedModule,
    drop_path_scales,
    scale_examples,
    small_normal,
)
from swin_jax.models.token_mixing import make_mixer
from swin_jax.ops.resize import resize_grid

Map = Float[Array, "batch height width channels"]
Pyramid = tuple[Float[Array, "batch _ _ _"], ...]

REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_saveable,
    "weight_dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""What a block keeps for its backward pass: nothing, all matrix products, or those with weights."""

SHORTEST_SCAN = 4
"""Blocks of a stage from which on `scan` stacks them: a single pair is no loop."""


class SwinBlock(TypedModule):
    """Two residual branches: window attention and MLP, each after a norm (section 3.1, figure 3b)."""

    attention: Callable[..., nn.Module]
    num_heads: int
    shifted: bool
    mlp_ratio: float = 4.0
    drop_rate: float = 0.0

    @nn.compact
    def __call__(
        self, x: Map, train: bool, branch_scales: Float[Array, "branches=2 batch"] | None = None
    ) -> Map:
        """`branch_scales` are one block's of `drop_path_scales`; None drops no branch."""
        of_attention, of_mlp = (None, None) if branch_scales is None else branch_scales
        attention = self.attention(
            num_heads=self.num_heads,
            shifted=self.shifted,
            drop_rate=self.drop_rate,
            name="attn",
            **self.types,
        )
        hidden = int(x.shape[-1] * self.mlp_ratio)
        halves = half_blocks.HalfBlocks(self, attention, hidden, train)
        if halves.take_attention(x):
            x = halves.attention(x, of_attention)
        else:
            branch = attention(LayerNorm(name="norm1", **self.types)(x), train)
            x = x + scale_examples(branch, of_attention)
        if halves.take_mlp(x):
            return halves.mlp(x, of_mlp)
        mlp = Mlp(hidden, self.drop_rate, name="mlp", **self.types)
        branch = mlp(LayerNorm(name="norm2", **self.types)(x), train)
        return x + scale_examples(branch, of_mlp)


class SwinStage(TypedModule):
    """Blocks on maps of one size, plain and shifted in turn, then (all but the last stage) patch merging."""

    block: Callable[..., nn.Module]
    num_heads: int
    drop_path_rates: Sequence[float]
    downsample: bool
    scan: bool = False
    constrain: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(self, x: Map, train: bool) -> tuple[Map, Float[Array, "batch _ _ _"]]:
        """Returns the stage's map, and what the next stage starts from."""
        depth, scales = len(self.drop_path_rates), None
        if train and max(self.drop_path_rates) > 0.0:
            scales = drop_path_scales(self.make_rng("dropout"), self.drop_path_rates, x.shape[0])
        scanned = depth // 2 * 2 if self._scans() else 0
        if scanned:
            x = self._pairs(x, train, scanned, scales)
        for index in range(scanned, depth):
            block = self._block(shifted=index % 2 == 1, name=f"block{index}")
            x = self._placed(block(x, train, None if scales is None else scales[index]))
        if not self.downsample:
            return x, x
        return x, PatchMerging(2 * x.shape[-1], name="downsample", **self.types)(x)

    def _scans(self) -> bool:
        """A captured block runs by itself: what a loop computes inside does not come out."""
        alone = self.is_initializing() or captures_attention(self)
        return self.scan and len(self.drop_path_rates) >= SHORTEST_SCAN and not alone

    def _pairs(self, x: Map, train: bool, count: int, scales: Float[Array, "blocks 2 batch"] | None) -> Map:
        """The first `count` blocks, whose program is compiled once for a plain and a shifted one."""
        params = self.variables["params"]
        stacked = [
            jax.tree.map(
                lambda *leaves: jnp.stack(leaves), *(params[f"block{i}"] for i in range(j, count, 2))
            )
            for j in (0, 1)
        ]
        # Free of this module, so that a traced slice of the stack can be their parameters.
        blocks = [self._block(shifted=shifted, parent=None) for shifted in (False, True)]

        def pair(x: Map, inputs: Any) -> tuple[Map, None]:
            params, scales = inputs
            for j, block in enumerate(blocks):
                out = block.apply({"params": params[j]}, x, train, None if scales is None else scales[j])
                x = self._placed(out)
            return x, None

        if scales is not None:
            scales = scales[:count].reshape(count // 2, 2, *scales.shape[1:])
        return jax.lax.scan(pair, x, (stacked, scales))[0]

    def _block(self, **fields: Any) -> nn.Module:
        return self.block(num_heads=self.num_heads, **fields, **self.types)

    def _placed(self, x: Any) -> Map:
        return x if self.constrain is None else self.constrain(x)


class SwinTransformer(TypedModule):
    """Swin Transformer: normalised pictures `[B, H, W, 3]` of any size to logits, or to maps at strides 4 to 32.

    Attributes:
      embed_dim: channels of the first stage; each further stage has twice as many.
      depths: blocks per stage, any number of stages.
      num_heads: attention heads per stage.
      window_size: side of a window in tokens.
      patch_size: side of a patch in pixels.
      mlp_ratio: hidden channels of the MLP per channel.
      num_classes: outputs of the head; 0 leaves the pooled features `[B, C]`.
      drop_path_rate: stochastic depth of the last block; grows linearly from 0 at the first.
      drop_rate: dropout after the position embedding, the attention projection and both MLP layers.
      attn_drop_rate: dropout of attention weights.
      qkv_bias: whether the qkv projection has a bias.
      patch_norm: whether the patch embedding ends in a norm.
      absolute_position_embedding: adds a learnt vector per patch, interpolated for other picture sizes.
      absolute_position_size: (height, width) in pixels that the position embedding is made for.
      window_policy: "classification" or "dense", see `token_mixing.window_and_shift`. Never changes the parameters.
      mixer: what tokens exchange information by: "window" (Swin); "sliding" or its unfolded form "sliding_naive";
        "performer"; "global"; "mlp" (Swin-MLP). See `models/token_mixing.py`.
      shift: of every other block's windows: "cyclic"; "padding", which costs more windows and gives the same numbers;
        or "none". Of mixers with windows; an "mlp" shifts by padding.
      relative_position: adds the learnt bias of relative position to attention's logits.
      appearance: whether queries and keys count; without, logits are the position bias alone (table 4).
      performer_features: of a "performer"; 0 chooses `ops.performer.feature_count`.
      performer_redraw: new features in every training step; else those of a fixed seed.
      features_only: return the maps of `out_indices`, each through its own norm, instead of logits.
      out_indices: stages whose maps are returned; None means all.
      frozen_stages: -1 trains everything; 0 freezes the patch embedding, 1 also the position embedding, k >= 2
        also the first k - 1 stages. Frozen parts get no gradient and run as in evaluation; `frozen` tells the
        optimizer.
      scan: compile a stage of 4 or more blocks as a loop over one pair, with their parameters stacked on the way
        in. Same numbers and draws, a fraction of the compile time; dropout other than drop path must be 0.
      remat: None, or a name of `REMAT_POLICIES`: recompute each block in the backward pass.
      implementation: of `swin_jax.ops.window_attention`; with "pallas_tpu_blocks" each half of a block is one kernel.
      constrain: applied to the map after the embedding and every block: the place for a sharding constraint.
      dtype: type of activations and matrix products; norms, softmax, bias tables and the head are float32.
      param_dtype: type parameters are kept in.

    Raises:
      ValueError: when it is made, if a field makes no sense or fields do not fit together.
    """

    embed_dim: int = 96
    depths: Sequence[int] = (2, 2, 6, 2)
    num_heads: Sequence[int] = (3, 6, 12, 24)
    window_size: int = 7
    patch_size: int = 4
    mlp_ratio: float | int = 4.0
    num_classes: int = 1000
    drop_path_rate: float | int = 0.0
    drop_rate: float | int = 0.0
    attn_drop_rate: float | int = 0.0
    qkv_bias: bool = True
    patch_norm: bool = True
    absolute_position_embedding: bool = False
    absolute_position_size: Sequence[int] = (224, 224)
    window_policy: str = "classification"
    mixer: str = "window"
    shift: str = "cyclic"
    relative_position: bool = True
    appearance: bool = True
    performer_features: int = 0
    performer_redraw: bool = False
    features_only: bool = False
    out_indices: Sequence[int] | None = None
    frozen_stages: int = -1
    scan: bool = False
    remat: str | None = None
    implementation: str = "auto"
    constrain: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        # Lists, as configs hold them, would make the module unhashable.
        for name in ("depths", "num_heads", "absolute_position_size", "out_indices"):
            value = getattr(self, name)
            if isinstance(value, list):
                setattr(self, name, tuple(value))
        checks.check_swin(self, tuple(REMAT_POLICIES))
        super().__post_init__()

    def setup(self) -> None:
        self.patch_embed = PatchEmbed(self.embed_dim, self.patch_size, self.patch_norm, **self.types)
        if self.absolute_position_embedding:
            grid = tuple(-(-side // self.patch_size) for side in self.absolute_position_size)
            shape = (*grid, self.embed_dim)
            self.position = self.param("absolute_pos_embed", small_normal, shape, self.param_dtype)
        self.position_dropout = nn.Dropout(self.drop_rate)
        self.stages = [self._stage(index) for index in range(len(self.depths))]
        if self.features_only:
            self.norms = {index: LayerNorm(name=f"norm{index}", **self.types) for index in self._outputs}
        else:
            # Few numbers from here on: float32 costs nothing.
            in_float32 = {**self.types, "dtype": jnp.float32}
            self.norms = {len(self.depths) - 1: LayerNorm(name="norm", **in_float32)}
            self.classifier = Dense(self.num_classes, name="head", **in_float32) if self.num_classes else None

    def __call__(self, images: Array | np.ndarray, train: bool = False) -> Array | Pyramid:
        """Logits `[B, num_classes]` float32, or with `features_only` a tuple of maps `[B, h, w, c]`.

        Args:
          images: normalised pictures `[B, H, W, 3]`, RGB, of any float type and any height and width.
          train: switches dropout and drop path on; those with a rate above 0 draw from the rng "dropout".

        Raises:
          ValueError: if `images` are not float pictures with 3 channels.
        """
        maps = self.encode(self.embed(images), train)
        return maps if self.features_only else self.head(maps[-1])

    def embed(self, images: Array | np.ndarray) -> Map:
        """Pictures to patch embeddings `[B, ceil(H/p), ceil(W/p), C]`, before any position embedding."""
        checks.check_images(images)
        tokens = self.patch_embed(jnp.asarray(images))
        return jax.lax.stop_gradient(tokens) if self.frozen_stages >= 0 else tokens

    def encode(self, tokens: Map, train: bool = False) -> Pyramid:
        """Patch embeddings to normalised maps of `out_indices`; of the last stage alone in a classifier."""
        x = self.position_dropout(
            self._with_position(tokens), deterministic=not train or self.frozen_stages >= 2
        )
        x = x if self.constrain is None else self.constrain(x)
        maps = []
        for index, stage in enumerate(self.stages):
            frozen = index <= self.frozen_stages - 2
            out, x = stage(x, train and not frozen)
            if frozen:
                out, x = jax.lax.stop_gradient((out, x))
            if index in self.norms:
                maps.append(self.norms[index](out))
        return tuple(maps)

    def head(self, features: Map) -> Float[Array, "batch outputs"]:
        """Mean over the map, then the classifier (or nothing if `num_classes` is 0), in float32."""
        if self.features_only:
            raise ValueError("a model made with features_only=True has no head")
        pooled = features.astype(jnp.float32).mean(axis=(1, 2))
        return pooled if self.classifier is None else self.classifier(pooled)

    @property
    def num_layers(self) -> int:
        """Number of values of `layer_of`: the embedding, every block, the head."""
        return sum(self.depths) + 2

    @nn.nowrap
    def layer_of(self, path: str) -> int:
        """The depth of a parameter, for layer-wise learning rates (as published with SimMIM).

        Patch embedding, position embedding and mask token are layer 0, then every block is one; patch merging
        counts to the block before it; norms, head and what other tasks add are the last, `num_layers - 1`.
        `path` is as in the table of this module.
        """
        first, *rest = path.split("/")
        if first in ("patch_embed", "absolute_pos_embed", "mask_token"):
            return 0
        stage = self._stage_of(first)
        if stage is None:
            return self.num_layers - 1
        before = sum(self.depths[:stage])
        if rest and rest[0].startswith("block"):
            return before + int(rest[0].removeprefix("block")) + 1
        return before + self.depths[stage]

    @nn.nowrap
    def frozen(self, path: str) -> bool:
        """Whether `frozen_stages` holds the parameter: an optimizer must not decay it either."""
        first = path.split("/")[0]
        if first == "patch_embed":
            return self.frozen_stages >= 0
        if first == "absolute_pos_embed":
            return self.frozen_stages >= 1
        stage = self._stage_of(first)
        return stage is not None and stage <= self.frozen_stages - 2

    @nn.nowrap
    def _stage_of(self, part: str) -> int | None:
        number = part.removeprefix("stage")
        return int(number) if part.startswith("stage") and number.isdigit() else None

    @property
    def _outputs(self) -> tuple[int, ...]:
        return tuple(range(len(self.depths))) if self.out_indices is None else tuple(self.out_indices)

    def _with_position(self, tokens: Map) -> Map:
        if not self.absolute_position_embedding:
            return tokens
        position = resize_grid(self.position, tokens.shape[1], tokens.shape[2]).astype(tokens.dtype)
        position = jax.lax.stop_gradient(position) if self.frozen_stages >= 1 else position
        return tokens + position[None]

    def _stage(self, index: int) -> SwinStage:
        attention = make_mixer(self)
        block = SwinBlock
        if self.remat is not None:
            train = 2  # the argument of SwinBlock.__call__ that is a Python bool
            block = nn.remat(SwinBlock, policy=REMAT_POLICIES[self.remat], static_argnums=(train,))
        rates = np.linspace(0.0, self.drop_path_rate, sum(self.depths))
        start = sum(self.depths[:index])
        return SwinStage(
            functools.partial(
                block,
                attention=attention,
                mlp_ratio=float(self.mlp_ratio),
                drop_rate=float(self.drop_rate),
            ),
            num_heads=self.num_heads[index],
            drop_path_rates=tuple(float(rate) for rate in rates[start : start + self.depths[index]]),
            downsample=index < len(self.depths) - 1,
            scan=self.scan,
            constrain=self.constrain,
            name=f"stage{index}",
            **self.types,
        )
