"""What window attention attends to: probabilities that a model hands out when it is asked to.

import swin_jax
found = swin_jax.attention(model, variables, images)   # normalised pictures [B, H, W, 3]
found["stage2/block5"].probabilities                   # [B, windows, heads, queries, keys]
found["stage2/block5"].received()                      # [B, rows, columns], back in picture order

A model hands them out where the collection "attention" is mutable, as `attention` makes it, and else computes nothing
for it.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from swin_jax.ops import windows

COLLECTION = "attention"
Images = Array | np.ndarray | jax.ShapeDtypeStruct


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["probabilities"],
    meta_fields=["height", "width", "window", "shift"],
)
@dataclasses.dataclass(frozen=True)
class BlockAttention:
    """The attention of one block for a batch of pictures.

    Attributes:
      probabilities: float32 `[batch, windows, heads, queries, keys]`, from the softmax (before any dropout); a row
        of keys sums to 1. Windows, and tokens in a window, are counted row by row on the map after it was filled up
        to whole windows and shifted.
      height, width: of the block's map in tokens.
      window: side of a window in tokens.
      shift: by how many tokens the map was moved up and left before it was cut into windows.
    """

    probabilities: Any
    height: int
    width: int
    window: int
    shift: int

    def received(self) -> Float[Array, "batch height width"]:
        """What each token is given by all tokens of the picture in its window, mean over heads.

        A token gives 1 in all, so 1 is what it would get if all were given alike. What tokens that fill the
        map up give is not counted.
        """
        inside = self._cut(jnp.ones((1, self.height, self.width, 1)))[..., 0]
        given = jnp.einsum("bwhij,wi->bwj", self.probabilities, inside[0])
        return self._stitch(given / self.probabilities.shape[2])

    def of_query(self, row: int, column: int) -> Float[Array, "batch height width"]:
        """What the token at `row`, `column` of the map attends to, mean over heads; 0 outside of its window."""
        window, token = windows.window_and_token(row, column, *self._geometry)
        return self._in_window(window, self.probabilities[:, window, :, token].mean(axis=1))

    def window_of(self, row: int, column: int) -> Bool[Array, "batch height width"]:
        """The tokens in one window with that at `row`, `column`; of a shifted map it may be in several pieces."""
        window, _ = windows.window_and_token(row, column, *self._geometry)
        return self._in_window(window, jnp.ones_like(self.probabilities[:, 0, 0, 0])) > 0

    @property
    def _geometry(self) -> tuple[int, int, int, int]:
        return self.window, self.shift, self.height, self.width

    def _in_window(self, window: int, values: Float[Array, "batch tokens"]) -> Array:
        """A map `[batch, height, width]` that is 0 outside of the window."""
        return self._stitch(jnp.zeros_like(self.probabilities[:, :, 0, 0]).at[:, window].set(values))

    def _cut(self, x: Float[Array, "batch height width channels"]) -> Array:
        return windows.cut(x, self.window, self.shift, jnp.zeros(x.shape[-1]))

    def _stitch(self, x: Float[Array, "batch windows tokens"]) -> Float[Array, "batch height width"]:
        return windows.stitch(x[..., None], *self._geometry)[..., 0]


def captures_attention(module: nn.Module) -> bool:
    """Whether whoever applies the module asked for its attention."""
    return module.is_mutable_collection(COLLECTION) and not module.is_initializing()


def sow_attention(module: nn.Module, attention: BlockAttention) -> None:
    """Hands out the attention of a module that is the "attn" of its block."""
    module.sow(COLLECTION, "windows", attention, init_fn=lambda: attention, reduce_fn=lambda _, new: new)


def attention(
    model: nn.Module, variables: Mapping[str, Any], images: Images, blocks: Sequence[str] | None = None
) -> dict[str, BlockAttention]:
    """The attention of a model's blocks, by their parameter paths such as "stage2/block5".

    Args:
      model: any module with window attention inside, in evaluation mode; with `scan` its blocks are run one by one.
      variables: its parameters, and what else it needs.
      images: normalised pictures `[B, H, W, 3]`.
      blocks: whose attention; all by default: 9 MB for a picture of 224 pixels in Swin-T, 160 MB for one of 384 in
        Swin-B.

    Raises:
      ValueError: a block has another name, or the model no window attention.
    """
    found = _attention(model, variables, images, None if blocks is None else tuple(blocks))
    return {block: found[block] for block in blocks or _in_order(found)}


def attention_shapes(
    model: nn.Module, variables: Mapping[str, Any], images: Images
) -> dict[str, BlockAttention]:
    """What `attention` would give, with shapes in place of probabilities; `variables` and `images` may be shapes.

    Raises:
      ValueError: the model has no window attention.
    """
    found = jax.eval_shape(functools.partial(_by_block, model), variables, images)
    return {block: found[block] for block in _in_order(found)}


def check_blocks(wanted: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError, listing the known blocks, for another."""
    for block in wanted:
        if block not in known:
            raise ValueError(f"there is no window attention in {block!r}; known: {', '.join(known)}")


def last_blocks(blocks: Iterable[str]) -> tuple[str, ...]:
    """The last block of each stage, of blocks in the order of the model."""
    return tuple({block.rpartition("/")[0]: block for block in blocks}.values())


def token_side(block: str, patch_size: int) -> int:
    """The side of a token in pixels: patches, doubled by each patch merging before the block's stage."""
    stage = re.search(r"stage(\d+)", block)
    if stage is None:
        raise ValueError(f"{block!r} names no stage")
    return patch_size * 2 ** int(stage[1])


@functools.partial(jax.jit, static_argnums=(0, 3))
def _attention(
    model: nn.Module, variables: Mapping[str, Any], images: Array, blocks: tuple[str, ...] | None
) -> dict[str, BlockAttention]:
    found = _by_block(model, variables, images)
    if blocks is None:
        return found
    check_blocks(blocks, _in_order(found))
    return {block: found[block] for block in blocks}  # the compiler drops the others


def _by_block(model: nn.Module, variables: Mapping[str, Any], images: Array) -> dict[str, BlockAttention]:
    _, state = model.apply(variables, images, mutable=[COLLECTION])
    leaves = jax.tree_util.tree_leaves_with_path(
        state.get(COLLECTION, {}), is_leaf=lambda leaf: isinstance(leaf, BlockAttention)
    )
    if not leaves:
        raise ValueError(f"{type(model).__name__} has no window attention that could be shown")
    return {"/".join(entry.key for entry in path[:-2]): leaf for path, leaf in leaves}


def _in_order(blocks: Iterable[str]) -> tuple[str, ...]:
    """As they follow one another in the model: block10 after block9."""
    return tuple(sorted(blocks, key=lambda path: [int(part) for part in re.findall(r"\d+", path)]))
