"""Resizing to sizes known at run time equals resizing to them."""

import jax
import numpy as np
from jax import numpy as jnp

from swin_jax.ops.canvas import resize_to_canvas
from swin_jax.ops.resize import resize_bilinear


def test_one_program_resizes_to_any_size_through_another() -> None:
    maps = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 5, 4)), jnp.float32)
    sizes = np.asarray([[31, 17], [24, 20], [7, 32]], np.int32)
    resize = jax.jit(lambda maps, sizes: resize_to_canvas(maps, sizes, through=(24, 20), canvas=(32, 32)))
    found = np.asarray(resize(maps, sizes))
    assert found.shape == (3, 32, 32, 4)
    for row, (height, width) in enumerate(sizes.tolist()):
        expected = resize_bilinear(resize_bilinear(maps[row : row + 1], (24, 20)), (height, width))[0]
        np.testing.assert_allclose(found[row, :height, :width], expected, atol=2e-5)
        assert not found[row, height:].any()
        assert not found[row, :, width:].any()
