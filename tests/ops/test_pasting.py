"""Masks on the host against mmdet's pasting, pycocotools' bytes and loops over pixels."""

import numpy as np
import pytest

from swin_jax.ops import pasting


def test_pasted_masks_are_openmmlabs(golden):
    reference = golden("openmmlab_rois")
    probabilities, boxes = reference["mask_paste/probabilities_28"][:, 0], reference["mask_paste/boxes"]
    for mask, box, bits, area in zip(
        probabilities, boxes, reference["mask_paste/binary_0_5"], reference["mask_paste/areas"], strict=True
    ):
        expected = np.unpackbits(bits)[: 100 * 130].reshape(100, 130).astype(bool)
        found = pasting.paste(mask, box, 100, 130)
        np.testing.assert_array_equal(found, expected)
        assert found.sum() == area


def naive(mask: np.ndarray, box: np.ndarray, height: int, width: int, threshold: float) -> np.ndarray:
    """Pixel by pixel, in f64."""
    result = np.zeros((height, width), bool)
    rows, columns = mask.shape

    def at(i: int, j: int) -> float:
        return float(mask[i, j]) if 0 <= i < rows and 0 <= j < columns else 0.0

    x1, y1, x2, y2 = box.astype(float)
    for y in range(height):
        for x in range(width):
            v = (y + 0.5 - y1) / (y2 - y1) * rows - 0.5
            u = (x + 0.5 - x1) / (x2 - x1) * columns - 0.5
            i, j = int(np.floor(v)), int(np.floor(u))
            a, b = v - i, u - j
            value = (1 - a) * (1 - b) * at(i, j) + (1 - a) * b * at(i, j + 1)
            value += a * (1 - b) * at(i + 1, j) + a * b * at(i + 1, j + 1)
            result[y, x] = value >= threshold
    return result


@pytest.mark.parametrize(
    "box",
    [[3.2, 4.1, 17.9, 20.3], [-8, -5, 6, 9], [15, 10, 60, 55], [4.4, 4.4, 4.9, 5.1], [-50, -50, 90, 90]],
)
@pytest.mark.parametrize("threshold", [0.5, 0.1])
def test_pasting_reads_every_pixel_centre(box: list[float], threshold: float):
    mask = np.random.RandomState(0).rand(7, 7).astype(np.float32)
    found = pasting.paste(mask, np.array(box, np.float32), 24, 26, threshold=threshold)
    np.testing.assert_array_equal(found, naive(mask, np.array(box, np.float32), 24, 26, threshold))


def test_a_full_mask_fills_its_box():
    found = pasting.paste(np.ones((28, 28), np.float32), np.array([10, 20, 40, 60], np.float32), 80, 80)
    box = np.zeros((80, 80), bool)
    box[20:60, 10:40] = True
    # Reading half a cell beyond the box, the threshold of a half leaves it exactly.
    np.testing.assert_array_equal(found, box)


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [9, 5, 3, 9], [200, 200, 220, 220]])
def test_empty_boxes_and_boxes_outside_give_empty_masks(box: list[float]):
    assert not pasting.paste(np.ones((4, 4), np.float32), np.array(box, np.float32), 20, 30).any()


def test_run_lengths_are_the_bytes_of_pycocotools(golden):
    reference = golden("openmmlab_rois")
    for number in range(6):
        height, width = reference[f"rle/{number}/shape"]
        mask = (
            np.unpackbits(reference[f"rle/{number}/bits"])[: height * width]
            .reshape(height, width)
            .astype(bool)
        )
        runs = pasting.encode(mask)
        assert runs == {"size": [height, width], "counts": reference[f"rle/{number}/counts"].tobytes()}
        np.testing.assert_array_equal(pasting.decode(runs), mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (33, 200)])
def test_run_lengths_decode_to_the_mask(shape: tuple[int, int]):
    rng = np.random.RandomState(0)
    for share in (0.0, 0.01, 0.5, 1.0):
        mask = rng.rand(*shape) < share
        runs = pasting.encode(mask)
        np.testing.assert_array_equal(pasting.decode(runs), mask)
        np.testing.assert_array_equal(pasting.decode({**runs, "counts": runs["counts"].decode()}), mask)


def test_plain_counts_are_read_column_by_column():
    found = pasting.decode({"size": [2, 3], "counts": [1, 2, 3]})
    np.testing.assert_array_equal(found, [[False, True, False], [True, False, False]])


def test_counts_that_do_not_fill_the_mask_are_refused():
    with pytest.raises(ValueError, match="run lengths of 5 pixels do not fill a mask of 2x3"):
        pasting.decode({"size": [2, 3], "counts": [1, 4]})
