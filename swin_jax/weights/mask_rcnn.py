"""Mask R-CNN in OpenMMLab and the published detection code, which have one set of names."""

from swin_jax.weights.family import Family
from swin_jax.weights.layouts import Layout, rows

MARK = r"roi_head\.bbox_head\.shared_fcs\.0\.weight"
BEFORE_ROIS = rows(
    ("neck/lateral{i}", "neck.lateral_convs.{i}.conv", "convolution"),
    ("neck/output{i}", "neck.fpn_convs.{i}.conv", "convolution"),
    ("rpn/conv", "rpn_head.rpn_conv", "convolution"),
    ("rpn/objectness", "rpn_head.rpn_cls", "convolution"),
    ("rpn/deltas", "rpn_head.rpn_reg", "convolution"),
)
"""What all two-stage detectors have."""
OPENMMLAB = Layout(
    "openmmlab",
    BEFORE_ROIS
    + rows(
        ("box_head/fc0", "roi_head.bbox_head.shared_fcs.0", "roi_linear"),
        ("box_head/fc1", "roi_head.bbox_head.shared_fcs.1", "linear"),
        ("box_head/classes", "roi_head.bbox_head.fc_cls", "linear"),
        ("box_head/deltas", "roi_head.bbox_head.fc_reg", "linear"),
        ("mask_head/conv{i}", "roi_head.mask_head.convs.{i}.conv", "convolution"),
        ("mask_head/upsample", "roi_head.mask_head.upsample", "deconvolution"),
        ("mask_head/logits", "roi_head.mask_head.conv_logits", "convolution"),
    ),
    marks=(MARK,),
    anchor=MARK,
)
MASK_RCNN = Family(
    name="a Mask R-CNN",
    noun="detector",
    mark="box_head/fc0/",
    heads={"openmmlab": OPENMMLAB},
    beside={"openmmlab": "openmmlab", "official-dense": "openmmlab"},
    classifiers=("box_head/classes", "box_head/deltas", "mask_head/logits"),
    classes=("box_head/classes/bias", 1),
)
