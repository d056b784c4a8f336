"""The embedded data set: scenes of textured shapes, drawn on this machine in seconds.

    python -m swin_jax.train --config=experiments/shapes.py:classification --workdir=runs/shapes

A Swin of 0.6 M parameters names the dominant shape of a 48 x 48 picture. Two CPU cores need about six minutes;
held-out top-1 is above 95%. Variant `hard` has clutter, overlap and occlusion. Variant `segmentation` is a UperNet
of 0.7 M parameters that names the shape, or the background, of every pixel of the easy scenes, seen at 64 x 64; its
held-out mean IoU is above 0.85, within ten minutes. Variant `mask_rcnn` is a Mask R-CNN of 2.6 M parameters that finds
the objects of the easy scenes with their masks: 200 scenes to learn from and 50 others to be judged by. Variants
`cascade` and `htc` are Cascade Mask R-CNN and Hybrid Task Cascade on the same scenes.
"""

from swin_jax.config import Config, base_config
from swin_jax.data.sources.outlines import CLASSES
from swin_jax.setups.recipes import (
    use_coco_recipe,
    use_micro_detector,
    use_micro_upernet,
    use_upernet_recipe,
)
from swin_jax.training.preflight import nearest

DETECTORS = {
    "mask_rcnn": "mask_rcnn_swin_tiny",
    "cascade": "cascade_mask_rcnn_swin_tiny",
    "htc": "htc_swin_tiny",
}
VARIANTS = ("classification", "hard", "segmentation", *DETECTORS)


def get_config(variant: str = "classification") -> Config:
    if variant not in VARIANTS:
        raise ValueError(f"shapes.py has no variant {variant!r}; {nearest(variant, VARIANTS)}")
    if variant in DETECTORS:
        return _detection(DETECTORS[variant])
    return _segmentation() if variant == "segmentation" else _classification(variant)


def _classification(variant: str) -> Config:
    config = base_config()
    config.batch_size = 32  # many small updates: what a micro Swin needs most in minutes
    config.total = "16 epochs"
    config.evaluate_every = "4 epochs"
    config.checkpoint_every = "4 epochs"
    config.log_every = 100

    config.model.name = "swin"
    config.model.dtype = "float32"
    config.model.embed_dim = 32
    config.model.depths = (2, 2, 2)
    config.model.num_heads = (2, 4, 8)
    config.model.window_size = 3
    config.model.drop_path_rate = 0.0

    config.data.source = "shapes/hard" if variant == "hard" else "shapes/easy"
    config.data.eval_split = "val"
    config.data.size = (48, 48)
    config.data.resize = (48, 48)  # the whole scene
    config.data.crop_scale = (0.85, 1.0)
    config.data.crop_ratio = (0.9, 1.1)
    config.data.threads = 2

    config.loss.label_smoothing = 0.05
    config.optimizer.b2 = 0.99
    config.schedule.scale_per = 0
    config.schedule.peak = 2e-3
    config.schedule.end = 2e-5
    config.schedule.warmup = "200 steps"
    config.schedule.warmup_start = 0.0
    return config


def _segmentation() -> Config:
    config = base_config()
    use_upernet_recipe(config, "upernet_swin_tiny", crop=64)
    use_micro_upernet(config)
    config.total = "8 epochs"
    config.evaluate_every = config.checkpoint_every = "2 epochs"

    config.data.source = "shapes/easy"
    config.data.eval_split = "val"
    config.data.scale = (64, 64)  # the whole scene
    config.data.ratio_range = (0.75, 1.25)
    config.data.largest_share = 1.0  # four fifths of a scene are background
    config.augment.photometric = False  # scenes have all colours
    return config


def _detection(name: str) -> Config:
    config = base_config()
    use_coco_recipe(config, name)
    use_micro_detector(config, name, side=128)
    config.total = "1500 steps"
    config.evaluate_every = config.checkpoint_every = "500 steps"

    config.data.source = "shapes/easy"
    config.data.train_split = "train[:200]"
    config.data.eval_split = "val[:50]"
    if name.startswith("htc"):
        config.model.semantic_classes = 1 + len(CLASSES)  # the background is one
    return config
