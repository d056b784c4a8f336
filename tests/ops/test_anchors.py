"""Anchors against OpenMMLab's numbers, published figures and hand-made cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import anchors

SIZES = ((6, 8), (3, 4), (2, 2), (1, 1), (1, 1))
RATIOS = (0.5, 1.0, 2.0)


@pytest.mark.parametrize(
    ("name", "strides", "ratios"),
    [("rpn", (4, 8, 16, 32, 64), RATIOS), ("atss", (8, 16, 32, 64, 128), (1.0,))],
)
def test_anchors_are_openmmlabs(golden, name: str, strides: tuple[int, ...], ratios: tuple[float, ...]):
    found = anchors.pyramid_anchors(SIZES, strides, scales=(8,), ratios=ratios)
    for level, ours in enumerate(found):
        np.testing.assert_allclose(ours, golden("openmmlab_boxes")[f"anchors/{name}/{level}"], atol=1e-4)


def test_the_first_anchor_is_centred_on_the_corner():
    first = anchors.cell_anchors(4, (8,), RATIOS)[0]
    np.testing.assert_allclose(first, [-22.627, -11.314, 22.627, 11.314], atol=1e-3)


def test_scales_vary_within_a_ratio():
    cell = anchors.cell_anchors(8, (1, 2), (1.0, 4.0))
    np.testing.assert_allclose(cell[:, 2], [4, 8, 2, 4])
    np.testing.assert_allclose(cell[:, 3], [4, 8, 8, 16])


def test_the_published_canvas_has_268569_anchors():
    strides = (4, 8, 16, 32, 64)
    sizes = [(-(-800 // stride), -(-1344 // stride)) for stride in strides]
    shapes = jax.eval_shape(lambda: anchors.pyramid_anchors(sizes, strides, scales=(8,), ratios=RATIOS))
    assert sum(level.shape[0] for level in shapes) == 268569


def test_cells_beyond_the_padded_picture_take_no_part():
    (fine, coarse) = anchors.valid_cells(((24, 32), (2, 2)), (4, 64), jnp.array([40, 97]), per_cell=3)
    fine = np.asarray(fine).reshape(24, 32, 3)
    assert fine[:16].all(
        where=np.arange(32)[None, :, None] < 32
    )  # 40 pads to 64: 16 rows; 97 to 128: 32 columns
    assert not fine[16:].any()
    coarse = np.asarray(coarse).reshape(2, 2, 3)
    np.testing.assert_array_equal(coarse[..., 0], [[True, True], [False, False]])


def test_anchors_inside_are_those_not_beyond_the_border():
    boxes = jnp.array([[0.0, 0, 10, 10], [-1, 0, 10, 10], [0, 0, 20, 10], [0, 0, 10, 30], [5, 5, 19.9, 29.9]])
    picture = jnp.array([30, 20])
    np.testing.assert_array_equal(anchors.inside(boxes, picture), [True, False, False, False, True])
    assert anchors.inside(boxes, picture, border=2).all()


def test_names_are_distinct_and_the_same_on_a_larger_canvas():
    small = anchors.pyramid_names(((3, 4), (2, 2)), per_cell=3)
    large = anchors.pyramid_names(((5, 9), (4, 4)), per_cell=3)
    both = np.concatenate(small)
    assert len(set(both.tolist())) == len(both)
    for (rows, columns), one, other in zip(((3, 4), (2, 2)), small, large, strict=True):
        shape = (5, 9, 3) if rows == 3 else (4, 4, 3)
        np.testing.assert_array_equal(
            np.asarray(one).reshape(rows, columns, 3), np.asarray(other).reshape(shape)[:rows, :columns]
        )


def test_names_of_too_large_a_pyramid_are_refused():
    with pytest.raises(ValueError, match="at most 8 levels"):
        anchors.pyramid_names(((5000, 4),), per_cell=3)
