"""What `predict --attention` draws: which blocks and query, their maps on the device, the picture of each picture."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.models.attention import (
    BlockAttention,
    attention,
    attention_shapes,
    check_blocks,
    last_blocks,
    token_side,
)
from swin_jax.ops.augment import normalise
from swin_jax.ops.target import for_mesh
from swin_jax.restore import Run
from swin_jax.tasks import pictures
from swin_jax.tasks.classification import Classification
from swin_jax.tasks.task import Batch
from swin_jax.training.sharding import batch_sharding

Maps = dict[str, dict[str, Any]]  # block -> "attended", "received", "window" -> [B, rows, columns]


@dataclasses.dataclass(frozen=True)
class Shown:
    """The attention that is shown.

    Attributes:
        blocks: block -> its attention, with shapes in place of probabilities.
        sides: block -> the side of its tokens in pixels.
        query: (row, column) of the query in pixels of the picture that the model sees.
    """

    blocks: Mapping[str, BlockAttention]
    sides: Mapping[str, int]
    query: tuple[int, int]

    def token(self, block: str) -> tuple[int, int]:
        """(row, column) of the query in the map of a block."""
        row, column = self.query
        return row // self.sides[block], column // self.sides[block]


def choose_attention(run: Run, blocks: Sequence[str], query: str) -> Shown:
    """Checks what is asked for, before parameters are read.

    Args:
        run: of a classifier.
        blocks: such as "stage2/block5"; none for the last of each stage.
        query: "y,x" as fractions of the picture.

    Raises:
        ValueError: there is no such block, no such place, or no window attention.
    """
    fractions = parse_query(query)
    task = classifier(run)
    params, model_state = jax.eval_shape(task.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((1, *task.image_size, 3), jnp.float32)
    try:
        known = attention_shapes(task.model, {"params": params, **model_state}, images)
    except ValueError as error:
        raise ValueError(f"--attention cannot show {run.config.model.name}: {error}") from error
    check_blocks(blocks, known)
    chosen = {block: known[block] for block in blocks or last_blocks(known)}
    sides = {block: token_side(block, task.model.patch_size) for block in chosen}
    row, column = (
        min(int(fraction * side), side - 1) for fraction, side in zip(fractions, task.image_size, strict=True)
    )
    return Shown(chosen, sides, (row, column))


def parse_query(text: str) -> tuple[float, float]:
    """ "0.25,0.5" as (y, x)."""
    try:
        y, x = (float(part) for part in text.split(","))
    except ValueError:
        y = x = -1.0
    if not (0 <= y <= 1 and 0 <= x <= 1):
        raise ValueError(
            f"--attention_query is {text!r}; give y,x from 0,0 (upper left) to 1,1, such as 0.25,0.5"
        )
    return y, x


def classifier(run: Run) -> Classification:
    if not isinstance(run.task, Classification):
        raise ValueError(f"--attention is for classifiers; {run.directory} holds a run of {run.config.task}")
    return run.task


def attention_step(run: Run, shown: Shown) -> Callable[[Any, Any, Batch], Maps]:
    """The jitted maps of a batch."""
    task = classifier(run)

    def step(params: Any, model_state: Any, batch: Batch) -> Maps:
        images = normalise(batch["image"], task.mean, task.std)
        found = attention(task.model, {"params": params, **model_state}, images, tuple(shown.blocks))
        return {
            block: {
                "attended": of.of_query(*shown.token(block)),
                "received": of.received(),
                "window": of.window_of(*shown.token(block)),
            }
            for block, of in found.items()
        }

    return jax.jit(for_mesh(run.mesh, step), out_shardings=batch_sharding(run.mesh))


def draw_attention(shown: Shown, image: np.ndarray, maps: Maps, row: int) -> np.ndarray:
    """The picture of one picture of a batch: `image` uint8 `[H, W, 3]` is what the model saw."""
    drawn = []
    for block, of in shown.blocks.items():
        mine = {name: values[row] for name, values in maps[block].items()}
        query = np.zeros((of.height, of.width), bool)
        query[shown.token(block)] = True
        title = f"{block}: window {of.window}, shift {of.shift}"
        drawn.append(pictures.AttentionMaps(title, **mine, query=query, token_side=shown.sides[block]))
    return pictures.attention_sheet(image, drawn)
