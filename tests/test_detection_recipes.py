"""The recipes of detectors against the published values, and what their data must have."""

from typing import Any

import pytest

from experiments import coco, shapes
from swin_jax import experiment
from swin_jax.config import Config
from swin_jax.setups import detection
from swin_jax.tasks.detection import Seen
from swin_jax.tasks.two_stage_settings import BoxLoss

PICTURES = 117_266  # of COCO's training split, those with objects
# variant -> epochs, the two behind which the rate falls, drop path.
ROWS = {
    "mask_rcnn_swin_tiny_1x": (12, (8, 11), 0.1),
    "mask_rcnn_swin_tiny_3x": (36, (27, 33), 0.2),
    "mask_rcnn_swin_small_3x": (36, (27, 33), 0.2),
    "mask_rcnn_swin_base_3x": (36, (27, 33), 0.3),
    "mask_rcnn_resnet50_1x": (12, (8, 11), None),
    "mask_rcnn_resnet50_3x": (36, (27, 33), None),
    "cascade_mask_rcnn_swin_tiny_1x": (12, (8, 11), 0.0),
    "cascade_mask_rcnn_swin_tiny_3x": (36, (27, 33), 0.2),
    "cascade_mask_rcnn_swin_small_3x": (36, (27, 33), 0.2),
    "cascade_mask_rcnn_swin_base_3x": (36, (27, 33), 0.3),
    "cascade_mask_rcnn_deit_small_3x": (36, (27, 33), 0.1),
    "cascade_mask_rcnn_resnet50_3x": (36, (27, 33), None),
    "cascade_mask_rcnn_resnext101_32x4d_3x": (36, (27, 33), None),
    "cascade_mask_rcnn_resnext101_64x4d_3x": (36, (27, 33), None),
    "cascade_mask_rcnn_resnet50_3x_sgd": (36, (27, 33), None),
    "cascade_mask_rcnn_resnext101_32x4d_3x_sgd": (36, (27, 33), None),
    "cascade_mask_rcnn_resnext101_64x4d_3x_sgd": (36, (27, 33), None),
    "htcpp_swin_base_6x": (72, (63, 69), 0.2),
    "htcpp_swin_large_6x": (72, (63, 69), 0.2),
    "htcpp_resnext101_64x4d_6x": (72, (63, 69), None),
}


def test_every_variant_is_in_the_table():
    assert set(ROWS) == set(coco.VARIANTS)


@pytest.mark.parametrize("variant", ROWS)
def test_schedule_and_optimizer_are_the_published_ones(variant: str):
    config = coco.get_config(variant)
    epochs, falls, drop_path = ROWS[variant]
    assert config.model.drop_path_rate == drop_path
    assert config.batch_size == 16
    an_epoch = PICTURES / 16
    peak, decay = (0.02, 1e-4) if variant.endswith("_sgd") else (1e-4, 0.05)
    assert (config.optimizer.name, config.optimizer.weight_decay) == (
        "sgd" if variant.endswith("_sgd") else "adamw",
        decay,
    )
    schedule = experiment.learning_rate(config, PICTURES)
    assert experiment.durations(config, PICTURES).total == pytest.approx(epochs * an_epoch, abs=1)
    expected = {0: 1e-3, 250: 0.5005, 500: 1.0}
    expected |= {falls[0] * an_epoch - 2: 1.0, falls[0] * an_epoch + 2: 0.1, falls[1] * an_epoch + 2: 0.01}
    for step, factor in expected.items():
        assert float(schedule(int(step))) == pytest.approx(peak * factor, rel=1e-3), step


def test_what_is_known_of_htcpp():
    config = coco.get_config("htcpp_swin_base_6x")
    example = detection.train_example(config)
    assert example.canvases == ((1408, 1600), (1600, 1408))
    assert (min(example.augmentation.short_sides), max(example.augmentation.short_sides)) == (400, 1400)
    assert example.augmentation.crop_probability == 0
    assert example.semantic_stride == 8
    assert example.instaboost is not None
    assert example.instaboost.probability == 0.5
    task = experiment.published_task(config.lock())
    assert (task.settings.selecting.soft, task.settings.selecting.least_score) == ("linear", 1e-3)
    assert task.settings.interleaved
    assert task.batch_shapes[0]["semantic"] == ((176, 200), "uint8")
    assert detection.eval_example(config).scale == (1333, 800)


def small(**fields: Any) -> Config:
    config = shapes.get_config("htc")
    config.update_from_flattened_dict(fields)
    return config.lock()


def test_one_view_of_several_is_plain_evaluation():
    plain = small()
    one = small(**{"evaluation.multi_scale": True, "evaluation.ratios": (1.0,), "evaluation.flip": False})
    assert experiment.published_task(one).seen == experiment.published_task(plain).seen == Seen()
    assert detection.eval_example(one) == detection.eval_example(plain)
    both = small(**{"evaluation.multi_scale": True, "evaluation.ratios": (0.5, 1.0)})
    assert experiment.published_task(both).seen == Seen(scales=2, flip=True)


def test_what_a_config_leaves_open_is_as_published():
    cascade = shapes.get_config("cascade")
    model = experiment.published_task(cascade).model
    settings = detection.settings_of(cascade.detection, model)
    assert settings.box_loss == BoxLoss("giou", 10.0)
    assert settings.selecting.least_score == 0.05
    cascade.update_from_flattened_dict(
        {
            "detection.box_loss": "l1",
            "detection.roi_ious": (0.4, 0.5, 0.6),
            "detection.low_quality": True,
            "detection.test_stages": 2,
        }
    )
    settings = detection.settings_of(cascade.detection, model)
    assert settings.box_loss == BoxLoss("l1", 1.0)
    assert [stage.matching.low_quality_iou for stage in settings.stages] == [0.4, 0.5, 0.6]
    assert len(settings.tested) == 2
    cascade.detection.roi_weights = (1.0,)
    with pytest.raises(
        ValueError, match=r"detection.roi_weights is \(1.0,\); expected one value for each .* 3"
    ):
        detection.settings_of(cascade.detection, model)


class Labelled:
    """A source with masks, and label maps of so many classes."""

    has_masks = True
    identity = "coco:tiny"

    def __init__(self, classes: int) -> None:
        self.semantic_classes = classes


@pytest.mark.parametrize(
    ("variant", "classes", "message"),
    [
        (
            "htc",
            0,
            r"coco:tiny has no label maps, and the semantic branch of htc_swin_tiny learns from them; give",
        ),
        ("htc", 183, r"the label maps of coco:tiny have 183 classes, model.semantic_classes is 9; set it"),
        ("htc", 9, None),
        ("cascade", 0, None),
    ],
)
def test_an_htc_wants_the_label_maps_it_is_made_for(variant: str, classes: int, message: str | None):
    config = shapes.get_config(variant)
    assert detection.training_options(config) == {"semantic": variant == "htc"}
    if message is None:
        detection.check_source(config, Labelled(classes), training=True)
    else:
        with pytest.raises(ValueError, match=message):
            detection.check_source(config, Labelled(classes), training=True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "roi_stds",
            (0.1, 0.1, 0.2),
            r"detection.roi_stds is \(0.1, 0.1, 0.2\); expected four numbers above 0",
        ),
        ("roi_stds", ((0.1, 0.1, 0.2),) * 3, "detection.roi_stds is .*; expected four numbers above 0"),
        ("roi_ious", (0.5, 0.6, 7.0), "an IoU of detection.roi_ious is 7.0; expected a share above 0"),
        ("box_weight", -1.0, "detection.box_weight is -1.0; expected 0 or more"),
        ("soft_nms", "hard", "detection.soft_nms is 'hard'; expected one of linear, gaussian, or nothing"),
    ],
)
def test_settings_without_sense_are_refused_before_anything_runs(field: str, value: Any, message: str):
    config = shapes.get_config("cascade")
    config.detection[field] = value
    with pytest.raises(ValueError, match=message):
        experiment.published_task(config.lock())
