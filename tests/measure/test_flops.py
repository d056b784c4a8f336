"""FLOPs of traced programs in closed form, and of Swin beside the published formula."""

import jax
import jax.numpy as jnp
import pytest

from swin_jax.measure.flops import matmul_flops
from swin_jax.models.complexity import swin_macs
from swin_jax.models.registry import create_model

PRODUCT = 2 * 3 * 4 * 4


def flops(function, *arguments) -> int:
    return matmul_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_products_loops_and_recomputation_count_as_often_as_they_run():
    x, kernel = jnp.ones((3, 4)), jnp.ones((4, 4))

    def layer(x, _):
        return jnp.sin(x @ kernel), None

    def deep(x, remat=False):
        return jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, None, length=5)[0].sum()

    assert flops(lambda x: x @ kernel, x) == PRODUCT
    assert flops(deep, x) == 5 * PRODUCT
    assert flops(jax.grad(deep), x) == 2 * 5 * PRODUCT
    assert flops(jax.grad(lambda x: deep(x, remat=True)), x) == 3 * 5 * PRODUCT


def test_the_dearest_branch_counts():
    x = jnp.ones((4, 4))
    branches = [lambda x: x, lambda x: x @ x, lambda x: x @ x @ x]
    assert flops(lambda i, x: jax.lax.switch(i, branches, x), 1, x) == 2 * 2 * 4 * 4 * 4


@pytest.mark.parametrize("scan", [False, True])
def test_swin_agrees_with_the_published_formula(scan: bool):
    model = create_model("swin_tiny_patch4_window7_224", scan=scan)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    # The formula also counts norms, 0.4% of the whole.
    assert flops(model.apply, variables, images) / 2 == pytest.approx(swin_macs(model, 224, 224), rel=0.006)
