"""A model with its parameters as one function of pictures, and how closely another form of it agrees."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.models.registry import Preprocessing
from swin_jax.models.swin import SwinTransformer
from swin_jax.ops.augment import normalise

BATCH = "batch"
"""How the number of pictures is called in programs that take any."""


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A function of pictures and nothing else.

    Attributes:
      call: pictures [B, H, W, 3] -> a tuple with one array for each of `outputs`.
      reference: the same by the module as it is used elsewhere: parameters from outside, pictures prepared before
        the model and not in it. What is written is held to it.
      size: (height, width) of the pictures.
      dtype: of the pictures: uint8, or float32 where they come normalised.
      outputs: names of what comes out.
    """

    call: Callable[[jax.Array], tuple[jax.Array, ...]]
    reference: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    size: tuple[int, int]
    dtype: str
    outputs: tuple[str, ...]

    def noise(self, batch: int) -> np.ndarray:
        """Pictures of noise as the program takes them, the same for each size of batch."""
        generator, shape = np.random.default_rng(batch), (batch, *self.size, 3)
        if self.dtype == "uint8":
            return generator.integers(0, 256, shape, np.uint8)
        return generator.standard_normal(shape).astype(np.float32)


def freeze(module: SwinTransformer, params: Any, pictures: Preprocessing, *, inside: bool) -> Frozen:
    """The program of a model.

    Attention is the one of plain XLA operations on every platform: kernels for one kind of device would tie the
    program to it, and to the version of its compiler.

    Args:
      module: classifier or backbone.
      params: its parameters.
      pictures: their size, and what they are normalised by.
      inside: take uint8 pictures and normalise them; a classifier gives probabilities instead of logits.
    """
    portable = module.clone(implementation="xla", constrain=None)

    def prepared(images: jax.Array) -> jax.Array:
        return normalise(images, pictures.mean, pictures.std) if inside else images

    def outputs(params: Any, images: jax.Array) -> tuple[jax.Array, ...]:
        found: Any = portable.apply({"params": params}, images)
        if isinstance(found, tuple):
            return found
        found = jnp.asarray(found)
        return (jax.nn.softmax(found, axis=-1) if inside and module.num_classes else found,)

    jitted = jax.jit(outputs)

    def reference(images: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(value) for value in jitted(params, prepared(jnp.asarray(images))))

    return Frozen(
        call=lambda images: outputs(params, prepared(images)),
        reference=reference,
        size=pictures.size,
        dtype="uint8" if inside else "float32",
        outputs=output_names(module, inside=inside),
    )


def output_names(module: SwinTransformer, *, inside: bool) -> tuple[str, ...]:
    if module.features_only:
        indices = module.out_indices or range(len(module.depths))
        return tuple(f"map{index}" for index in indices)
    if not module.num_classes:
        return ("features",)
    return ("probabilities" if inside else "logits",)


def difference(ours: Sequence[np.ndarray], theirs: Sequence[Any]) -> float:
    """The largest difference as a share of the largest value, the worst of all outputs; NaN where there is one."""
    pairs = [
        (np.asarray(one, np.float32), np.asarray(other, np.float32))
        for one, other in zip(ours, theirs, strict=True)
    ]
    return float(np.max([np.abs(one - other).max() / np.abs(one).max() for one, other in pairs]))
