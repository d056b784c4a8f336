"""Swin with each implementation of its blocks: the same numbers, whole, in loops, recomputed and on several devices."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.swin import SwinTransformer
from swin_jax.ops import target
from swin_jax.training.sharding import batch_sharding, make_mesh

# A stage whose map has whole windows, and a head size that all kernels take.
MICRO = {"embed_dim": 16, "depths": (2,), "num_heads": (1,), "window_size": 2, "num_classes": 3}
KERNELS = ("pallas_tpu_interpret", "pallas_tpu_blocks_interpret", "pallas_gpu_interpret")


def model(implementation: str, **changes: object) -> SwinTransformer:
    return SwinTransformer(**MICRO | {"implementation": implementation} | changes)  # type: ignore[arg-type]


def images(batch: int = 2) -> jax.Array:
    return jnp.asarray(np.random.RandomState(0).standard_normal((batch, 16, 16, 3)), jnp.float32)


@pytest.fixture(scope="module")
def params() -> dict:
    return jax.jit(model("xla").init)(jax.random.key(0), images())["params"]


def gradients(module: SwinTransformer, params: dict, pictures: jax.Array) -> tuple[jax.Array, dict]:
    def total(params: dict) -> tuple[jax.Array, jax.Array]:
        rngs = {"dropout": jax.random.key(1)}
        logits = module.apply({"params": params}, pictures, train=True, rngs=rngs)
        return (logits * jnp.arange(3.0)[None]).sum(), logits

    found, logits = jax.grad(total, has_aux=True)(params)
    return logits, found


def close(ours: object, expected: object) -> None:
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, float(np.abs(other).max())))


@pytest.mark.parametrize("implementation", KERNELS)
def test_logits_and_gradients_are_those_of_plain_operations(params: dict, implementation: str):
    drop = {"drop_path_rate": 0.3}
    run = jax.jit(gradients, static_argnums=0)
    expected = run(model("xla", **drop), params, images())
    close(run(model(implementation, **drop), params, images()), expected)


@pytest.mark.parametrize("implementation", KERNELS)
def test_parameters_do_not_depend_on_it(params: dict, implementation: str):
    made = jax.jit(model(implementation).init)(jax.random.key(0), images())["params"]
    jax.tree.map(np.testing.assert_array_equal, made, params)


@pytest.mark.long
@pytest.mark.parametrize("execution", [{"scan": True}, {"remat": "full"}])
def test_in_loops_and_recomputed(execution: dict):
    run = jax.jit(gradients, static_argnums=0)
    deep = {"depths": (4,)}
    params = jax.jit(model("xla", **deep).init)(jax.random.key(0), images())["params"]
    expected = run(model("xla", **deep), params, images())
    close(run(model("pallas_tpu_blocks_interpret", **deep, **execution), params, images()), expected)


@pytest.mark.long
@pytest.mark.parametrize("implementation", KERNELS)
def test_on_several_devices(params: dict, implementation: str):
    mesh = make_mesh(fsdp=2)
    pictures = images(mesh.size)
    expected = jax.jit(gradients, static_argnums=0)(model("xla"), params, pictures)
    placed = jax.device_put(pictures, batch_sharding(mesh))
    run = target.for_mesh(mesh, lambda params, pictures: gradients(model(implementation), params, pictures))
    compiled = jax.jit(run).lower(params, placed).compile()
    assert "all-gather" not in (compiled.as_text() or "")
    close(compiled(params, placed), expected)


def test_a_half_that_no_kernel_computes_is_said_once(params: dict, caplog: pytest.LogCaptureFixture):
    dropping = model("pallas_tpu_blocks_interpret", drop_rate=0.1)
    with caplog.at_level(logging.WARNING, logger="swin_jax"):
        jax.eval_shape(lambda: gradients(dropping, params, images()))
    said = [record.getMessage() for record in caplog.records if "half of a block" in record.getMessage()]
    assert said == ["half of a block runs as several operations instead of one kernel: it has dropout"]
