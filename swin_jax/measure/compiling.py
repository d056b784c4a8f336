"""A training step compiled for TPUs that are not here: memory, traffic and collectives of one device."""

import re
import time
from typing import Any, NamedTuple

import jax

from swin_jax.measure.described import GIB
from swin_jax.measure.flops import matmul_flops
from swin_jax.measure.hlo import Collective, Program, Traffic
from swin_jax.measure.step import StepProgram

LARGEST = 10  # operations that are named


class Compiled(NamedTuple):
    """What the compiler says of one device's program; sizes in bytes.

    Attributes:
      devices: that share a batch.
      compile_seconds: on this machine's CPU.
      arguments: state and batch.
      outputs: what is not written over the donated state.
      temporaries: everything in between.
      peak: arguments, outputs, temporaries and the program's own code.
      hbm: what the device has.
      bytes_per_image: of HBM read and written.
      flops_per_image: of matrix products, recomputation included.
      collectives: kind -> count and bytes, of one step.
      open_loops: loops whose length the data decide, counted once.
      largest: the operations with the most HBM traffic.
    """

    devices: int
    images_per_device: int
    compile_seconds: float
    arguments: int
    outputs: int
    temporaries: int
    peak: int
    hbm: int
    bytes_per_image: float
    flops_per_image: float
    collectives: dict[str, Collective]
    open_loops: list[str]
    largest: list[Traffic]


def compile_described(program: StepProgram, hbm: int) -> Compiled:
    """Compiles the step for the devices of its mesh.

    Raises:
        ValueError: it does not fit their memory.
    """
    (images, *_) = program.batch["valid"].shape
    traced = program.trace()
    start = time.perf_counter()
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        raise _out_of_memory(error, hbm) or error from error
    seconds = time.perf_counter() - start
    memory, optimised = compiled.memory_analysis(), Program(compiled.as_text() or "")
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    total = memory.argument_size_in_bytes + outputs + memory.temp_size_in_bytes
    devices = program.mesh.size
    return Compiled(
        devices=devices,
        images_per_device=images // devices,
        compile_seconds=seconds,
        arguments=memory.argument_size_in_bytes,
        outputs=outputs,
        temporaries=memory.temp_size_in_bytes,
        peak=total + memory.generated_code_size_in_bytes,
        hbm=hbm,
        bytes_per_image=optimised.hbm_bytes() * devices / images,
        flops_per_image=matmul_flops(traced.jaxpr.jaxpr) / images,
        collectives=optimised.collectives(),
        open_loops=optimised.open_loops(),
        largest=optimised.largest(LARGEST),
    )


def _out_of_memory(error: Exception, hbm: int) -> ValueError | None:
    """The compiler's refusal as one sentence; None if it is another error."""
    used = re.search(r"Used ([\d.]+[KMGT]) of ([\d.]+[KMGT]) hbm", str(error))
    if used is None:
        return None
    return ValueError(
        f"the step does not fit: it uses {used[1]} of the {used[2]} that a device of {hbm / GIB:.0f} GiB leaves; "
        f"raise accumulation, set model.remat (weight_dots, then full), or raise mesh.fsdp"
    )


def report(title: str, found: Compiled) -> str:
    """The figures as text."""
    lines = [
        title,
        f"{found.devices} devices, {found.images_per_device} images each; compiled in {found.compile_seconds:.0f} s",
        f"memory of a device   {_gigabytes(found.peak)} of {_gigabytes(found.hbm)} ({found.peak / found.hbm:.0%}): "
        f"arguments {_gigabytes(found.arguments)}, outputs {_gigabytes(found.outputs)}, "
        f"temporaries {_gigabytes(found.temporaries)}",
        f"HBM traffic          {found.bytes_per_image / 1e6:,.0f} MB an image",
        f"matrix products      {found.flops_per_image / 1e9:,.1f} GFLOP an image",
    ]
    for kind, collective in found.collectives.items():
        lines.append(f"{kind:<20} {collective.times} a step, {collective.bytes / 1e6:,.1f} MB together")
    if not found.collectives:
        lines.append("collectives          none")
    if found.open_loops:
        lines.append(f"counted once         {len(found.open_loops)} loops whose length the data decide")
    lines.append("most HBM traffic")
    for one in found.largest:
        lines.append(f"  {one.bytes / 1e6:>9,.1f} MB  {one.name}  {one.origin[-70:]}")
    return "\n".join(lines)


def as_json(title: str, found: Compiled) -> dict[str, Any]:
    collectives = {kind: collective._asdict() for kind, collective in found.collectives.items()}
    largest = [one._asdict() for one in found.largest]
    return {"program": title, **found._asdict(), "collectives": collectives, "largest": largest}


def _gigabytes(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
