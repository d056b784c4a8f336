"""ImageNet-1K: Swin-T, S and B from scratch, and the fine-tunes of table 1 of Liu et al. (2021).

    python -m swin_jax.train --config=experiments/imagenet1k.py:swin_tiny --workdir=runs/swin_tiny
    python -m swin_jax.train --config=experiments/imagenet1k.py:swin_base_384 \\
        --config.init_from=runs/swin_base --workdir=runs/swin_base_384
    python -m swin_jax.summary --config=experiments/imagenet1k.py:swin_tiny   # rates, decay groups, length

From scratch: 300 epochs, 20 of them warm-up from 1e-6; batch 1024, AdamW with peak rate 1e-3 (5e-4 for 512 images),
cosine to 1e-5, weight decay 0.05, global-norm clip 5, label smoothing 0.1. Fine-tuning begins with the parameters of
a run given by `--config.init_from`: 30 epochs, 5 of them warm-up from 4e-8, peak 4e-5, cosine to 4e-7, decay 1e-8.
Another batch size scales all rates.

| variant                  | begins with            | image | depth drop | paper top-1 | released top-1 |
|--------------------------|------------------------|-------|------------|-------------|----------------|
| swin_tiny                |                        | 224   | 0.2        | 81.3        | 81.2           |
| swin_small               |                        | 224   | 0.3        | 83.0        | 83.2           |
| swin_base                |                        | 224   | 0.5        | 83.5        | 83.5           |
| swin_tiny_c24            |                        | 256   | 0.2        |             | 81.6           |
| swin_base_384            | swin_base              | 384   | 0.5        | 84.5        | 84.5           |
| swin_tiny_from_22k       | imagenet22k swin_tiny  | 224   | 0.1        |             | 80.9           |
| swin_small_from_22k      | imagenet22k swin_small | 224   | 0.2        |             | 83.2           |
| swin_base_from_22k       | imagenet22k swin_base  | 224   | 0.2        | 85.2        | 85.2           |
| swin_large_from_22k      | imagenet22k swin_large | 224   | 0.2        |             | 86.3           |
| swin_base_from_22k_384   | imagenet22k swin_base  | 384   | 0.2        | 86.4        | 86.4           |
| swin_large_from_22k_384  | imagenet22k swin_large | 384   | 0.2        | 87.3        | 87.3           |

The values are those of the released code. Where the paper's text differs, `<variant>_paper` has the paper's: clip 1,
and for fine-tunes a constant rate of 1e-5 without warm-up and a depth drop of 0.1. Two habits of the code are fields:
the released logs have a cosine over all epochs, warm-up included (`--config.schedule.warmup_prefix=False`; the code
since 2022, and this config, let it begin after the warm-up), and its scheduler lags one step behind
(`--config.schedule.reference_offset=True`).

Augmentation, all but the crop on the device: flip, RandAugment `rand-m9-mstd0.5-inc1`, random erasing with
probability 0.25, mixup 0.8 or cutmix 1.0. Data: `tfds:imagenet2012` as ArrayRecord, an image folder
(`--config.data.source=folder --config.data.root=... --config.data.eval_split=val`), or the official train.zip and
val.zip with their maps (`--config.data.source=zip_map --config.data.root=... --config.data.eval_split=val`).
"""

from swin_jax.config import Config, base_config, use_paper_augmentation
from swin_jax.training.preflight import nearest

# variant -> (model, stochastic depth)
SCRATCH = {
    "swin_tiny": ("swin_tiny_patch4_window7_224", 0.2),
    "swin_small": ("swin_small_patch4_window7_224", 0.3),
    "swin_base": ("swin_base_patch4_window7_224", 0.5),
    "swin_tiny_c24": ("swin_tiny_c24_patch4_window8_256", 0.2),
}
FINE_TUNE = {
    "swin_base_384": ("swin_base_patch4_window12_384", 0.5),
    "swin_tiny_from_22k": ("swin_tiny_patch4_window7_224", 0.1),
    "swin_small_from_22k": ("swin_small_patch4_window7_224", 0.2),
    "swin_base_from_22k": ("swin_base_patch4_window7_224", 0.2),
    "swin_large_from_22k": ("swin_large_patch4_window7_224", 0.2),
    "swin_base_from_22k_384": ("swin_base_patch4_window12_384", 0.2),
    "swin_large_from_22k_384": ("swin_large_patch4_window12_384", 0.2),
}
PAPER = tuple(f"{variant}_paper" for variant in (*SCRATCH, *FINE_TUNE) if variant != "swin_tiny_c24")
VARIANTS = (*SCRATCH, *FINE_TUNE, *PAPER)


def get_config(variant: str = "swin_tiny") -> Config:
    if variant not in VARIANTS:
        raise ValueError(f"imagenet1k.py has no variant {variant!r}; {nearest(variant, VARIANTS)}")
    released = variant.removesuffix("_paper")
    config = base_config()
    use_paper_augmentation(config)
    config.model.name, config.model.drop_path_rate = (SCRATCH | FINE_TUNE)[released]
    if released in FINE_TUNE:
        _fine_tune(config)
    if variant in PAPER:
        _as_the_paper_says(config, fine_tune=released in FINE_TUNE)
    return config


def _fine_tune(config: Config) -> None:
    config.init_from = ""  # give it: the run whose parameters are fine-tuned
    config.total = "30 epochs"
    config.optimizer.weight_decay = 1e-8
    config.schedule.peak = 2e-5
    config.schedule.end = 2e-7
    config.schedule.warmup = "5 epochs"
    config.schedule.warmup_start = 2e-8


def _as_the_paper_says(config: Config, *, fine_tune: bool) -> None:
    """Appendix A2.1, where the released code has other values."""
    config.optimizer.clip_norm = 1.0  # code: 5
    if fine_tune:
        config.model.drop_path_rate = 0.1  # code: 0.5 from 224 to 384, 0.2 from ImageNet-22K (T: 0.1)
        config.schedule.kind = "constant"  # code: cosine from 4e-5 to 4e-7 after a warm-up
        config.schedule.peak = 1e-5
        config.schedule.scale_per = 0
        config.schedule.warmup = "0 epochs"
        config.schedule.warmup_start = 0.0
