"""ImageNet-1K from scratch: Swin-T, S and B as in Liu et al. (2021), table 1a.

    python -m swin_jax.train --config=experiments/imagenet1k.py:swin_tiny --workdir=runs/swin_tiny

300 epochs, batch 1024, AdamW with peak rate 1e-3 (5e-4 for 512 images), 20 epochs of warm-up, weight decay 0.05,
global-norm clip 5, label smoothing 0.1, stochastic depth 0.2 / 0.3 / 0.5. The cosine spans the epochs after the
warm-up, as the released code has it since 2022.

| variant    | paper top-1 | released top-1 |
|------------|-------------|----------------|
| swin_tiny  | 81.3        | 81.2           |
| swin_small | 83.0        | 83.2           |
| swin_base  | 83.5        | 83.5           |

RandAugment, random erasing, mixup and cutmix of the recipe are not in these configs yet; without them the
published figures are out of reach. Data: `tfds:imagenet2012` as ArrayRecord, or an image folder
(`--config.data.source=folder --config.data.root=... --config.data.eval_split=val`).
"""

from swin_jax.config import Config, base_config
from swin_jax.training.preflight import nearest

DROP_PATH = {"swin_tiny": 0.2, "swin_small": 0.3, "swin_base": 0.5}
VARIANTS = tuple(DROP_PATH)


def get_config(variant: str = "swin_tiny") -> Config:
    if variant not in DROP_PATH:
        raise ValueError(f"imagenet1k.py has no variant {variant!r}; {nearest(variant, DROP_PATH)}")
    config = base_config()
    config.model.name = f"{variant}_patch4_window7_224"
    config.model.drop_path_rate = DROP_PATH[variant]
    return config
