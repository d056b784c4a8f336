"""Learning rates as pure functions of the step, and durations given in steps, epochs or examples."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

Real = float | int

KINDS = ("cosine", "linear", "step", "multistep", "poly", "constant")
# The options that mean something to one kind only, and what they are when not given.
_OWN_OPTIONS = {
    "end": (("cosine", "linear", "poly"), None),
    "power": (("poly",), None),
    "decay_steps": (("step",), None),
    "decay_rate": (("step", "multistep"), None),
    "milestones": (("multistep",), ()),
}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A learning rate for each update. Made by `make_schedule`, which documents and checks the fields."""

    kind: str
    peak: Real
    total_steps: int
    warmup_steps: int
    warmup_start: Real
    warmup_ratio: Real | None
    warmup_prefix: bool
    end: Real
    power: Real
    decay_steps: int
    decay_rate: Real
    milestones: tuple[int, ...]
    reference_offset: bool

    def __call__(self, step: Int[jax.Array, ""] | int | np.integer) -> Float[jax.Array, ""]:
        """The learning rate, f32, of the update with the 0-based index `step`; traceable."""
        step = jnp.asarray(step, jnp.int32)
        if self.reference_offset:
            step = jnp.maximum(step - 1, 0)
        rate = self._main(step - self.warmup_steps if self.warmup_prefix else step)
        if not self.warmup_steps:
            return rate
        progress = step.astype(jnp.float32) / self.warmup_steps
        if self.warmup_ratio is None:
            rising = self.warmup_start + (self.peak - self.warmup_start) * progress
        else:
            rising = rate * (self.warmup_ratio + (1 - self.warmup_ratio) * progress)
        return jnp.where(step < self.warmup_steps, rising, rate)

    def scaled(self, factor: Real) -> "Schedule":
        """The same schedule with `factor` times the peak; where it starts and ends stays as it is.

        So are layers slowed down in the reference's fine-tuning: peak times decay^depth, but neither the
        warm-up's start nor the end is scaled (SimMIM, Xie et al., 2022).
        """
        return dataclasses.replace(self, peak=self.peak * factor)

    def _main(self, step: Int[jax.Array, ""]) -> Float[jax.Array, ""]:
        """The rate without warm-up, `step` steps after the main schedule's own beginning."""
        span = self.total_steps - (self.warmup_steps if self.warmup_prefix else 0)
        # What is left rather than what is done: exact in f32 near the end, where rates are small.
        left = jnp.clip((span - step).astype(jnp.float32) / max(span, 1), 0.0, 1.0)
        if self.kind == "cosine":
            return self.end + (self.peak - self.end) * jnp.sin(jnp.pi / 2 * left) ** 2
        if self.kind == "linear":
            return self.end + (self.peak - self.end) * left
        if self.kind == "poly":
            return self.end + (self.peak - self.end) * left**self.power
        if self.kind == "step":
            passed = (jnp.maximum(step, 0) // self.decay_steps).astype(jnp.float32)
            return self.peak * jnp.float32(self.decay_rate) ** passed
        if self.kind == "multistep":
            passed = sum((step >= milestone).astype(jnp.float32) for milestone in self.milestones)
            return self.peak * jnp.float32(self.decay_rate) ** passed
        return jnp.float32(self.peak)


def make_schedule(
    kind: str = "cosine",
    *,
    peak: Real,
    total_steps: int,
    warmup_steps: int = 0,
    warmup_start: Real | None = None,
    warmup_ratio: Real | None = None,
    warmup_prefix: bool | None = None,
    end: Real | None = None,
    power: Real | None = None,
    decay_steps: int | None = None,
    decay_rate: Real | None = None,
    milestones: Sequence[int] = (),
    reference_offset: bool = False,
) -> Schedule:
    """A learning rate schedule. Steps are optimizer updates, counted from 0; all rates are absolute.

    With `t` the step, `T` total_steps, `W` warmup_steps, and `u = t - W`, `U = T - W` under `warmup_prefix`,
    else `u = t`, `U = T`:

    - cosine: end + (peak - end) (1 + cos(pi u / U)) / 2
    - linear: peak + (end - peak) u / U; the reference ends at 1% of its peak
    - poly: end + (peak - end) (1 - u / U)^power
    - step: peak * decay_rate^floor(u / decay_steps)
    - multistep: peak * decay_rate^(number of milestones <= u)
    - constant: peak

    From step `T` on the rate stays what it is at `T`.

    Args:
        kind: one of the above.
        peak: the highest rate, where the warm-up ends.
        total_steps: `T`.
        warmup_steps: `W`; 0 for none.
        warmup_start: during the warm-up the rate rises linearly from this one (default 0) to the peak.
        warmup_ratio: instead of `warmup_start`, the warm-up of the detection and segmentation recipes: for
            `t < W` the running schedule is multiplied by 1 - (1 - t/W)(1 - ratio).
        warmup_prefix: whether the main schedule begins after the warm-up. None takes the published
            convention: True for cosine (the released logs of Swin V1 and V2 used False: the rate drops a
            little where the warm-up ends) and linear, False for the others and with `warmup_ratio`.
        end: rate at the end of cosine, linear and poly (default 0).
        power: of poly (default 1).
        decay_steps: of step.
        decay_rate: of step and multistep (default 0.1).
        milestones: of multistep, ascending.
        reference_offset: the published code steps its scheduler after the optimizer, so that its update
            n >= 1 uses the rate of n - 1 and the first two updates use the same. True reproduces that.

    Raises:
        ValueError: unknown kind, an option that the kind does not have, or values that contradict each other.
    """
    if kind not in KINDS:
        raise ValueError(f"schedule kind is {kind!r}; expected one of {', '.join(KINDS)}")
    given = {
        "end": end,
        "power": power,
        "decay_steps": decay_steps,
        "decay_rate": decay_rate,
        "milestones": tuple(milestones),
    }
    _check_own_options(kind, given)
    if warmup_prefix is None:
        warmup_prefix = kind in ("cosine", "linear") and warmup_ratio is None
    schedule = Schedule(
        kind=kind,
        peak=peak,
        total_steps=total_steps,
        warmup_steps=warmup_steps,
        warmup_start=0.0 if warmup_start is None else warmup_start,
        warmup_ratio=warmup_ratio,
        warmup_prefix=warmup_prefix,
        end=0.0 if end is None else end,
        power=1.0 if power is None else power,
        decay_steps=1 if decay_steps is None else decay_steps,
        decay_rate=0.1 if decay_rate is None else decay_rate,
        milestones=tuple(milestones),
        reference_offset=reference_offset,
    )
    _check_values(schedule)
    _check_warmup(schedule, warmup_start)
    return schedule


def _check_own_options(kind: str, given: dict[str, Any]) -> None:
    for option, value in given.items():
        kinds, absent = _OWN_OPTIONS[option]
        if kind not in kinds and value != absent:
            raise ValueError(
                f"schedule.{option} is {value!r}, but a {kind} schedule has no such option; "
                f"it belongs to {', '.join(kinds)}: remove it"
            )
    for kind_that_needs, option in (("step", "decay_steps"), ("multistep", "milestones")):
        if kind == kind_that_needs and not given[option]:
            raise ValueError(
                f"a {kind} schedule needs schedule.{option}, in steps >= 1; got {given[option]!r}"
            )


def _check_values(schedule: Schedule) -> None:
    if schedule.total_steps < 1:
        raise ValueError(f"schedule.total_steps is {schedule.total_steps}; expected at least 1")
    for name in ("peak", "end", "warmup_start", "decay_rate", "power"):
        value = getattr(schedule, name)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"schedule.{name} is {value}; expected a finite number >= 0")
    if schedule.decay_steps < 1:
        raise ValueError(f"schedule.decay_steps is {schedule.decay_steps}; expected at least 1")
    if any(b <= a for a, b in itertools.pairwise((0, *schedule.milestones))):
        raise ValueError(f"schedule.milestones are {schedule.milestones}; expected ascending steps >= 1")


def _check_warmup(schedule: Schedule, warmup_start: Real | None) -> None:
    steps, ratio = schedule.warmup_steps, schedule.warmup_ratio
    if not 0 <= steps <= schedule.total_steps:
        raise ValueError(
            f"schedule.warmup_steps is {steps}; expected 0 to total_steps = {schedule.total_steps}: "
            "shorten the warm-up or train longer"
        )
    if ratio is None:
        return
    if not 0 <= ratio <= 1:
        raise ValueError(f"schedule.warmup_ratio is {ratio}; expected 0 to 1")
    if warmup_start is not None:
        raise ValueError(
            f"schedule.warmup_start is {warmup_start} and schedule.warmup_ratio is {ratio}; give only one"
        )
    if schedule.warmup_prefix:
        raise ValueError(
            "schedule.warmup_prefix is True with schedule.warmup_ratio; a ratio multiplies the running "
            "schedule, which then begins at step 0: leave warmup_prefix unset"
        )


def scale_lr(base: Real, total_batch: int, *, per: int = 512) -> float:
    """The linear scaling rule: `base` is the rate for updates of `per` examples, `total_batch` is what one
    update sees over all devices and micro-batches. Peak, warm-up start and end are all scaled.
    """
    if total_batch < 1 or per < 1:
        raise ValueError(f"scale_lr got total_batch={total_batch}, per={per}; expected both at least 1")
    return base * total_batch / per
