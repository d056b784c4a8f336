"""ImageNet-22K: pre-training of Swin-T, S, B and L as in Liu et al. (2021), table 1b.

    python -m swin_jax.train --config=experiments/imagenet22k.py:swin_base --config.data.root=/data/imagenet22k \\
        --workdir=runs/swin_base_22k
    python -m swin_jax.train --config=experiments/imagenet1k.py:swin_base_from_22k \\
        --config.init_from=runs/swin_base_22k --workdir=runs/swin_base_from_22k      # then fine-tune

90 epochs, 5 of them warm-up from 1e-6; batch 4096, AdamW with peak rate 1e-3 (1.25e-4 for 512 images), cosine to 1e-5,
weight decay 0.05, global-norm clip 5, label smoothing 0.1, 224 x 224, 21,841 classes, augmented as in imagenet1k.py.
Another batch size scales all rates. What fits a device is set with `--config.accumulation`, `--config.model.remat`
and `--config.mesh.fsdp`.

| variant    | depth drop | top-1 on ImageNet-1K, fine-tuned at 224 | at 384 |
|------------|------------|-----------------------------------------|--------|
| swin_tiny  | 0.1        | 80.9                                    |        |
| swin_small | 0.2        | 83.2                                    |        |
| swin_base  | 0.2        | 85.2                                    | 86.4   |
| swin_large | 0.2        | 86.3                                    | 87.3   |

The values are those of the released code. `<variant>_paper` has those of the paper's text, where they differ: weight
decay 0.01, a linear decay of the rate, clip 1.

Data, by `--config.data.source`: `list`, the released lists ILSVRC2011fall_whole_map_train.txt and _val.txt (or
train.txt and val.txt, a path and a label on each line) beside the pictures; `zip_map`, train.zip with train_map.txt
and val.zip with val_map.txt; `folder`, train/<class>/* and val/<class>/*, whose classes are numbered by name.
"""

from swin_jax.config import Config, base_config, use_paper_augmentation
from swin_jax.training.preflight import nearest

DROP_PATH = {"swin_tiny": 0.1, "swin_small": 0.2, "swin_base": 0.2, "swin_large": 0.2}
PAPER = tuple(f"{variant}_paper" for variant in DROP_PATH)
VARIANTS = (*DROP_PATH, *PAPER)


def get_config(variant: str = "swin_base") -> Config:
    if variant not in VARIANTS:
        raise ValueError(f"imagenet22k.py has no variant {variant!r}; {nearest(variant, VARIANTS)}")
    released = variant.removesuffix("_paper")
    config = base_config()
    use_paper_augmentation(config)
    config.batch_size = 4096
    config.total = "90 epochs"
    config.model.name = f"{released}_patch4_window7_224_22k"
    config.model.drop_path_rate = DROP_PATH[released]

    config.data.source = "list"
    config.data.eval_split = "val"
    config.data.max_unreadable = (
        100  # the set has damaged pictures; the released code puts noise in their place
    )

    config.schedule.peak = 1.25e-4
    config.schedule.end = 1.25e-6
    config.schedule.warmup = "5 epochs"
    config.schedule.warmup_start = 1.25e-7
    if variant in PAPER:
        _as_the_paper_says(config)
    return config


def _as_the_paper_says(config: Config) -> None:
    """Appendix A2.1, where the released code has other values."""
    config.optimizer.clip_norm = 1.0  # code: 5
    config.optimizer.weight_decay = 0.01  # code: 0.05
    config.schedule.kind = (
        "linear"  # code: cosine. Where it ends is not said: at 1% of the peak as the code's own
    )
