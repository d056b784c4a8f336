"""Your own pictures: a directory or zip with train/<class>/* and val/<class>/*.

    python -m swin_jax.train --config=experiments/own_images.py:swin_tiny \\
        --config.data.root=/data/flowers --workdir=runs/flowers

| variant   | for                                                                    | where         |
|-----------|------------------------------------------------------------------------|---------------|
| swin_tiny | photographs; Swin-T at 224 x 224                                       | a GPU or TPU  |
| micro_32  | pictures of 32 x 32 such as CIFAR; a Swin of 0.9 M parameters, patch 2 | two CPU cores |

Another name of the validation folder is set with `--config.data.eval_split=test`; the length of training with
`--config.total="100 epochs"`.
"""

from swin_jax.config import Config, base_config
from swin_jax.training.preflight import nearest

VARIANTS = ("swin_tiny", "micro_32")


def get_config(variant: str = "swin_tiny") -> Config:
    if variant not in VARIANTS:
        raise ValueError(f"own_images.py has no variant {variant!r}; {nearest(variant, VARIANTS)}")
    config = base_config()
    config.data.source = "folder"
    config.data.eval_split = "val"
    if variant == "micro_32":
        _micro_32(config)
    else:
        _swin_tiny(config)
    return config


def _swin_tiny(config: Config) -> None:
    config.model.name = "swin_tiny_patch4_window7_224"
    config.model.drop_path_rate = 0.2
    config.batch_size = 256
    config.total = "100 epochs"
    config.schedule.warmup = "5 epochs"


def _micro_32(config: Config) -> None:
    """Three stages of 16, 8 and 4 tokens a side, windows of 4; pad-and-crop instead of the resized crop."""
    config.batch_size = 32  # many small updates: what a micro Swin needs most in minutes
    config.total = "6 epochs"
    config.evaluate_every = "1 epoch"
    config.checkpoint_every = "1 epoch"
    config.model.name = "swin"
    config.model.dtype = "float32"
    config.model.embed_dim = 48
    config.model.depths = (2, 2, 2)
    config.model.num_heads = (2, 4, 8)
    config.model.window_size = 4
    config.model.patch_size = 2
    config.model.drop_path_rate = 0.0
    config.data.size = (32, 32)
    config.data.resize = (32, 32)
    config.data.pad_crop = 4
    config.data.threads = 2
    config.loss.label_smoothing = 0.05
    config.optimizer.b2 = 0.99
    config.schedule.scale_per = 0
    config.schedule.peak = 1e-3
    config.schedule.end = 1e-5
    config.schedule.warmup = "500 steps"
    config.schedule.warmup_start = 0.0
