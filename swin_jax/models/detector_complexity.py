"""Multiply-accumulates of detectors by the rule of the paper's table 2, for comparison with its figures.

1000 proposals go through the box head and 100 detections through the mask head. The two products of activations in
attention count here. The published figures also count norms, activation functions and biases: 0.2% more.
"""

from swin_jax.models.backbone_complexity import backbone_macs, convolution
from swin_jax.models.mask_rcnn import BOX_SIZE, MASK_SIZE, MaskRCNN

PROPOSALS, DETECTIONS = 1000, 100


def mask_rcnn_macs(model: MaskRCNN, height: int, width: int) -> int:
    """Multiply-accumulates of one `height` x `width` picture through a Mask R-CNN."""
    total, maps = backbone_macs(model.backbone, height, width, attention=True)
    channels = model.channels
    for rows, columns, inputs in maps:
        total += convolution(rows, columns, inputs, channels, 1)
        total += convolution(rows, columns, channels, channels, 3)
    coarsest = -(-maps[-1][0] // 2), -(-maps[-1][1] // 2)
    for rows, columns in (*(level[:2] for level in maps), coarsest):
        total += convolution(rows, columns, channels, channels, 3)
        total += convolution(rows, columns, channels, 5 * model.anchors_per_cell, 1)
    total += PROPOSALS * _box_head(model)
    return total + (DETECTIONS * _mask_head(model) if model.with_masks else 0)


def _box_head(model: MaskRCNN) -> int:
    boxes = 1 if model.class_agnostic else model.num_classes
    outputs = model.num_classes + 1 + 4 * boxes
    return model.fc_channels * (BOX_SIZE**2 * model.channels + model.fc_channels + outputs)


def _mask_head(model: MaskRCNN) -> int:
    channels, total, inputs = model.mask_channels, 0, model.channels
    for _ in range(model.mask_convs):
        total += convolution(MASK_SIZE, MASK_SIZE, inputs, channels, 3)
        inputs = channels
    total += MASK_SIZE**2 * inputs * 4 * channels
    return total + convolution(2 * MASK_SIZE, 2 * MASK_SIZE, channels, model.num_classes, 1)
