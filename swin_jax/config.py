"""The fields of an experiment's config, their defaults, and how a config is kept in a run directory."""

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax.training.optimizer import NO_DECAY_CLASSIFICATION

# An `ml_collections.ConfigDict`: its fields are known to `base_config`, not to a type checker.
Config: TypeAlias = Any

# Fields that change where and how fast a run computes, or what it writes, but not one of its numbers: a run
# may be resumed with other values of these.
FREE_FIELDS = (
    "mesh",
    "model.scan",
    "model.remat",
    "data.root",
    "data.workers",
    "data.threads",
    "evaluate_batch_size",
    "evaluate_every",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "max_not_finite",
    "profile_steps",
    "deterministic",
)


def base_config() -> Config:
    """Every field of a config with its default: the paper's ImageNet-1K recipe (A2.1) without augmentation.

    Durations are texts with a unit: "300 epochs", "5000 steps", "1e6 examples". Fields that are None take what
    the named model was published with.
    """
    config: Config = ConfigDict()
    config.task = "classification"
    config.seed = 0
    config.batch_size = 1024  # examples of one update, over all devices and micro-batches
    # Micro-batches of one update, whose gradient is that of the whole batch. Only batch norms (segmenters' heads,
    # ResNets) take their statistics from each micro-batch alone: with them it is no exact stand-in for a larger batch.
    config.accumulation = 1
    config.total = "300 epochs"
    config.evaluate_every = "1 epoch"
    config.evaluate_batch_size = 256
    config.checkpoint_every = "1 epoch"
    config.keep_checkpoints = 2  # newest ones; the best is kept besides
    config.log_every = 50  # steps
    config.max_not_finite = 0  # steps that may be skipped for not being finite
    # What the run begins with: a run directory (its average, if it keeps one), or a weight file of the official
    # code, timm, torchvision, transformers or OpenMMLab. Bias tables are resampled to the run's window. Segmentation
    # takes the backbone of a classifier or backbone; of an UperNet (a run or a file) all: heads, statistics. "" and
    # "none" begin with nothing; "required", as recipes that fine-tune have it, waits to be replaced.
    config.init_from = ""
    # Its head, an UperNet's classifiers: "" where the classes agree in number, else fresh; "fresh"; or (not for
    # segmentation) a file with the row of that head for each class (ImageNet-22K to 1K), or with the WordNet id of
    # each of its rows.
    config.init_head = ""
    config.profile_steps = ""  # "first:stop": a profiler trace of these steps (stop excluded) under profile/
    config.deterministic = False  # GPU: the same bits in every run, slower; CPU and TPU give them anyway

    config.model = ConfigDict({"name": "swin_tiny_patch4_window7_224", "dtype": "bfloat16"})
    for field, kind in {
        "embed_dim": int,
        "depths": tuple,
        "num_heads": tuple,
        "window_size": int,
        "patch_size": int,
        "mlp_ratio": float,
        "drop_path_rate": float,
        "drop_rate": float,
        "attn_drop_rate": float,
        "qkv_bias": bool,
        "patch_norm": bool,
        "absolute_position_embedding": bool,
        "absolute_position_size": tuple,
        "window_policy": str,
        "mixer": str,  # "window", "sliding", "sliding_naive", "performer", "global", "mlp"
        "shift": str,  # "cyclic", "padding", "none"
        "relative_position": bool,
        "appearance": bool,  # False: logits are the position bias alone
        "performer_features": int,
        "performer_redraw": bool,
        "frozen_stages": int,
        "scan": bool,  # compile long stages as loops: a fraction of the compile time; give it a remat policy too
        "remat": str,  # "full", "dots" or "weight_dots": what the backward pass computes again
        "implementation": str,
        # Segmenters
        "channels": int,
        "pool_scales": tuple,
        "head_drop_rate": float,
        "auxiliary_channels": int,
        "auxiliary_convs": int,
        "auxiliary_index": int,
        "align_corners": bool,
        # Detectors; `channels`, above, are the pyramid's
        "fc_channels": int,
        "mask_channels": int,
        "mask_convs": int,
        "box_convs": int,  # of a box head; with any it has one linear layer, else two
        "class_agnostic": bool,
        "semantic_classes": int,  # HTC: of the label maps
        "global_attention": bool,  # HTC++: a Transformer block on the last map
        "with_masks": bool,  # False where the data have boxes alone
        # Other backbones and classifiers
        "depth": int,
        "groups": int,
        "width_per_group": int,
        "deep_stem": bool,
        "norm_eval": bool,
        "image_size": tuple,  # (height, width) of the only pictures that a Mixer or ResMLP takes
        "token_mlp_ratio": float,
        "layer_scale": float,
    }.items():
        config.model[field] = placeholder(kind)

    config.data = ConfigDict()
    config.data.source = "tfds:imagenet2012"  # or "shapes/easy|hard", "pairs", "folder", "list", "zip_map"
    config.data.root = ""  # directory or zip of the data; "" is the source's own default
    config.data.train_split = "train"
    config.data.eval_split = "validation"
    config.data.size = placeholder(tuple)  # (height, width) of a training and evaluation picture
    config.data.resize = placeholder(object)  # shorter side, or (height, width), before the evaluation crop
    config.data.interpolation = placeholder(str)
    config.data.crop_scale = (0.08, 1.0)  # area of the random resized crop
    config.data.crop_ratio = (3 / 4, 4 / 3)
    config.data.pad_crop = 0  # > 0: random crop of the picture padded by so many pixels, for small pictures
    # Segmentation: (long side, short side) that a picture is fitted into, aspect kept; None keeps its size.
    # Of detection None is (1333, 800).
    config.data.scale = placeholder(tuple)
    config.data.ratio_range = (0.5, 2.0)  # of the factor on that size, drawn for each training picture
    config.data.largest_share = 0.75  # of a training crop's pixels that one class may have (10 tries)
    # Detection: a training picture's shorter side is drawn from `short_sides`, its longer one is at most that of
    # `scale`; with `crop_probability` it is first resized to one of `crop_short_sides` and cut. `scale` is the size of
    # evaluation. Canvases follow from both.
    config.data.short_sides = tuple(range(480, 801, 32))
    config.data.crop_probability = 0.5
    config.data.crop_short_sides = (400, 500, 600)
    config.data.crop_range = (384, 600)  # least and largest side of the crop
    config.data.long_side = placeholder(int)  # of a training picture, where not that of `scale`
    config.data.max_boxes = 100  # rows of ground truth; more objects in a picture are an error
    config.data.mask_size = 112  # side of the crop that keeps an object's mask
    config.data.instaboost = 0.0  # probability of InstaBoost: a picture's objects are moved about; 0 for none
    config.data.repeats = 1  # rows of each example: repeated augmentation
    config.data.workers = 0  # processes that read and decode; 0 uses threads only
    config.data.threads = 8
    config.data.max_unreadable = 0  # pictures that may be replaced because they cannot be decoded

    config.augment = ConfigDict()  # of training pictures, on the device
    config.augment.flip = 0.5  # probability of a horizontal flip
    config.augment.rand_augment = ""  # a policy such as "rand-m9-mstd0.5-inc1"; "" for none
    config.augment.three_augment = False  # DeiT III: one of grey, solarize, blur
    config.augment.color_jitter = 0.0  # strength: brightness, contrast and saturation; 0 for none
    config.augment.erase_probability = 0.0  # random erasing, with noise
    config.augment.erase_area = (0.02, 1 / 3)  # of the picture
    config.augment.erase_aspect = 0.3  # smallest height over width; the largest is its inverse
    config.augment.mixup_alpha = 0.0  # of Beta(alpha, alpha); 0 for none
    config.augment.cutmix_alpha = 0.0
    config.augment.mix_probability = 1.0  # that a group of rows is mixed at all
    config.augment.mix_switch = 0.5  # that it is by cutmix, where both are on
    config.augment.photometric = False  # segmentation: brightness, contrast, saturation and hue
    config.loss = ConfigDict({"label_smoothing": 0.1})
    config.loss.auxiliary_weight = 0.4  # segmentation: of the auxiliary head
    config.loss.mean = (
        "all"  # segmentation: over "all" pixels, ignored ones adding 0 (as published), or "valid"
    )

    # Segmentation. Pictures of equal size are evaluated together, each size is a program of its own.
    config.evaluation = ConfigDict()
    config.evaluation.window = placeholder(tuple)  # (height, width) of a sliding window; None: pictures whole
    config.evaluation.stride = placeholder(tuple)  # of the window; None: two thirds of it
    config.evaluation.multi_scale = False  # average probabilities over `ratios`, and mirrored if `flip`
    config.evaluation.ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    config.evaluation.flip = True
    config.evaluation.size_multiple = 0  # > 0: resize sides to multiples: fewer programs, other numbers
    config.evaluation.canvas = 256  # label maps are filled up to multiples of it; changes no number
    config.evaluation.max_shapes = 0  # sizes that an evaluation may have; more is an error; 0: any

    # Detection: the numbers of both stages, Mask R-CNN's as published.
    config.detection = ConfigDict()
    config.detection.anchor_scales = (8.0,)  # sides of anchors, in strides of their level
    config.detection.anchor_ratios = (0.5, 1.0, 2.0)  # heights over widths
    config.detection.anchor_sample = 256  # anchors of a picture in the loss,
    config.detection.anchor_positives = 128  # positive ones at most
    # Pixels that an anchor may reach out of its picture and still be trained; None: any, of a cascade 0.
    config.detection.anchor_border = placeholder(float)
    config.detection.train_proposals_per_level = 2000  # before suppression,
    config.detection.train_proposals = placeholder(
        int
    )  # and of a picture behind it; None: 1000, of a cascade 2000
    config.detection.test_proposals_per_level = 1000
    config.detection.test_proposals = 1000
    config.detection.proposal_nms = 0.7  # IoU from which the worse proposal goes
    config.detection.roi_sample = 512  # RoIs of a picture in the loss,
    config.detection.roi_positives = 128  # positive ones at most
    # One value for each stage of a detector; None: as published.
    config.detection.roi_ious = placeholder(tuple)  # from which a RoI is positive
    config.detection.roi_stds = placeholder(tuple)  # of box deltas, four for each stage
    config.detection.roi_weights = placeholder(tuple)  # of a stage's losses
    config.detection.low_quality = placeholder(
        bool
    )  # every object's best RoI with such an IoU is positive, too
    config.detection.test_stages = placeholder(int)  # how many stages judge test pictures; None: all
    # "l1" or "smooth_l1" of deltas, "giou" of boxes; None: l1, of Swin's cascades giou, of stock ones smooth_l1.
    config.detection.box_loss = placeholder(str)
    config.detection.box_weight = placeholder(float)  # of that loss; None: 10 for giou, 1 for the others
    config.detection.semantic_weight = 0.2  # of the loss of HTC's semantic branch
    config.detection.roi_finest = 56.0  # pixels; RoIs up to twice that side read the finest level
    config.detection.roi_points = 0  # RoIAlign's points per bin and axis; 0: adaptive, as published
    config.detection.roi_align = "auto"  # "gather", "separable", or the better one for the platform
    config.detection.least_score = placeholder(float)  # of a detection; None: .05, of HTC .001
    config.detection.nms = (
        0.5  # IoU from which the worse detection of a class goes (linear soft-NMS: is lowered)
    )
    config.detection.most = 100  # detections of a picture
    config.detection.soft_nms = ""  # "linear" or "gaussian" instead of dropping

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.05
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.momentum = 0.9  # sgd only
    config.optimizer.nesterov = False  # sgd only
    config.optimizer.clip_norm = 5.0  # global norm; 0 does not clip
    config.optimizer.no_decay = NO_DECAY_CLASSIFICATION
    config.optimizer.no_decay_1d = True
    config.optimizer.frozen = ()
    config.optimizer.layer_decay = placeholder(float)

    # Rates are those for 512 examples an update, as the published configs give them; `scale_per=0` takes them
    # as they stand.
    config.schedule = ConfigDict()
    config.schedule.kind = "cosine"
    config.schedule.peak = 5e-4
    config.schedule.end = 5e-6
    config.schedule.scale_per = 512
    config.schedule.warmup = "20 epochs"
    config.schedule.warmup_start = 5e-7
    config.schedule.warmup_ratio = placeholder(float)
    config.schedule.warmup_prefix = placeholder(bool)
    config.schedule.reference_offset = False
    config.schedule.power = placeholder(float)  # poly
    config.schedule.decay = placeholder(str)  # step: a duration
    config.schedule.decay_rate = placeholder(float)  # step, multistep
    config.schedule.milestones = ()  # multistep: durations

    # The average of the parameters; with one, it is what ranks checkpoints, and what evaluate and predict take.
    config.ema = ConfigDict({"decay": 0.0})  # of each update; 0 keeps no average
    config.ema.warmup = ""  # or "ratio": min(decay, (1+t)/(10+t)), "power": min(decay, 1-(1+t)^(-2/3))

    config.mesh = ConfigDict({"platform": "", "fsdp": 1, "rules": ()})
    return config


def use_paper_augmentation(config: Config) -> None:
    """The paper's augmentation (A2.1; the same in pre-training and fine-tuning): RandAugment, erasing, mixing."""
    config.augment.rand_augment = "rand-m9-mstd0.5-inc1"
    config.augment.erase_probability = 0.25
    config.augment.mixup_alpha = 0.8
    config.augment.cutmix_alpha = 1.0


def config_fields() -> list[str]:
    """The dotted name of every field of a config."""

    def names(node: Config, prefix: str) -> Iterator[str]:
        for name, value in node.items():
            if isinstance(value, ConfigDict):
                yield from names(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    return list(names(base_config(), ""))


def get_field(config: Config, name: str) -> Any:
    """The value of a field by its dotted name."""
    return functools.reduce(lambda node, part: node[part], name.split("."), config)


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain JSON values: tuples become lists, placeholders their values."""
    return json.loads(json.dumps(config.to_dict()))


def from_dict(values: Mapping[str, Any]) -> Config:
    """The config that `to_dict` was given.

    Raises:
        ValueError: it has fields this version does not know, or not of their type.
    """
    config = base_config()
    try:
        _fill(config, values)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the config was written by another version: {error}") from error
    return config.lock()


def _fill(config: Config, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name not in config:
            raise KeyError(f"unknown field {name!r}")
        if isinstance(value, Mapping):
            _fill(config[name], value)
        else:
            config[name] = _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
