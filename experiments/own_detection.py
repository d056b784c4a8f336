"""Your own pictures with boxes, or boxes and masks: a directory or zip in COCO's format.

    python -m swin_jax.train --config=experiments/own_detection.py:mask_rcnn_swin_tiny \\
        --config.data.root=/data/shelves \\
        --config.init_from=swin_tiny_patch4_window7_224.pth --workdir=runs/shelves

What annotation tools export is known in these layouts, with any names of the splits (here train):

    annotations/instances_train.json, annotations/train.json or train.json
                                      beside train/, images/train/ or images/ with the pictures
    train/_annotations.coco.json      among the pictures

Classes are the file's categories. Where objects have no masks, train without a mask head:
`--config.model.with_masks=False`. Begin with a detector of COCO (`--config.init_from=mask_rcnn_swin_tiny.pth`, whose
classifiers are replaced) or with a backbone of ImageNet; data must be many to begin with nothing
(`--config.init_from=none`).

| variant                     | for                                                     | where         |
|-----------------------------|---------------------------------------------------------|---------------|
| mask_rcnn_swin_tiny         | photographs; Mask R-CNN on Swin-T at 800 x 1333         | a GPU or TPU  |
| cascade_mask_rcnn_swin_tiny | the same with Cascade Mask R-CNN                        | a GPU or TPU  |
| micro                       | small pictures; a Mask R-CNN of 2.8 M parameters at 256 | two CPU cores |
"""

from swin_jax.config import Config, base_config
from swin_jax.setups.recipes import use_coco_recipe, use_micro_detector
from swin_jax.training.preflight import nearest

VARIANTS = ("mask_rcnn_swin_tiny", "cascade_mask_rcnn_swin_tiny", "micro")


def get_config(variant: str = "mask_rcnn_swin_tiny") -> Config:
    if variant not in VARIANTS:
        raise ValueError(f"own_detection.py has no variant {variant!r}; {nearest(variant, VARIANTS)}")
    config = base_config()
    use_coco_recipe(config, "mask_rcnn_swin_tiny" if variant == "micro" else variant)
    config.init_from = "required"
    config.data.source = "instances"
    config.data.eval_split = "val"
    if variant == "micro":
        use_micro_detector(config, "mask_rcnn_swin_tiny", side=256)
        config.init_from = ""
        config.total = "100 epochs"
        config.evaluate_every = config.checkpoint_every = "20 epochs"
        config.data.max_boxes = 100
        config.detection.anchor_scales = (2.0, 4.0, 8.0)  # photographs at 256 pixels have objects of a few
        config.detection.roi_sample = 64
        config.detection.roi_finest = 28.0
        config.detection.most = 100
    return config
