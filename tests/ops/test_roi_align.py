"""RoIAlign, both forms, against mmcv's kernels, closed forms and a loop over points."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops.roi_align import ADAPTIVE, level_of, roi_align

METHODS = ("gather", "separable")


def by_picture(rois: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RoIs with their picture in front as boxes [2, n, 4], padded, and which row of them each one is."""
    numbers = rois[:, 0].astype(int)
    most = np.bincount(numbers).max()
    boxes, place = np.zeros((2, most, 4), np.float32), np.zeros(len(rois), int)
    for picture in (0, 1):
        here = np.flatnonzero(numbers == picture)
        boxes[picture, : len(here)] = rois[here, 1:]
        place[here] = picture * most + np.arange(len(here))
    return boxes, place


@pytest.mark.parametrize(("method", "sampling"), [("separable", ADAPTIVE), ("separable", 2), ("gather", 2)])
def test_features_and_gradients_are_mmcvs(golden, method: str, sampling: int):
    """Random boxes, and empty, outside, tiny, enormous ones; the gradient of the features for a random upstream."""
    reference = golden("openmmlab_rois")
    features = reference["roi_align/input"].transpose(0, 2, 3, 1)
    boxes, place = by_picture(reference["roi_align/rois"])
    expected = {
        what: reference[f"roi_align/out7_sampling{sampling}/{what}"].transpose(0, 2, 3, 1)
        for what in ("output", "upstream", "grad_input")
    }

    align = partial(roi_align, sampling=sampling, method=method, chunk=8)

    @jax.jit
    def of(features):
        found = align([features], jnp.asarray(boxes), strides=(4,), size=7)
        found = found.reshape(-1, 7, 7, 6)[place]
        return jnp.sum(found * expected["upstream"]), found

    (_, found), gradient = jax.value_and_grad(of, has_aux=True)(jnp.asarray(features))
    np.testing.assert_allclose(found, expected["output"], atol=1e-5)
    np.testing.assert_allclose(gradient, expected["grad_input"], atol=1e-4)


def test_gathering_as_many_points_as_a_box_has_cells_is_mmcvs(golden):
    """Adaptive sampling point by point; without the box of 3000 pixels, of 11,664 points a bin, which the matrices have
    done. The gradient is that of the matrices."""
    reference = golden("openmmlab_rois")
    features = jnp.asarray(reference["roi_align/input"].transpose(0, 2, 3, 1))
    boxes, place = by_picture(reference["roi_align/rois"][:-1])
    expected = reference["roi_align/out7_sampling0/output"].transpose(0, 2, 3, 1)[:-1]
    upstream = reference["roi_align/out7_sampling0/upstream"].transpose(0, 2, 3, 1)[:-1]

    def of(features, method):
        found = roi_align([features], jnp.asarray(boxes), strides=(4,), size=7, method=method)
        found = found.reshape(-1, 7, 7, 6)[place]
        return jnp.sum(found * upstream), found

    both = jax.jit(jax.value_and_grad(of, has_aux=True), static_argnums=1)
    (_, found), gradient = both(features, "gather")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(gradient, both(features, "separable")[1], atol=1e-4)


def test_levels_are_openmmlabs(golden):
    reference = golden("openmmlab_boxes")
    found = level_of(jnp.asarray(reference["roi_levels/rois"][:, 1:]), 4)
    np.testing.assert_array_equal(found, reference["roi_levels/levels"])


def test_levels_change_at_112_224_and_448_pixels():
    sides = np.array([1, 56, 111.99, 112, 223.99, 224, 447.98, 448, 5000, 0], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    np.testing.assert_array_equal(level_of(jnp.asarray(boxes), 4), [0, 0, 0, 1, 1, 2, 2, 3, 3, 0])
    np.testing.assert_array_equal(level_of(jnp.asarray(boxes), 1), np.zeros(10))


def linear_pyramid(strides: tuple[int, ...]) -> list[jax.Array]:
    """Two channels that hold x and y of every cell's centre in pixels, on a canvas of 256 x 320."""
    levels = []
    for stride in strides:
        y, x = np.meshgrid(np.arange(256 // stride), np.arange(320 // stride), indexing="ij")
        levels.append(jnp.asarray((np.stack([x, y], -1)[None] + 0.5) * stride, jnp.float32))
    return levels


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sampling", [ADAPTIVE, 3])
def test_a_linear_field_is_read_at_the_middle_of_the_bins(method: str, sampling: int):
    """Each box on its own level: whatever the level and the points, a linear field gives the bin's centre."""
    strides = (4, 8, 16, 32)
    boxes = np.array(
        [[[20.3, 31.0, 61.2, 90.4], [40, 24, 200, 190.5], [20, 20, 300, 239], [60, 33, 63, 200]]], np.float32
    )
    levels = np.array([[0, 1, 2, 1]])
    align = partial(roi_align, strides=strides, size=4, sampling=sampling, method=method, chunk=3)
    found = jax.jit(align)(linear_pyramid(strides), boxes, levels=jnp.asarray(levels, jnp.int32))[0]
    part = (np.arange(4) + 0.5) / 4
    x = boxes[0, :, None, 0] + part * (boxes[0, :, 2] - boxes[0, :, 0])[:, None]
    y = boxes[0, :, None, 1] + part * (boxes[0, :, 3] - boxes[0, :, 1])[:, None]
    np.testing.assert_allclose(found[..., 0], np.broadcast_to(x[:, None, :], (4, 4, 4)), atol=1e-3)
    np.testing.assert_allclose(found[..., 1], np.broadcast_to(y[:, :, None], (4, 4, 4)), atol=1e-3)


def naive(features: np.ndarray, box: np.ndarray, size: int, sampling: int) -> np.ndarray:
    """Point by point in f64; `box` in cells of the map."""
    height, width, channels = features.shape
    result = np.zeros((size, size, channels))

    def at(y: float, x: float) -> np.ndarray:
        if y < -1 or y > height or x < -1 or x > width:
            return np.zeros(channels)
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
        i, j = int(y), int(x)
        below, right = min(i + 1, height - 1), min(j + 1, width - 1)
        top = features[i, j] * (1 - (x - j)) + features[i, right] * (x - j)
        bottom = features[below, j] * (1 - (x - j)) + features[below, right] * (x - j)
        return top * (1 - (y - i)) + bottom * (y - i)

    x1, y1, x2, y2 = box - 0.5
    bin_y, bin_x = (y2 - y1) / size, (x2 - x1) / size
    across = [(sampling or int(np.ceil(extent))) for extent in (bin_y, bin_x)]
    for p, q in np.ndindex(size, size):
        points = [
            at(y1 + (p + (k + 0.5) / across[0]) * bin_y, x1 + (q + (m + 0.5) / across[1]) * bin_x)
            for k in range(across[0])
            for m in range(across[1])
        ]
        result[p, q] = np.mean(points, axis=0)
    return result


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sampling", [ADAPTIVE, 2])
def test_each_box_reads_its_level_point_by_point(method: str, sampling: int):
    """Also boxes that leave the picture, thin ones, and one of no extent along x where sampling is fixed."""
    rng = np.random.RandomState(3)
    maps = [rng.standard_normal((1, 64 // s, 80 // s, 2)).astype(np.float32) for s in (1, 2)]
    corner = rng.uniform(-20, 200, (9, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(3, 300, (9, 2))], axis=1)
    boxes = np.concatenate([boxes, [[30, 40, 30.5 if sampling == ADAPTIVE else 30, 200]]]).astype(np.float32)
    levels = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 0], np.int32)
    align = partial(roi_align, strides=(4, 8), size=3, sampling=sampling, method=method, chunk=4)
    found = jax.jit(align)([jnp.asarray(level) for level in maps], boxes[None], levels=levels[None])[0]
    expected = [
        naive(maps[level][0].astype(float), box.astype(float) / (4 * 2**level), 3, sampling)
        for box, level in zip(boxes, levels, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_both_forms_agree_on_a_pyramid_in_bfloat16():
    rng = np.random.RandomState(0)
    pyramid = [jnp.asarray(rng.standard_normal((2, 32 // s, 40 // s, 5)), jnp.bfloat16) for s in (1, 2)]
    corner = rng.uniform(0, 100, (2, 9, 2))
    boxes = jnp.asarray(
        np.concatenate([corner, corner + rng.uniform(2, 200, (2, 9, 2))], axis=2), jnp.float32
    )
    one, other = (
        jax.jit(partial(roi_align, strides=(4, 8), size=3, method=method))(pyramid, boxes)
        for method in METHODS
    )
    assert one.dtype == other.dtype == jnp.bfloat16
    np.testing.assert_allclose(one.astype(jnp.float32), other.astype(jnp.float32), atol=0.02)


def test_eight_devices_give_what_one_gives():
    """Pictures spread over devices; the number of points is that of the largest box of all of them."""
    rng = np.random.RandomState(1)
    features = rng.standard_normal((8, 10, 12, 3)).astype(np.float32)
    corner = rng.uniform(0, 30, (8, 5, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 18, (8, 5, 2))], axis=2).astype(np.float32)
    boxes[3] *= 1.5

    @jax.jit
    @jax.grad
    def gradient(features, boxes):
        return jnp.sum(roi_align([features], boxes, strides=(4,), size=2, method="gather") ** 2)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.NamedSharding(mesh, jax.P("data"))
    many = gradient(*jax.device_put((features, boxes), spread))
    assert many.sharding.is_equivalent_to(spread, 4)
    np.testing.assert_allclose(many, gradient(jnp.asarray(features), jnp.asarray(boxes)), atol=1e-5)


def test_boxes_get_no_gradient():
    features = [jnp.ones((1, 6, 6, 2))]

    def total(boxes, method):
        return jnp.sum(roi_align(features, boxes, strides=(4,), size=2, method=method))

    for method in METHODS:
        gradient = jax.jit(jax.grad(total), static_argnums=1)(jnp.array([[[1.0, 2, 13, 17]]]), method)
        assert not np.asarray(gradient).any()


def test_bad_arguments_are_refused():
    features, boxes = [jnp.ones((1, 6, 6, 2))], jnp.zeros((1, 1, 4))
    with pytest.raises(ValueError, match="methods gather and separable, got 'einsum'"):
        roi_align(features, boxes, strides=(4,), size=2, method="einsum")
    with pytest.raises(ValueError, match="1 maps need as many strides"):
        roi_align(features, boxes, strides=(4, 8), size=2)
    with pytest.raises(ValueError, match="the sampling ratio is 0"):
        roi_align(features, boxes, strides=(4,), size=2, sampling=-1)
