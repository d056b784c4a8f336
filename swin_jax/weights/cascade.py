"""Cascade Mask R-CNN and HTC in OpenMMLab and the published detection code, which have one set of names.

HTC++ has a block that they have no name for: it is read and written in our own layout alone.
"""

import dataclasses

from swin_jax.weights.layouts import Layout, rows
from swin_jax.weights.mask_rcnn import BEFORE_ROIS, MASK_RCNN

MARK = r"roi_head\.bbox_head\.0\.shared_fcs\.0\.weight"
SEMANTIC = r"roi_head\.semantic_head\.conv_logits\.weight"
STAGES = rows(
    ("box_head{t}/conv{i}/conv", "roi_head.bbox_head.{t}.shared_convs.{i}.conv", "convolution"),
    ("box_head{t}/conv{i}/bn", "roi_head.bbox_head.{t}.shared_convs.{i}.bn", "batch_norm"),
    ("box_head{t}/fc0", "roi_head.bbox_head.{t}.shared_fcs.0", "roi_linear"),
    ("box_head{t}/fc1", "roi_head.bbox_head.{t}.shared_fcs.1", "linear"),
    ("box_head{t}/classes", "roi_head.bbox_head.{t}.fc_cls", "linear"),
    ("box_head{t}/deltas", "roi_head.bbox_head.{t}.fc_reg", "linear"),
    ("mask_head{t}/flow", "roi_head.mask_head.{t}.conv_res.conv", "convolution"),
    ("mask_head{t}/conv{i}", "roi_head.mask_head.{t}.convs.{i}.conv", "convolution"),
    ("mask_head{t}/upsample", "roi_head.mask_head.{t}.upsample", "deconvolution"),
    ("mask_head{t}/logits", "roi_head.mask_head.{t}.conv_logits", "convolution"),
)
BRANCH = rows(
    ("semantic_head/lateral{i}", "roi_head.semantic_head.lateral_convs.{i}.conv", "convolution"),
    ("semantic_head/conv{i}", "roi_head.semantic_head.convs.{i}.conv", "convolution"),
    ("semantic_head/embedding", "roi_head.semantic_head.conv_embedding.conv", "convolution"),
    ("semantic_head/logits", "roi_head.semantic_head.conv_logits", "convolution"),
)
CASCADE_LAYOUT = Layout("openmmlab", BEFORE_ROIS + STAGES, marks=(MARK,), anchor=MARK)
HTC_LAYOUT = Layout("openmmlab", BEFORE_ROIS + STAGES + BRANCH, marks=(MARK, SEMANTIC), anchor=MARK)
CLASSIFIERS = tuple(
    layer.format(stage)
    for stage in range(3)
    for layer in ("box_head{}/classes", "box_head{}/deltas", "mask_head{}/logits")
)

CASCADE_MASK_RCNN = dataclasses.replace(
    MASK_RCNN,
    name="a Cascade Mask R-CNN",
    mark="box_head0/",
    heads={"openmmlab": CASCADE_LAYOUT},
    classifiers=CLASSIFIERS,
    classes=("box_head0/classes/bias", 1),
)
HTC = dataclasses.replace(
    CASCADE_MASK_RCNN,
    name="an HTC",
    mark="semantic_head/",
    heads={"openmmlab": HTC_LAYOUT},
    classifiers=(*CLASSIFIERS, "semantic_head/logits"),
)
