"""Multiply-accumulates of detectors by the rule of the paper's table 2, for comparison with its figures.

1000 proposals go through the box head of every stage and 100 detections through every mask head. The two products of
activations in attention count here. The published figures also count norms, activation functions and biases: 0.2% more.
"""

from swin_jax.models.backbone_complexity import Map, backbone_macs, convolution
from swin_jax.models.cascade import MLP_RATIO, HybridTaskCascade
from swin_jax.models.detection_heads import SEMANTIC_LEVEL, SemanticHead
from swin_jax.models.mask_rcnn import BOX_SIZE, MASK_SIZE, MaskRCNN

PROPOSALS, DETECTIONS = 1000, 100


def detector_macs(model: MaskRCNN, height: int, width: int) -> int:
    """Multiply-accumulates of one `height` x `width` picture through a two-stage detector."""
    total, maps = backbone_macs(model.backbone, height, width, attention=True)
    channels = model.channels
    for rows, columns, inputs in maps:
        total += convolution(rows, columns, inputs, channels, 1)
        total += convolution(rows, columns, channels, channels, 3)
    coarsest = -(-maps[-1][0] // 2), -(-maps[-1][1] // 2)
    for rows, columns in (*(level[:2] for level in maps), coarsest):
        total += convolution(rows, columns, channels, channels, 3)
        total += convolution(rows, columns, channels, 5 * model.anchors_per_cell, 1)
    total += model.STAGES * PROPOSALS * _box_head(model)
    if model.with_masks:
        total += model.STAGES * DETECTIONS * _mask_head(model)
    return total + (_hybrid(model, maps) if isinstance(model, HybridTaskCascade) else 0)


def _box_head(model: MaskRCNN) -> int:
    boxes = 1 if model.class_agnostic else model.num_classes
    outputs = model.num_classes + 1 + 4 * boxes
    convolutions = model.box_convs * convolution(BOX_SIZE, BOX_SIZE, model.channels, model.channels, 3)
    inner = 0 if model.box_convs else model.fc_channels
    return convolutions + model.fc_channels * (BOX_SIZE**2 * model.channels + inner + outputs)


def _mask_head(model: MaskRCNN) -> int:
    channels, total, inputs = model.mask_channels, 0, model.channels
    for _ in range(model.mask_convs):
        total += convolution(MASK_SIZE, MASK_SIZE, inputs, channels, 3)
        inputs = channels
    total += MASK_SIZE**2 * inputs * 4 * channels
    return total + convolution(2 * MASK_SIZE, 2 * MASK_SIZE, channels, model.num_classes, 1)


def _hybrid(model: HybridTaskCascade, maps: list[Map]) -> int:
    """What an HTC has beside a cascade: semantic branch, flow between mask heads, attention on the last map."""
    rows, columns, _ = maps[SEMANTIC_LEVEL]
    channels, levels = model.channels, len(maps) + 1
    # Of 1x1: the laterals, and the features for RoIs.
    total = (levels + 1) * convolution(rows, columns, channels, channels, 1)
    total += SemanticHead.num_convs * convolution(rows, columns, channels, channels, 3)
    total += convolution(rows, columns, channels, model.semantic_classes, 1)
    if model.with_masks:
        flow = convolution(MASK_SIZE, MASK_SIZE, model.mask_channels, channels, 1)
        total += (model.STAGES - 1) * DETECTIONS * flow
    if model.global_attention:
        rows, columns, channels = maps[-1]
        tokens = rows * columns
        total += tokens * int(4 + 2 * MLP_RATIO) * channels**2 + 2 * tokens**2 * channels
    return total
