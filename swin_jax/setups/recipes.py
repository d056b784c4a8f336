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


def use_coco_recipe(config: Config, name: str, *, epochs: int = 12, drop_path: float | None = 0.1) -> None:
    """COCO's, as released with Swin: 16 pictures, AdamW, 12, 36 or 72 epochs with two decays (OpenMMLab)."""
    config.task = "detection"
    config.model.name = name
    config.model.drop_path_rate = drop_path
    config.batch_size = 16
    config.total = f"{epochs} epochs"
    config.evaluate_every = config.checkpoint_every = "1 epoch"
    config.evaluate_batch_size = 8

    config.data.scale = (1333, 800)
    config.data.threads = 2  # each reads ahead by batches of 70 MB

    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 0.0
    config.optimizer.no_decay = NO_DECAY_DENSE
    config.optimizer.no_decay_1d = False

    config.schedule.kind = "multistep"
    config.schedule.peak = 1e-4
    config.schedule.end = 0.0
    config.schedule.scale_per = 0
    config.schedule.warmup = "500 steps"
    config.schedule.warmup_ratio = 1e-3
    config.schedule.decay_rate = 0.1
    config.schedule.milestones = tuple(f"{epoch} epochs" for epoch in MILESTONES[epochs])


MILESTONES = {12: (8, 11), 36: (27, 33), 72: (63, 69)}
"""Behind which epochs the rate falls, by the length of a schedule."""


def use_sgd(config: Config) -> None:
    """What detectors on ResNets are trained with elsewhere (OpenMMLab), and in table 9 beside AdamW."""
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.optimizer.no_decay = ()
    config.schedule.peak = 0.02


def use_htcpp_recipe(config: Config, name: str, *, drop_path: float | None = 0.2) -> None:
    """HTC++ (section 4.2): InstaBoost, multi-scale training, 72 epochs, soft-NMS.

    Its configuration was not released. As stated by the authors: shorter sides from 400 to 1400 pixels, the longer at
    most 1600, decays behind epochs 63 and 69, drop path 0.2 (of the backbone, not of the block behind it). Assumed:
    batch 16; InstaBoost's published defaults; linear soft-NMS from an IoU of .5, as OpenMMLab's configs have it (its
    own default is .3); evaluation at 800 x 1333, where the MACs are counted, and for several scales one picture a time.
    """
    use_coco_recipe(config, name, epochs=72, drop_path=drop_path)
    config.evaluate_batch_size = 1  # of each device: over all scales a picture has a gigabyte of maps
    config.data.short_sides = tuple(range(400, 1401))
    config.data.long_side = 1600
    config.data.crop_probability = 0.0
    config.data.instaboost = 0.5
    config.detection.soft_nms = "linear"
    config.evaluation.ratios = (
        0.5,
        0.75,
        1.0,
        1.25,
        1.5,
        1.75,
    )  # with --multi_scale: shorter sides 400 to 1400


def use_micro_detector(config: Config, name: str, side: int) -> None:
    """A detector of few channels on square canvases, which two CPU cores train in minutes."""
    config.model.name = name
    config.model.dtype = "float32"
    config.model.embed_dim = 32
    config.model.depths = (2, 2, 2, 2)
    config.model.num_heads = (1, 2, 4, 8)
    config.model.window_size = 4
    config.model.drop_path_rate = 0.0
    config.model.channels = 32
    config.model.fc_channels = 128
    config.model.mask_channels = 32
    config.model.mask_convs = 2
    config.batch_size = 4
    config.evaluate_batch_size = 25
    config.log_every = 50

    config.data.threads = 2
    config.data.scale = (side, side)
    config.data.short_sides = (side,)
    config.data.crop_probability = 0.0
    config.data.max_boxes = 20
    config.data.mask_size = 56

    config.detection.anchor_scales = (4.0,)
    config.detection.anchor_sample = 64
    config.detection.anchor_positives = 32
    config.detection.train_proposals_per_level = 200
    config.detection.train_proposals = 100
    config.detection.test_proposals_per_level = 200
    config.detection.test_proposals = 100
    config.detection.roi_sample = 48
    config.detection.roi_positives = 16
    config.detection.roi_finest = 16.0
    config.detection.roi_points = 2
    config.detection.most = 20

    config.optimizer.b2 = 0.99
    config.optimizer.clip_norm = 5.0
    config.schedule.kind = "cosine"
    config.schedule.peak = 1e-3
    config.schedule.end = 1e-5
    config.schedule.warmup = "100 steps"
    config.schedule.warmup_ratio = None
    config.schedule.warmup_start = 0.0
    config.schedule.decay_rate = None
    config.schedule.milestones = ()
