"""What a program is traced for: the platform, and kernels on each device of a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from swin_jax.ops import target


@pytest.fixture
def mesh() -> jax.sharding.Mesh:
    axis_types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((len(jax.devices()) // 2, 2), ("data", "fsdp"), axis_types=axis_types)


def test_the_platform_is_that_of_the_mesh_and_by_default_of_the_backend(mesh: jax.sharding.Mesh):
    assert target.platform() == jax.default_backend()
    with target.traced_for(mesh):
        assert target.platform() == mesh.devices.flat[0].platform
    assert target.platform() == jax.default_backend()


@pytest.mark.parametrize(
    ("kind", "size"),
    [("TPU v4", 16), ("TPU v5 lite", 128), ("TPU v5", 64), ("TPU v6 lite", 128), ("cpu", 128)],
)
def test_on_chip_memory_is_that_of_the_generation(kind: str, size: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(target, "device_kind", lambda: kind)
    assert target.on_chip_memory() == size * 2**20


def test_each_device_runs_its_rows_and_gradients_of_what_is_whole_are_summed(mesh: jax.sharding.Mesh):
    rows = jnp.arange(4.0 * mesh.size).reshape(2 * mesh.size, 2)
    whole = jnp.array([[2.0, 3.0]])
    shapes = []

    def kernel(rows: jax.Array, whole: jax.Array) -> jax.Array:
        shapes.append(rows.shape)
        return rows * whole

    def total(rows: jax.Array, whole: jax.Array) -> jax.Array:
        return (target.on_each_device(kernel, (rows, whole), split=(True, False)) ** 2).sum()

    gradients = jax.jit(jax.grad(target.for_mesh(mesh, total), argnums=(0, 1)))(rows, whole)
    assert set(shapes) == {(2, 2)}
    np.testing.assert_allclose(gradients[0], 2 * rows * whole**2)
    np.testing.assert_allclose(gradients[1], (2 * rows**2 * whole).sum(axis=0, keepdims=True))


def test_rows_that_do_not_divide_are_not_split(mesh: jax.sharding.Mesh):
    with target.traced_for(mesh):
        out = target.on_each_device(lambda x: x + 1, (jnp.zeros((1, 3)),), split=(True,))
    np.testing.assert_array_equal(out, np.ones((1, 3)))
