"""An exponential moving average of a run's parameters, kept beside them in float32.

After update t (from 0): average <- average + (1 - decay(t)) (parameters - average). What the model carries
besides parameters is averaged likewise where it is real numbers; counters and keys are taken as they are.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from swin_jax.training.schedules import Real

WARMUPS = ("", "ratio", "power")


@dataclasses.dataclass(frozen=True)
class Ema:
    """How a run averages.

    Attributes:
        decay: of the average, above 0 and below 1.
        warmup: smaller decays at first, while the average would mostly be the random beginning. "" has none;
            "ratio" is min(decay, (1 + t) / (10 + t)), TensorFlow's; "power" is min(decay, 1 - (1 + t)^(-2/3)),
            timm's (`ModelEmaV3` with `use_warmup`).

    Raises:
        ValueError: a field is not one of these.
    """

    decay: Real
    warmup: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(f"ema.decay is {self.decay}; expected above 0 and below 1, or 0 for no average")
        if self.warmup not in WARMUPS:
            known = ", ".join(repr(name) for name in WARMUPS)
            raise ValueError(f"ema.warmup is {self.warmup!r}; expected one of {known}")

    def decay_at(self, step: Int[jax.Array, ""]) -> Float[jax.Array, ""]:
        """The decay of the update with the 0-based index `step`, f32."""
        step = step.astype(jnp.float32)
        if self.warmup == "ratio":
            return jnp.minimum(self.decay, (1 + step) / (10 + step))
        if self.warmup == "power":
            return jnp.minimum(self.decay, 1 - (1 + step) ** (-2 / 3))
        return jnp.float32(self.decay)

    def update(self, average: Any, new: Any, step: Int[jax.Array, ""]) -> Any:
        """The average after the update with the index `step`, which led to `new`."""
        rate = 1 - self.decay_at(step)

        def toward(old: jax.Array, leaf: jax.Array) -> jax.Array:
            return old + rate * (leaf.astype(jnp.float32) - old) if _is_real(leaf) else leaf

        return jax.tree.map(toward, average, new)


def begin(tree: Any) -> Any:
    """The average before the first update: a copy in float32."""

    def copy(leaf: jax.Array) -> jax.Array:
        # Always a buffer of its own: the step is donated the parameters and the average alike.
        return jnp.array(leaf, jnp.float32 if _is_real(leaf) else leaf.dtype, copy=True)

    return jax.tree.map(copy, tree)


def _is_real(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)
