"""What a mask head should predict for a box: the box's part of its instance, P x P and binary.

Instances are stored as crops: the ground-truth box divided into S x S cells; 112 x 112 lose nothing that a target of
28 x 28 shows. The published code keeps bitmaps of whole pictures; `targets_from_bitmaps` makes its targets, to compare.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Shaped

from swin_jax.ops.roi_align import ADAPTIVE, Axis, axis_weights, box_axis

SIZE = 28
THRESHOLD = 0.5


def targets_from_crops(
    crops: Shaped[Array, "g crop crop"],
    truth_boxes: Float[Array, "g 4"],
    boxes: Float[Array, "n 4"],
    truth: Int32[Array, " n"],
    *,
    size: int = SIZE,
) -> Bool[Array, "n size size"]:
    """The part of each box's instance that lies in the box, for the boxes of one picture.

    A bin averages the crop over a grid of points, at least one for every cell of it in the bin (in boxes up to twice
    as wide and high as their instance, which an IoU of .25 implies). Between cells the crop is linear, outside it is 0.

    Args:
      crops: instances on the grids of their ground-truth boxes, bool or 0 and 1.
      truth_boxes: those boxes, in pixels.
      boxes: what the head looks at, in the same pixels.
      truth: which instance each box is assigned to.
      size: bins a side.
    """
    cells = crops.shape[1]
    most = 2 * -(-cells // size)
    own = truth_boxes[truth]
    sides = jnp.maximum(own[:, 2:] - own[:, :2], 1e-6)
    number = jnp.full(boxes.shape[:1], cells, jnp.int32)

    def weights(axis: int) -> Float[Array, "n size crop"]:
        low = (boxes[:, axis] - own[:, axis]) / sides[:, axis] * cells
        high = (boxes[:, axis + 2] - own[:, axis]) / sides[:, axis] * cells
        points = box_axis(low, high, number, size, ADAPTIVE)
        points = points._replace(points=jnp.minimum(points.points, most))
        return axis_weights(points, size, cells, most, replicate=False)

    return _averaged(weights(1), crops[truth], weights(0)) >= THRESHOLD


def targets_from_bitmaps(
    bitmaps: Shaped[Array, "g height width"],
    boxes: Float[Array, "n 4"],
    truth: Int32[Array, " n"],
    *,
    size: int = SIZE,
) -> Bool[Array, "n size size"]:
    """The same from the bitmap of the whole picture, by RoIAlign with adaptive sampling. Holds n bitmaps as f32."""
    height, width = bitmaps.shape[1:]

    def weights(low: Array, high: Array, length: int) -> Array:
        axis: Axis = box_axis(low, high, jnp.full(low.shape, length, jnp.int32), size, ADAPTIVE)
        return axis_weights(axis, size, length, jnp.max(axis.points), replicate=True)

    rows, columns = weights(boxes[:, 1], boxes[:, 3], height), weights(boxes[:, 0], boxes[:, 2], width)
    return _averaged(rows, bitmaps[truth], columns) >= THRESHOLD


def _averaged(
    rows: Float[Array, "n size height"],
    masks: Shaped[Array, "n height width"],
    columns: Float[Array, "n size width"],
) -> Float[Array, "n size size"]:
    # In full precision: a TPU's single pass would round weights to 8 bits, and the threshold sees it.
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("nph,nhw,nqw->npq", rows, masks.astype(jnp.float32), columns, precision=highest)
