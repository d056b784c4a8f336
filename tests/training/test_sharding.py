"""Where arrays live."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from swin_jax.training import sharding


def shape(*axes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(axes, np.float32)


def specs(tree: dict[str, jax.ShapeDtypeStruct], fsdp: int, **options: object) -> dict[str, P]:
    mesh = sharding.make_mesh(fsdp=fsdp, devices=jax.devices()[:8])
    return {
        name: found.spec
        for name, found in sharding.state_shardings(tree, mesh, **options).items()  # type: ignore[arg-type]
    }


def test_largest_divisible_axis_is_split_and_small_leaves_are_not() -> None:
    tree = {"wide": shape(96, 384), "tall": shape(510, 96), "odd": shape(513, 97), "small": shape(64, 64)}
    assert specs(tree, 4) == {"wide": P(None, "fsdp"), "tall": P(None, "fsdp"), "odd": P(), "small": P()}
    assert set(specs(tree, 1).values()) == {P()}


def test_rules_override_and_are_checked() -> None:
    tree = {"kernel": shape(96, 384)}
    assert specs(tree, 4, rules=((r"kern", ("fsdp", None)),)) == {"kernel": P("fsdp", None)}
    with pytest.raises(ValueError, match=r"kernel of shape \(96, 384\) does not fit"):
        specs(tree, 4, rules=((r"kern", ("model",)),))
    with pytest.raises(ValueError, match="names 3 axes"):
        specs(tree, 4, rules=((r"kern", (None, None, "fsdp")),))


def test_mesh_errors() -> None:
    with pytest.raises(ValueError, match=r"mesh.fsdp is 3, which does not divide the 8 devices"):
        sharding.make_mesh(fsdp=3)
    with pytest.raises(ValueError, match=r"mesh.platform is 'tpu', but this machine offers cpu"):
        sharding.select_devices("tpu")


@pytest.mark.parametrize("devices", [1, 8])
def test_rows_go_to_the_devices_and_come_back_in_order(devices: int) -> None:
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    rows = np.arange(16, dtype=np.uint32)
    placed = sharding.put_batch({"example_index": rows}, mesh)["example_index"]
    assert len(placed.addressable_shards) == devices
    np.testing.assert_array_equal(sharding.local_rows(placed), rows)


def test_path_names() -> None:
    paths = [
        sharding.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path({"a": {"b": [1, 2]}})
    ]
    assert paths == ["a/b/0", "a/b/1"]
