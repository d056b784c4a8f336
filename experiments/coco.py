"""COCO 2017, 80 classes: the two-stage detectors of Liu et al. (2021) and of the released models.

    python -m swin_jax.train --config=experiments/coco.py:cascade_mask_rcnn_swin_tiny_3x \\
        --config.data.root=/data/coco \\
        --config.init_from=swin_tiny_patch4_window7_224.pth --workdir=runs/cascade_swin_tiny
    python -m swin_jax.evaluate --workdir=runs/cascade_swin_tiny

16 pictures a step, AdamW with rate 1e-4 behind 500 steps of warm-up, divided by 10 after 8 and 11 of 12 epochs (1x) or
27 and 33 of 36 (3x), weight decay 0.05 but for norms and position tables, no clipping; pictures mirrored, the shorter
side drawn from 480 to 800, half of them cut before (OpenMMLab's recipe, as released). Evaluated at 800 x 1333.

AP of boxes and masks: of the released models, or, with a P, of the paper's tables 2 and 9.

| variant                               | drop path | box / mask AP | begins with  |
|---------------------------------------|-----------|---------------|--------------|
| mask_rcnn_swin_tiny_1x                | 0.1       | 43.7 / 39.8   | ImageNet-1K  |
| mask_rcnn_swin_tiny_3x                | 0.2       | 46.0 / 41.6   | ImageNet-1K  |
| mask_rcnn_swin_small_3x               | 0.2       | 48.5 / 43.3   | ImageNet-1K  |
| mask_rcnn_swin_base_3x                | 0.3       |               | ImageNet-1K  |
| mask_rcnn_resnet50_1x, _3x            |           |               | ImageNet-1K  |
| cascade_mask_rcnn_swin_tiny_1x        | 0         | 48.1 / 41.7   | ImageNet-1K  |
| cascade_mask_rcnn_swin_tiny_3x        | 0.2       | 50.4 / 43.7   | ImageNet-1K  |
| cascade_mask_rcnn_swin_small_3x       | 0.2       | 51.9 / 45.0   | ImageNet-1K  |
| cascade_mask_rcnn_swin_base_3x        | 0.3       | 51.9 / 45.0   | ImageNet-1K  |
| cascade_mask_rcnn_deit_small_3x       | 0.1       | 48.0 / 41.4 P | ImageNet-1K  |
| cascade_mask_rcnn_resnet50_3x         |           | 46.3 / 40.1 P | ImageNet-1K  |
| cascade_mask_rcnn_resnext101_32x4d_3x |           | 48.1 / 41.6 P | ImageNet-1K  |
| cascade_mask_rcnn_resnext101_64x4d_3x |           | 48.3 / 41.7 P | ImageNet-1K  |
| cascade_mask_rcnn_resnet50_3x_sgd     |           | 45.0 / 38.5 P | ImageNet-1K  |
| cascade_mask_rcnn_resnext101_32x4d_3x_sgd |       | 47.8 / 40.4 P | ImageNet-1K  |
| cascade_mask_rcnn_resnext101_64x4d_3x_sgd |       | 48.8 / 41.4 P | ImageNet-1K  |
| htcpp_swin_base_6x                    | 0.2       | 56.4 / 49.1 P | ImageNet-22K |
| htcpp_swin_large_6x                   | 0.2       | 57.1 / 49.5 P | ImageNet-22K |
| htcpp_resnext101_64x4d_6x             |           | 52.3 / 46.0 P | ImageNet-1K  |

The ResNets take the recipe of the Swins (so did the paper's cascades, table 9), stem and first stage frozen and batch
norms with their running statistics; `_sgd` is that table's other half. Swin-B with Mask R-CNN was not released. How the
paper made its pyramid of DeiT-S, and with which drop path, is not published. HTC++ was not released at all: what is
assumed stands in `setups/recipes.py` and `models/cascade.py` (with our block on its last map, ResNeXt has 193 M
parameters, the paper's 155 M). It needs COCO's stuff maps, `stuffthingmaps/train2017/*.png` beside the pictures.
Hardware of the released runs: 8 V100.

Data: `--config.data.source=coco` reads the official layout, a directory or a zip with `train2017/` beside
`annotations/instances_train2017.json`; `tfds:coco_records` what `swin_jax.prepare --source=coco` made of it. Test-time
augmentation is `evaluate --multi_scale`: over `evaluation.ratios` of the scale, plain and mirrored.
"""

from swin_jax.config import Config, base_config
from swin_jax.setups.recipes import use_coco_recipe, use_htcpp_recipe, use_sgd
from swin_jax.training.preflight import nearest

# Model -> drop path.
MASK_RCNN = {"swin_tiny": 0.2, "swin_small": 0.2, "swin_base": 0.3, "resnet50": None}
CASCADE = {
    "swin_tiny": 0.2,
    "swin_small": 0.2,
    "swin_base": 0.3,
    "deit_small": 0.1,
    "resnet50": None,
    "resnext101_32x4d": None,
    "resnext101_64x4d": None,
}
HTCPP = {"swin_base": 0.2, "swin_large": 0.2, "resnext101_64x4d": None}
# variant -> name of the model, epochs, drop path.
ROWS: dict[str, tuple[str, int, float | None]] = {
    "mask_rcnn_swin_tiny_1x": ("mask_rcnn_swin_tiny", 12, 0.1),
    "mask_rcnn_resnet50_1x": ("mask_rcnn_resnet50", 12, None),
    "cascade_mask_rcnn_swin_tiny_1x": ("cascade_mask_rcnn_swin_tiny", 12, 0.0),
}
for framework, backbones in (("mask_rcnn", MASK_RCNN), ("cascade_mask_rcnn", CASCADE)):
    for backbone, rate in backbones.items():
        ROWS[f"{framework}_{backbone}_3x"] = (f"{framework}_{backbone}", 36, rate)
SGD = tuple(f"{row}_sgd" for row in ROWS if row.startswith("cascade_mask_rcnn_resn"))
HTCPP_ROWS = {f"htcpp_{backbone}_6x": (f"htcpp_{backbone}", rate) for backbone, rate in HTCPP.items()}
VARIANTS = (*ROWS, *SGD, *HTCPP_ROWS)


def get_config(variant: str = "mask_rcnn_swin_tiny_1x") -> Config:
    if variant not in VARIANTS:
        raise ValueError(f"coco.py has no variant {variant!r}; {nearest(variant, VARIANTS)}")
    config = base_config()
    if variant in HTCPP_ROWS:
        name, drop_path = HTCPP_ROWS[variant]
        use_htcpp_recipe(config, name, drop_path=drop_path)
    else:
        name, epochs, drop_path = ROWS[variant.removesuffix("_sgd")]
        use_coco_recipe(config, name, epochs=epochs, drop_path=drop_path)
    if variant in SGD:
        use_sgd(config)
    config.init_from = "required"
    config.data.source = "coco"
    config.data.train_split = "train2017"
    config.data.eval_split = "val2017"
    return config
