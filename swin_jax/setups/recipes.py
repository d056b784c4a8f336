"""Recipes that several experiments share."""

from swin_jax.config import Config
from swin_jax.training.optimizer import NO_DECAY_DENSE


def use_upernet_recipe(config: Config, name: str, crop: int = 512) -> None:
    """ADE20K's, as released with Swin: 160,000 steps of 16 crops (OpenMMLab)."""
    config.task = "segmentation"
    config.model.name = name
    config.model.drop_path_rate = 0.3
    config.batch_size = 16
    config.total = "160000 steps"
    config.evaluate_every = config.checkpoint_every = "16000 steps"
    config.evaluate_batch_size = 8

    config.data.size = (crop, crop)
    config.data.scale = (4 * crop, crop)
    config.augment.photometric = True

    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 0.0
    config.optimizer.no_decay = NO_DECAY_DENSE
    config.optimizer.no_decay_1d = False

    config.schedule.kind = "poly"
    config.schedule.power = 1.0
    config.schedule.peak = 6e-5
    config.schedule.end = 0.0
    config.schedule.scale_per = 0
    config.schedule.warmup = "1500 steps"
    config.schedule.warmup_ratio = 1e-6


def use_micro_upernet(config: Config) -> None:
    """A UperNet that two CPU cores train in minutes, by many small updates: three stages, a head of 32 channels."""
    config.model.name = "upernet_swin_tiny"
    config.model.dtype = "float32"
    config.model.embed_dim = 32
    config.model.depths = (2, 2, 2)
    config.model.num_heads = (2, 4, 8)
    config.model.window_size = 4
    config.model.drop_path_rate = 0.0
    config.model.channels = 32
    config.model.auxiliary_channels = 16
    config.model.head_drop_rate = 0.0
    config.batch_size = 16
    config.evaluate_batch_size = 50
    config.log_every = 100

    config.data.threads = 2
    config.evaluation.canvas = 64
    config.loss.mean = "valid"
    config.optimizer.b2 = 0.99
    config.optimizer.clip_norm = 5.0

    config.schedule.kind = "cosine"
    config.schedule.power = None
    config.schedule.peak = 2e-3
    config.schedule.end = 2e-5
    config.schedule.warmup = "200 steps"
    config.schedule.warmup_ratio = None
    config.schedule.warmup_start = 0.0
