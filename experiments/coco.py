"""COCO 2017, 80 classes: Mask R-CNN on the backbones of the released models (Liu et al., 2021).

    python -m swin_jax.train --config=experiments/coco.py:mask_rcnn_swin_tiny_1x \\
        --config.data.root=/data/coco \\
        --config.init_from=swin_tiny_patch4_window7_224.pth --workdir=runs/mask_rcnn_swin_tiny_1x
    python -m swin_jax.evaluate --workdir=runs/mask_rcnn_swin_tiny_1x

16 pictures a step, AdamW with rate 1e-4 behind 500 steps of warm-up, divided by 10 after 8 and 11 of 12 epochs (1x) or
27 and 33 of 36 (3x), weight decay 0.05 but for norms and position tables, no clipping; pictures mirrored, the shorter
side drawn from 480 to 800, half of them cut before (OpenMMLab's recipe, as released). Evaluated at 800 x 1333.

| variant                 | schedule | drop path | released AP, box / mask | begins with  |
|-------------------------|----------|-----------|-------------------------|--------------|
| mask_rcnn_swin_tiny_1x  | 1x       | 0.1       | 43.7 / 39.8             | ImageNet-1K  |
| mask_rcnn_swin_tiny_3x  | 3x       | 0.2       | 46.0 / 41.6             | ImageNet-1K  |
| mask_rcnn_swin_small_3x | 3x       | 0.2       | 48.5 / 43.3             | ImageNet-1K  |
| mask_rcnn_swin_base_3x  | 3x       | 0.3       |                         | ImageNet-1K  |
| mask_rcnn_resnet50_1x   | 1x       |           |                         | ImageNet-1K  |
| mask_rcnn_resnet50_3x   | 3x       |           |                         | ImageNet-1K  |

The ResNets take the recipe of the Swins (so did the paper's cascades, table 9), stem and first stage frozen and batch
norms with their running statistics. Swin-B with Mask R-CNN was not released. Hardware of the released runs: 8 V100.

Data: `--config.data.source=coco` reads the official layout, a directory or a zip with `train2017/` beside
`annotations/instances_train2017.json`; `tfds:coco_records` what `swin_jax.prepare --source=coco` made of it. Test-time
augmentation is `evaluate --multi_scale`: over `evaluation.ratios` of the scale, plain and mirrored.
"""

from swin_jax.config import Config, base_config
from swin_jax.setups.recipes import use_mask_rcnn_recipe
from swin_jax.training.preflight import nearest

# variant -> name of the model, epochs, drop path.
ROWS = {
    "mask_rcnn_swin_tiny_1x": ("mask_rcnn_swin_tiny", 12, 0.1),
    "mask_rcnn_swin_tiny_3x": ("mask_rcnn_swin_tiny", 36, 0.2),
    "mask_rcnn_swin_small_3x": ("mask_rcnn_swin_small", 36, 0.2),
    "mask_rcnn_swin_base_3x": ("mask_rcnn_swin_base", 36, 0.3),
    "mask_rcnn_resnet50_1x": ("mask_rcnn_resnet50", 12, None),
    "mask_rcnn_resnet50_3x": ("mask_rcnn_resnet50", 36, None),
}
VARIANTS = tuple(ROWS)


def get_config(variant: str = "mask_rcnn_swin_tiny_1x") -> Config:
    if variant not in ROWS:
        raise ValueError(f"coco.py has no variant {variant!r}; {nearest(variant, ROWS)}")
    name, epochs, drop_path = ROWS[variant]
    config = base_config()
    use_mask_rcnn_recipe(config, name, epochs=epochs, drop_path=drop_path)
    config.init_from = "required"
    config.data.source = "coco"
    config.data.train_split = "train2017"
    config.data.eval_split = "val2017"
    return config
