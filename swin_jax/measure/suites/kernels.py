"""The attention kernel alone on the accelerator at hand: against plain XLA operations, and against the memory."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from swin_jax.measure.timing import Spread, interleaved, ratios
from swin_jax.ops.window_attention import window_attention

PICTURES = 128
COPIED = 2**28  # float32 values: far more than any cache holds
# Side of the map, heads and shift of Swin-T's stages.
STAGES = ((56, 3, 3), (28, 6, 3), (14, 12, 3), (7, 24, 0))
HEAD = 32
MOVED = {"forward": 4, "backward": 7}
"""Maps of C channels that a kernel cannot avoid to move: qkv and result; qkv, gradient and qkv's gradient."""


class KernelTiming(NamedTuple):
    """Of one stage; `bandwidth` is a part of what a copy of a large array reaches in the same run."""

    stage: int
    work: str
    microseconds: Spread
    speedup: Spread
    bandwidth: float


def measure(implementation: str, *, repeats: int, seconds: float) -> Iterator[KernelTiming]:
    """Times each stage, the XLA form beside it. "backward" is the whole gradient but for the forward kernel."""
    large = jnp.zeros(COPIED, jnp.float32)
    copy = _timed({"copy": (jax.jit(lambda x: x + 1), (large,))}, repeats, seconds)["copy"]
    bandwidth = 2 * large.nbytes / Spread.of(copy).median
    for stage, (side, heads, shift) in enumerate(STAGES):
        channels = heads * HEAD
        keys = jax.random.split(jax.random.key(stage), 3)
        qkv = jax.random.normal(keys[0], (PICTURES, side, side, 3 * channels), jnp.bfloat16)
        gradient = jax.random.normal(keys[1], (PICTURES, side, side, channels), jnp.bfloat16)
        bias = jax.random.normal(keys[2], (heads, 49, 49), jnp.float32)
        for work, moved in MOVED.items():
            times = _timed(
                {name: _work(work, name, shift, qkv, bias, gradient) for name in (implementation, "xla")},
                repeats,
                seconds,
            )
            found = Spread.of(times[implementation])
            yield KernelTiming(
                stage,
                work,
                Spread(*(1e6 * value for value in found)),
                ratios(times[implementation], times["xla"]),
                moved * gradient.nbytes / found.median / bandwidth,
            )


def _work(
    work: str, implementation: str, shift: int, qkv: jax.Array, bias: jax.Array, gradient: jax.Array
) -> tuple[Any, tuple[jax.Array, ...]]:
    def attend(qkv: jax.Array, bias: jax.Array) -> jax.Array:
        padding = jnp.zeros(qkv.shape[-1], qkv.dtype)
        fixed = {"window": 7, "shift": shift, "scale": HEAD**-0.5, "implementation": implementation}
        return window_attention(qkv, bias, pad_qkv=padding, **fixed)

    if work == "forward":
        return jax.jit(attend), (qkv, bias)
    return jax.jit(lambda qkv, bias, gradient: jax.vjp(attend, qkv, bias)[1](gradient)), (qkv, bias, gradient)


def _timed(
    contenders: dict[str, tuple[Any, tuple[jax.Array, ...]]], repeats: int, seconds: float
) -> dict[str, list[float]]:
    runs = {
        name: (lambda run=run, arguments=arguments: jax.block_until_ready(run(*arguments)))
        for name, (run, arguments) in contenders.items()
    }
    return interleaved(runs, repeats=repeats, seconds=seconds)


def row(one: KernelTiming) -> str:
    return (
        f"stage {one.stage} {one.work:<9}{one.microseconds.text():>28} us{one.speedup.text(2):>22} times as fast as XLA"
        f"{one.bandwidth:>7.0%} of a copy's bandwidth"
    )
