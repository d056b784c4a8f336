"""The device mesh and where every array lives on it.

One mesh with the axes `data` and `fsdp`. The batch is split over both; parameters and everything shaped like
them (moments, averages) are replicated when `fsdp` is 1, else split along their largest divisible axis.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Device: TypeAlias = Any  # jax.Device, which type checkers take for a variable
BATCH_AXES = ("data", "fsdp")
# Leaves below this many values stay on every device: splitting them costs more messages than it saves bytes.
SMALLEST_SPLIT = 2**14


def select_devices(platform: str | None = None) -> list[Device]:
    """All devices of `platform` ("cpu", "gpu", "tpu"), or of the default one for None.

    Raises:
        ValueError: there is no device of that kind.
    """
    try:
        return list(jax.devices(platform))
    except RuntimeError as error:
        present = sorted({device.platform for device in jax.devices()})
        raise ValueError(
            f"mesh.platform is {platform!r}, but this machine offers {', '.join(present)}; "
            f"choose one of these or install the matching jax plugin ({str(error).splitlines()[0]})"
        ) from error


def make_mesh(*, fsdp: int = 1, devices: Sequence[Device] | None = None) -> Mesh:
    """A mesh `(data, fsdp)` over `devices` (default: all). Axis type Auto: the compiler places activations.

    The devices of a host lie together and in the order of the hosts, so that row r of a batch, which host
    r n // B reads, is row r of the global array.

    Raises:
        ValueError: `fsdp` does not divide the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(f"mesh.fsdp is {fsdp}, which does not divide the {len(devices)} devices")
    shape = (len(devices) // fsdp, fsdp)
    axis_types = (AxisType.Auto, AxisType.Auto)
    if len({device.process_index for device in devices}) > 1:
        # make_mesh would order them by the network's topology, whatever host they belong to.
        in_order = sorted(devices, key=lambda device: (device.process_index, device.id))
        return Mesh(np.asarray(in_order).reshape(shape), BATCH_AXES, axis_types=axis_types)
    return jax.make_mesh(shape, BATCH_AXES, axis_types=axis_types, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis (rows of the global batch) over all devices."""
    return NamedSharding(mesh, P(BATCH_AXES))


def constrain_rows(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """Keeps activations split by rows at the places where a model calls it. Without it, sharded parameters
    could lead the compiler to split channels instead. One row, as at initialisation, passes unchanged."""
    sharding = batch_sharding(mesh)

    def constrain(x: jax.Array) -> jax.Array:
        return x if x.shape[0] % mesh.size else jax.lax.with_sharding_constraint(x, sharding)

    return constrain


def state_shardings(tree: Any, mesh: Mesh, rules: Sequence[tuple[str, tuple[str | None, ...]]] = ()) -> Any:
    """A sharding for each leaf of `tree` (arrays or `ShapeDtypeStruct`s).

    Args:
        rules: pairs (pattern, axis names), tried in order with `re.search` on the leaf's path "a/b/c"; they
            override the automatic choice, e.g. `(r"head/kernel$", (None, "fsdp"))`.

    Raises:
        ValueError: a rule names more axes than the leaf has, or one that does not divide.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = path_name(path)
        for pattern, axes in rules:
            if re.search(pattern, name):
                return NamedSharding(mesh, _checked(axes, leaf.shape, name, mesh))
        return NamedSharding(mesh, _automatic(leaf.shape, mesh.shape["fsdp"]))

    return jax.tree_util.tree_map_with_path(place, tree)


def _automatic(shape: tuple[int, ...], fsdp: int) -> P:
    if fsdp == 1 or math.prod(shape) < SMALLEST_SPLIT:
        return P()
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if not divisible:
        return P()
    widest = max(divisible, key=lambda axis: shape[axis])
    return P(*("fsdp" if axis == widest else None for axis in range(widest + 1)))


def _checked(axes: tuple[str | None, ...], shape: tuple[int, ...], name: str, mesh: Mesh) -> P:
    if len(axes) > len(shape):
        raise ValueError(f"sharding rule {axes} for {name} names {len(axes)} axes, its shape is {shape}")
    for axis, size in zip(axes, shape, strict=False):
        if axis is not None and (axis not in mesh.shape or size % mesh.shape[axis]):
            raise ValueError(
                f"sharding rule {axes} for {name} of shape {shape} does not fit mesh {dict(mesh.shape)}"
            )
    return P(*axes)


def path_name(path: Sequence[Any]) -> str:
    """A jax key path as "a/b/c", the form in which rules and reports name parameters."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's rows of a batch, to the devices, as global arrays. Returns before the copies are done."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def local_rows(array: jax.Array) -> np.ndarray:
    """This host's rows of a global array that is split by rows (or whole on every device), in order."""
    if array.is_fully_addressable:
        return np.asarray(array)
    pieces = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)])
