"""Inference and training step on the device at hand, beside timm's in the same minutes."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.measure.step import StepProgram
from swin_jax.measure.timing import Spread, interleaved, ratios
from swin_jax.measure.torch_peer import Peer
from swin_jax.ops.target import for_mesh
from swin_jax.tasks.pictures.speeds import Speed
from swin_jax.tasks.task import Task
from swin_jax.training.sharding import put_batch

OURS = "swin_jax"


class Contender(NamedTuple):
    """Something to time.

    Attributes:
      run: does it once, to the end.
      compile_seconds: None where nothing is compiled ahead.
      temporaries: bytes between its arguments and its results; None where unknown.
    """

    run: Callable[[], object]
    compile_seconds: float | None = None
    temporaries: int | None = None


class Timing(NamedTuple):
    """One contender's figures; `speedup` is how many times as fast `swin_jax` is, None for itself."""

    work: str
    name: str
    seconds: Spread
    images_per_second: Spread
    speedup: Spread | None
    compile_seconds: float | None
    temporaries: int | None


def inference(task: Task, program: StepProgram) -> Contender:
    """The model in evaluation mode on normalised pictures of random numbers."""

    def logits(variables: Any, images: jax.Array) -> Any:
        return task.model.apply(variables, images, train=False)

    params, model_state = jax.jit(task.init)(jax.random.key(0))
    variables = {"params": params, **model_state}
    field = program.batch["image"]
    draw = np.random.default_rng(0).standard_normal(field.shape, np.float32)
    images = jax.device_put(jnp.asarray(draw), field.sharding)
    compiled, seconds = _compiled(jax.jit(for_mesh(program.mesh, logits)).lower(variables, images))
    return Contender(
        lambda: jax.block_until_ready(compiled(variables, images)), seconds, _temporaries(compiled)
    )


def training_step(state: Any, program: StepProgram) -> Contender:
    """The whole step of `swin_jax.train`, from uint8 pictures to new parameters; `state` is given away."""
    draw = np.random.default_rng(0)
    batch = {
        name: draw.integers(2, size=field.shape).astype(field.dtype) for name, field in program.batch.items()
    }
    batch["image"] = draw.integers(256, size=program.batch["image"].shape).astype(np.uint8)
    batch["valid"][:] = True
    placed = put_batch(batch, program.mesh)
    compiled, seconds = _compiled(program.trace().lower())
    held = [state]

    def run() -> object:
        held[0], report = compiled(held[0], placed, program.step.key)
        return jax.block_until_ready((held[0], report))

    return Contender(run, seconds, _temporaries(compiled))


def peers(
    make: Callable[[], Peer], work: str, *, compile_too: bool, library: str = "timm"
) -> dict[str, Contender]:
    """A library's counterparts of `work`, "inference" or "training": eager, and compiled on request."""
    kinds = {f"{library} eager": False} | ({f"{library} compiled": True} if compile_too else {})
    found = {}
    for name, compiled in kinds.items():
        peer = make()
        run = (
            peer.inference(compiled=compiled)
            if work == "inference"
            else peer.training_step(compiled=compiled)
        )
        start = time.perf_counter()
        if compiled:
            run()
        found[name] = Contender(run, time.perf_counter() - start if compiled else None)
    return found


def measure(
    work: str, contenders: Mapping[str, Contender], images: int, *, repeats: int, seconds: float, clock: str
) -> list[Timing]:
    """Times the contenders of one kind of work in turn; `swin_jax` must be among them."""
    runs = {name: one.run for name, one in contenders.items()}
    times = interleaved(runs, repeats=repeats, seconds=seconds, clock=clock)
    return [
        Timing(
            work=work,
            name=name,
            seconds=Spread.of(times[name]),
            images_per_second=Spread.of([images / value for value in times[name]]),
            speedup=None if name == OURS else ratios(times[OURS], times[name]),
            compile_seconds=one.compile_seconds,
            temporaries=one.temporaries,
        )
        for name, one in contenders.items()
    ]


def table(timings: list[Timing]) -> str:
    """The timings as text, with median (min .. max)."""
    lines = [
        f"{'':<10}{'':<15}{'images/s':>26}{'ms':>32}{'swin_jax is faster by':>25}{'compile s':>11}{'temporary MB':>14}"
    ]
    for one in timings:
        lines.append(
            f"{one.work:<10}{one.name:<15}{one.images_per_second.text():>26}"
            f"{Spread(*(1000 * value for value in one.seconds)).text():>32}"
            f"{'' if one.speedup is None else one.speedup.text(2):>25}"
            f"{'' if one.compile_seconds is None else f'{one.compile_seconds:.1f}':>11}"
            f"{'' if one.temporaries is None else f'{one.temporaries / 1e6:,.0f}':>14}"
        )
    return "\n".join(line.rstrip() for line in lines)


def as_bar(one: Timing) -> Speed:
    """For the picture."""
    return Speed(one.name, *one.images_per_second, ours=one.name == OURS)


def as_json(one: Timing) -> dict[str, Any]:
    spreads = {name: getattr(one, name) for name in ("seconds", "images_per_second", "speedup")}
    plain = {
        name: spread and {k: round(v, 5) for k, v in spread._asdict().items()}
        for name, spread in spreads.items()
    }
    return {**one._asdict(), **plain}


def _compiled(lowered: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    compiled = lowered.compile()
    return compiled, time.perf_counter() - start


def _temporaries(compiled: Any) -> int | None:
    memory = compiled.memory_analysis()
    return None if memory is None else memory.temp_size_in_bytes
