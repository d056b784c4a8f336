"""ADE20K, 150 classes: UperNet on the backbones of Liu et al. (2021), table 3, and the released models.

    python -m swin_jax.train --config=experiments/ade20k.py:upernet_swin_tiny \\
        --config.data.root=/data/ADEChallengeData2016.zip \\
        --config.init_from=swin_tiny_patch4_window7_224.pth --workdir=runs/upernet_swin_tiny
    python -m swin_jax.evaluate --workdir=runs/upernet_swin_tiny --multi_scale

160,000 steps of 16 crops, AdamW with rate 6e-5 falling linearly to 0 behind 1,500 steps of warm-up, weight decay 0.01
but for norms and position tables, drop path 0.3; pictures scaled by 0.5 to 2 of (2048, 512), crops of 512 in which no
class has three quarters, flips, photometric distortion (OpenMMLab's recipe, as released). The last column is how the
backbone is initialised (`init_from`).

| variant                | crop | released mIoU, one scale / several | paper, several | begins with         |
|------------------------|------|------------------------------------|----------------|---------------------|
| upernet_swin_tiny      | 512  | 44.51 / 45.81                      | 46.1           | ImageNet-1K         |
| upernet_swin_small     | 512  | 47.64 / 49.47                      | 49.3           | ImageNet-1K         |
| upernet_swin_base      | 512  | 48.13 / 49.72                      |                | ImageNet-1K         |
| upernet_swin_base_22k  | 640  | 50.04 / 51.66                      | 51.6           | ImageNet-22K, 224   |
| upernet_swin_large_22k | 640  | 52.05 / 53.53                      | 53.5           | ImageNet-22K, 224   |
| upernet_swin_tiny_moby | 512  | 44.06 / 45.58                      |                | MoBY, without labels |
| upernet_deit_small     | 512  |                                    | 44.0           | DeiT-S              |
| upernet_resnet101      | 512  |                                    | 44.9           | ImageNet-1K         |
| upernet_resnet50       | 512  |                                    |                | ImageNet-1K         |

The released rows with 640 have no released config: crop and pictures of (2560, 640) are the paper's 640 and the other
rows' ratio. DeiT-S takes deconvolutions for its pyramid; nothing of its recipe is released, it is Swin's here. The
ResNets keep OpenMMLab's own: SGD with rate 0.01, momentum 0.9, weight decay 5e-4, polynomial of power 0.9. Hardware
of the paper: 8 V100; a step of 16 crops fits one accelerator of 80 GB, or 8 of 16 GB (computed from sizes of the
maps, not measured).

Evaluation sees each picture at its own size, as published, and compiles a program for each: of 2,000 sizes drawn as
the benchmark's look (shorter side 512, or for 15% from 200 on; half of them 4:3) these are 423. With
`--config.evaluation.size_multiple=32` they are 71, and numbers change a little; `evaluation.max_shapes` refuses more.

Data: `--config.data.source=ade20k` reads the benchmark's archive (ADEChallengeData2016.zip, or the folder that it
unpacks to) as it is; `tfds:ade20k150` what `swin_jax.prepare` made of it.
"""

from swin_jax.config import Config, base_config
from swin_jax.setups.recipes import use_upernet_recipe
from swin_jax.training.preflight import nearest

# variant -> name of the model, side of the crop.
ROWS = {
    "upernet_swin_tiny": ("upernet_swin_tiny", 512),
    "upernet_swin_small": ("upernet_swin_small", 512),
    "upernet_swin_base": ("upernet_swin_base", 512),
    "upernet_swin_base_22k": ("upernet_swin_base", 640),
    "upernet_swin_large_22k": ("upernet_swin_large", 640),
    "upernet_swin_tiny_moby": ("upernet_swin_tiny", 512),
    "upernet_deit_small": ("upernet_deit_small", 512),
    "upernet_resnet101": ("upernet_resnet101", 512),
    "upernet_resnet50": ("upernet_resnet50", 512),
}
VARIANTS = tuple(ROWS)


def get_config(variant: str = "upernet_swin_tiny") -> Config:
    if variant not in ROWS:
        raise ValueError(f"ade20k.py has no variant {variant!r}; {nearest(variant, ROWS)}")
    name, crop = ROWS[variant]
    config = base_config()
    use_upernet_recipe(config, name, crop)
    config.data.source = "ade20k"
    config.data.train_split = "training"
    if "resnet" in name:
        _resnet_recipe(config)
    return config


def _resnet_recipe(config: Config) -> None:
    config.model.drop_path_rate = None
    config.optimizer.name = "sgd"
    config.optimizer.weight_decay = 5e-4
    config.optimizer.no_decay = ()
    config.schedule.peak = 0.01
    config.schedule.end = 1e-4
    config.schedule.power = 0.9
    config.schedule.warmup = "0 steps"
    config.schedule.warmup_ratio = None
