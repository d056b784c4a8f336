"""The embedded data set: scenes of textured shapes, drawn on this machine in seconds.

    python -m swin_jax.train --config=experiments/shapes.py:classification --workdir=runs/shapes

A Swin of 0.3 M parameters names the dominant shape of a 64 x 64 picture. Two CPU cores need about three minutes;
held-out top-1 is above 95%. Variant `hard` has clutter, overlap and occlusion. Variant `segmentation` is a UperNet
of 0.9 M parameters that names the shape, or the background, of every pixel of the easy scenes.
"""

from swin_jax.config import Config, base_config
from swin_jax.setups.recipes import use_micro_upernet, use_upernet_recipe
from swin_jax.training.preflight import nearest

VARIANTS = ("classification", "hard", "segmentation")


def get_config(variant: str = "classification") -> Config:
    if variant not in VARIANTS:
        raise ValueError(f"shapes.py has no variant {variant!r}; {nearest(variant, VARIANTS)}")
    return _segmentation() if variant == "segmentation" else _classification(variant)


def _classification(variant: str) -> Config:
    config = base_config()
    config.batch_size = 128
    config.total = "10 epochs"
    config.evaluate_every = "1 epoch"
    config.log_every = 20

    config.model.name = "swin"
    config.model.dtype = "float32"
    config.model.embed_dim = 32
    config.model.depths = (2, 2, 2)
    config.model.num_heads = (2, 4, 8)
    config.model.window_size = 4
    config.model.drop_path_rate = 0.05

    config.data.source = "shapes/hard" if variant == "hard" else "shapes/easy"
    config.data.eval_split = "val"
    config.data.size = (64, 64)
    config.data.resize = (64, 64)  # the whole scene
    config.data.crop_scale = (0.5, 1.0)
    config.data.threads = 2

    config.schedule.scale_per = 0
    config.schedule.peak = 2e-3
    config.schedule.end = 2e-5
    config.schedule.warmup = "1 epoch"
    config.schedule.warmup_start = 0.0
    return config


def _segmentation() -> Config:
    config = base_config()
    use_upernet_recipe(config, "upernet_swin_tiny", crop=128)
    use_micro_upernet(config)
    config.data.source = "shapes/easy"
    config.data.eval_split = "val"
    config.data.scale = None  # a scene as it is
    config.data.ratio_range = (0.75, 1.5)
    config.total = "3 epochs"
    config.evaluate_every = config.checkpoint_every = "1 epoch"
    config.loss.mean = "valid"
    return config
