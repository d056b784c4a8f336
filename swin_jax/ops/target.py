"""What a program is being traced for: the platform that it will run on, and the mesh that it is split over.

A kernel is chosen in Python while the program is traced, because a program for one platform cannot hold the kernel of
another. The compiler cannot look into a kernel either, so that it cannot split one: on a mesh each device runs it on
its own rows.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

MIB = 2**20
ON_CHIP = {"TPU v2": 16, "TPU v3": 16, "TPU v4": 16, "TPU v5": 64, "TPU v5p": 64, "TPU7x": 64}
"""MiB of vector memory of one core, by the kind of the device (`TpuInfo` of Pallas); others have `MOST_ON_CHIP`."""
MOST_ON_CHIP = 128

_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def traced_for(mesh: Mesh | None) -> Iterator[None]:
    """Within it, `platform` and `on_each_device` mean the devices of `mesh`, which may be devices that are not here.

    None, as outside of it, means one device of the default backend.
    """
    token = _mesh.set(mesh)
    try:
        yield
    finally:
        _mesh.reset(token)


def for_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` that is always traced for `mesh`: what to give to `jax.jit`."""

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with traced_for(mesh):
            return function(*arguments)

    return traced


def platform() -> str:
    """The platform that is traced for: "cpu", "gpu" or "tpu"."""
    mesh = _mesh.get()
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def device_kind() -> str:
    """What jax calls the device that is traced for, such as "TPU v5 lite"."""
    mesh = _mesh.get()
    return (jax.devices()[0] if mesh is None else mesh.devices.flat[0]).device_kind


def on_chip_memory() -> int:
    """Bytes of vector memory of a core of the TPU that is traced for; of a v5e's where it is no TPU."""
    return ON_CHIP.get(device_kind(), MOST_ON_CHIP) * MIB


def on_each_device(
    function: Callable[..., Any], arguments: Sequence[jax.Array], *, split: Sequence[bool]
) -> Any:
    """`function(*arguments)`, run by each device of the mesh on its own rows.

    Args:
      function: of arrays; all its results are split by rows.
      arguments: its arrays.
      split: which of them are split by rows (their first axis); every device holds the others whole. Gradients of
        these are summed over the devices.

    Rows that do not divide by the number of devices, such as the one row of an initialisation, are not split.
    """
    mesh = _mesh.get()
    rows = next(x.shape[0] for x, is_split in zip(arguments, split, strict=True) if is_split)
    if mesh is None or mesh.size == 1 or rows % mesh.size:
        return function(*arguments)
    by_rows = P(mesh.axis_names)
    specs = tuple(by_rows if is_split else P() for is_split in split)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=by_rows, check_vma=False)(*arguments)
