"""Mask R-CNN in OpenMMLab and the published detection code, which have one set of names."""

from collections.abc import Mapping

from swin_jax.weights.family import Family
from swin_jax.weights.kinds import Shape
from swin_jax.weights.layouts import Layout, State, rows

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


def check_heads(source: str, found: State, wanted: Mapping[str, Shape]) -> None:
    """Raises ValueError where one of file and model has one box for all classes of a RoI, the other one for each; or
    where one has mask heads and the other has none."""
    with_masks = [any(path.startswith("mask_head") for path in paths) for paths in (found, wanted)]
    if with_masks == [False, True]:
        raise ValueError(f"{source} has no mask head: make the model with with_masks=False")
    if with_masks == [True, False]:
        raise ValueError(f"{source} has mask heads, the model was made with with_masks=False")
    paths = [
        path for path in wanted if path.endswith("/deltas/bias") and path in found and "box_head" in path
    ]
    for path in paths:
        theirs, ours = found[path].shape[0], wanted[path][0]
        if theirs != ours and 4 in (theirs, ours):
            kinds = {True: "one box for all classes", False: "a box for each class"}
            raise ValueError(
                f"{source} has {kinds[theirs == 4]} ({path} {theirs}), the model has {kinds[ours == 4]} ({ours}): "
                f"make it with class_agnostic={theirs == 4}"
            )


MASK_RCNN = Family(
    name="a Mask R-CNN",
    noun="detector",
    mark="box_head/fc0/",
    heads={"openmmlab": OPENMMLAB},
    beside={"openmmlab": "openmmlab", "official-dense": "openmmlab"},
    classifiers=("box_head/classes", "box_head/deltas", "mask_head/logits"),
    classes=("box_head/classes/bias", 1),
    check=check_heads,
)
