"""Swin-T compiled for accelerators that are not here: what its programs move, and ceilings that they must not pass.

A program is of one device. "block forward" and "block training" are the first stage's shifted block
without and with its gradient, "forward" the whole Swin-T, on 64 pictures each. All are bfloat16, 224 x 224.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from swin_jax.measure.hlo import FREE, Program
from swin_jax.models.registry import create_model
from swin_jax.models.swin import SwinBlock, SwinTransformer
from swin_jax.models.token_mixing import make_mixer
from swin_jax.ops import target

CEILINGS = Path(__file__).with_name("ceilings.json")
PICTURES = 64
MODEL = "swin_tiny_patch4_window7_224"
PARTS = {"block": ("block forward", "block training"), "models": ("forward",)}


class Figures(NamedTuple):
    """Of one program.

    Attributes:
      program, implementation, chip: what was compiled how for what.
      accessed: MB an image that its operations read and write, wherever that lies (XLA's count, kernels included).
      hbm: MB an image of HBM traffic, as read from the program.
      temporary: MB an image of temporary memory.
      operations: that are launched.
      collectives: of one run.
      compile_seconds: on this machine's CPU.
      ceiling: MB an image that `accessed` must not pass; None where none is committed.
    """

    program: str
    implementation: str
    chip: str
    accessed: float
    hbm: float
    temporary: float
    operations: int
    collectives: int
    compile_seconds: float
    ceiling: float | None

    @property
    def passed(self) -> bool:
        return self.ceiling is None or self.accessed <= self.ceiling


def measure(devices: list[Any], chip: str, implementations: tuple[str, ...], part: str) -> Iterator[Figures]:
    """Compiles the programs of `part` for one of the devices of a description, one after the other."""
    mesh = Mesh(devices[:1], ("data",))
    for program in PARTS[part]:
        for implementation in implementations:
            yield _figures(program, implementation, chip, mesh)


def failures(found: list[Figures]) -> list[str]:
    """A sentence for each program that passed its ceiling."""
    return [
        f"{one.program} of {one.implementation} on {one.chip} accesses {one.accessed:.1f} MB an image; "
        f"its ceiling is {one.ceiling:.1f}"
        for one in found
        if not one.passed
    ]


def table(found: list[Figures]) -> str:
    lines = [
        f"{'chip':<6}{'program':<16}{'implementation':<20}{'MB/image':>10}{'ceiling':>9}{'HBM MB/image':>14}"
        f"{'temporary':>11}{'operations':>12}{'collectives':>13}{'compile s':>11}"
    ]
    for one in found:
        ceiling = "" if one.ceiling is None else f"{one.ceiling:.1f}"
        lines.append(
            f"{one.chip:<6}{one.program:<16}{one.implementation:<20}{one.accessed:>10.1f}{ceiling:>9}{one.hbm:>14.1f}"
            f"{one.temporary:>11.1f}{one.operations:>12}{one.collectives:>13}{one.compile_seconds:>11.1f}"
        )
    return "\n".join(lines)


def ceiling_of(program: str, implementation: str, chip: str) -> float | None:
    committed = json.loads(CEILINGS.read_text())
    return committed.get(chip, {}).get(implementation, {}).get(program)


def _figures(program: str, implementation: str, chip: str, mesh: Mesh) -> Figures:
    function, arguments = _program(program, implementation, mesh)
    start = time.perf_counter()
    compiled = jax.jit(target.for_mesh(mesh, function)).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    read = Program(compiled.as_text() or "")
    megabytes = 1e6 * PICTURES
    costs = compiled.cost_analysis() or {}
    accessed = costs.get("bytes accessed") or read.hbm_bytes()
    memory = compiled.memory_analysis()
    assert memory is not None  # every backend that compiles for a description tells it
    launched = read.computations[read.entry].operations.values()
    return Figures(
        program=program,
        implementation=implementation,
        chip=chip,
        accessed=accessed / megabytes,
        hbm=read.hbm_bytes() / megabytes,
        temporary=memory.temp_size_in_bytes / megabytes,
        operations=sum(op.code not in FREE for op in launched),
        collectives=sum(one.times for one in read.collectives().values()),
        compile_seconds=seconds,
        ceiling=ceiling_of(program, implementation, chip),
    )


def _program(program: str, implementation: str, mesh: Mesh) -> tuple[Any, tuple[Any, ...]]:
    """What to compile, and the shapes of its arguments on the device."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def shape(*sides: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sides, dtype, sharding=everywhere)

    def placed(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: shape(*leaf.shape, dtype=leaf.dtype), tree)

    if program == "forward":
        model = create_model(MODEL, dtype=jnp.bfloat16, implementation=implementation)
        images = shape(PICTURES, 224, 224, 3)
        variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
        return model.apply, (placed(variables), images)
    model = SwinTransformer(implementation=implementation)
    block = SwinBlock(
        attention=make_mixer(model), num_heads=model.num_heads[0], shifted=True, dtype=jnp.bfloat16
    )
    x = shape(PICTURES, 56, 56, model.embed_dim)
    one = jnp.zeros((1, *x.shape[1:]), x.dtype)
    variables = placed(jax.eval_shape(lambda: block.init(jax.random.key(0), one, False)))
    factors = shape(2, PICTURES, dtype=jnp.float32)

    def forward(variables: Any, x: jax.Array, factors: jax.Array) -> Any:
        return block.apply(variables, x, True, factors)

    def training(variables: Any, x: jax.Array, factors: jax.Array, gradient: jax.Array) -> Any:
        return jax.vjp(lambda variables, x: forward(variables, x, factors), variables, x)[1](gradient)

    if program == "block forward":
        return forward, (variables, x, factors)
    return training, (variables, x, factors, x)
