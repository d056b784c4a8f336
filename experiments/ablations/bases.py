"""What the tables have in common: the base config of each scale."""

from experiments.ade20k import get_config as ade20k
from experiments.coco import get_config as coco
from experiments.imagenet1k import get_config as imagenet1k
from experiments.own_images import get_config as own_images
from experiments.shapes import get_config as shapes
from swin_jax.config import Config


def paper_classification() -> Config:
    """Swin-T on ImageNet-1K from scratch."""
    return imagenet1k("swin_tiny")


def paper_segmentation() -> Config:
    """UperNet on ADE20K; begins with the classification run that `--override=init_from=...` names."""
    return ade20k("upernet_swin_tiny")


def paper_detection() -> Config:
    """Cascade Mask R-CNN, 3x, on COCO; begins with the classification run that `--override=init_from=...` names."""
    return coco("cascade_mask_rcnn_swin_tiny_3x")


def small_classification() -> Config:
    """Two stages of 8 and 4 tokens a side on CIFAR-10 as an image folder: name it with `--override=data.root=...`."""
    config = own_images("micro_32")
    config.model.patch_size = 2
    config.model.embed_dim = 32
    config.model.depths = (2, 2)
    config.model.num_heads = (2, 4)
    config.model.absolute_position_size = (32, 32)
    config.data.eval_split = "test"
    config.evaluate_batch_size = 500
    config.total = "2000 steps"
    config.evaluate_every = config.checkpoint_every = "500 steps"
    config.schedule.warmup = "200 steps"
    return config


def micro_classification() -> Config:
    """The pictures of `data/sources/pairs.py`: windows of 4 tokens of 4 pixels, two stages of 16 and 8 tokens a side.

    Without a shift no window, and no merged patch, ever reaches across the lines at which the tiles meet.
    """
    config = shapes("classification")
    config.data.source = "pairs"
    config.data.size = config.data.resize = (64, 64)
    config.data.crop_scale = config.data.crop_ratio = (
        1.0,
        1.0,
    )  # a crop would move the tiles between windows
    config.model.embed_dim = 32
    config.model.depths = (2, 2)
    config.model.num_heads = (2, 4)
    config.model.window_size = 4
    config.model.absolute_position_size = (64, 64)
    config.total = "1000 steps"
    config.evaluate_every = config.checkpoint_every = "250 steps"
    config.schedule.warmup = "100 steps"
    return config


CLASSIFICATION = {
    ("paper", "classification"): paper_classification,
    ("small", "classification"): small_classification,
    ("micro", "classification"): micro_classification,
}
DENSE = {
    ("paper", "segmentation"): paper_segmentation,
    ("paper", "detection"): paper_detection,
    ("micro", "segmentation"): lambda: shapes("segmentation"),
    ("micro", "detection"): lambda: shapes("cascade"),
}
