"""A detector's losses and detections: padding and devices change nothing, no ground truth is no harm."""

import dataclasses
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from swin_jax.models.detectors import create_detector
from swin_jax.tasks.detection import Detection, Seen
from swin_jax.tasks.two_stage_inference import View, find, into, out_of
from swin_jax.tasks.two_stage_settings import (
    BoxLoss,
    Proposing,
    Sampling,
    Selecting,
    TwoStage,
    published_settings,
)
from swin_jax.training.sharding import make_mesh, put_batch, replicated
from swin_jax.training.state import global_gradients, ratio

SIDE, OBJECTS, CROP, CLASSES = 64, 100, 14, 3
MASK_RCNN, CASCADE, HTC = "mask_rcnn_swin_tiny", "cascade_mask_rcnn_swin_tiny", "htcpp_swin_tiny"
FIELDS = {
    MASK_RCNN: {},
    CASCADE: {"box_convs": 1},
    HTC: {"box_convs": 1, "semantic_classes": CLASSES + 1},
}
SEEN = Seen()


@cache
def task(name: str = MASK_RCNN, *, seen: Seen = SEEN, **fields: Any) -> Detection:
    model = create_detector(
        name,
        CLASSES,
        embed_dim=4,
        depths=(1, 1),
        num_heads=(1, 1),
        window_size=2,
        channels=4,
        fc_channels=8,
        mask_channels=4,
        mask_convs=1,
        **FIELDS[name],
        **fields,
    )
    return Detection(
        model=model,
        canvases=((SIDE, SIDE),),
        max_boxes=OBJECTS,
        mask_size=CROP,
        class_names=("a", "b", "c"),
        palette=((1, 1, 1), (2, 2, 2), (3, 3, 3)),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        settings=dataclasses.replace(
            published_settings(model),
            anchor_scales=(4.0,),
            anchor_sampling=Sampling(16, 8),
            train_proposals=Proposing(20, 20),
            test_proposals=Proposing(20, 20),
            roi_sampling=Sampling(12, 6),
            finest=16.0,
            points=1,
            selecting=Selecting(least_score=0.0, most=6),
        ),
        seen=seen,
    )


@cache
def variables(name: str = MASK_RCNN, **fields: Any) -> tuple[Any, Any]:
    return jax.jit(task(name, **fields).init)(jax.random.key(0))


def terms_of(name: str) -> set[str]:
    heads = {"cls", "box", "mask"}
    if name != MASK_RCNN:
        heads = {f"stage{stage}_{term}" for stage in range(3) for term in heads}
    return {"rpn_cls", "rpn_box"} | heads | ({"semantic"} if name == HTC else set())


def batch(objects: int = 3, rows: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.RandomState(0)
    corner = rng.uniform(0, 40, (rows, objects, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(4, 20, (rows, objects, 2))], axis=2)

    def padded(values: np.ndarray) -> np.ndarray:
        return np.pad(values, ((0, 0), (0, OBJECTS - objects)) + ((0, 0),) * (values.ndim - 2))

    return {
        "image": rng.randint(0, 256, (rows, SIDE, SIDE, 3)).astype(np.uint8),
        "size": np.array([[SIDE, SIDE], [50, 60]] * (rows // 2), np.int32),
        "boxes": padded(boxes).astype(np.float32),
        "labels": padded(rng.randint(0, CLASSES, (rows, objects))).astype(np.int32),
        "box_valid": padded(np.ones((rows, objects), bool)),
        "masks": padded(rng.rand(rows, objects, CROP, CROP) < 0.7),
        "semantic": rng.randint(0, CLASSES + 1, (rows, SIDE // 8, SIDE // 8)).astype(np.uint8),
        "example_index": np.arange(rows, dtype=np.uint32),
        "valid": np.ones(rows, bool),
    }


@partial(jax.jit, static_argnames="name")
def gradients(params: Any, model_state: Any, rows: Any, name: str = MASK_RCNN) -> Any:
    found, terms, metrics, _ = global_gradients(
        task(name), params, model_state, rows, jax.random.key(1), accumulation=1
    )
    return found, {name: ratio(pair) for name, pair in {**terms, **metrics}.items()}


@pytest.mark.long
@pytest.mark.parametrize("name", FIELDS)
def test_eight_devices_learn_what_one_does(name: str):
    """Batch norms of box heads, too: their statistics are those of all devices' RoIs."""
    results = []
    for count in (1, 8):
        mesh: Mesh = make_mesh(devices=jax.devices()[:count])
        placed = jax.device_put(variables(name), replicated(mesh))
        results.append(jax.device_get(gradients(*placed, put_batch(batch(), mesh), name)))
    (ours, our_terms), (theirs, their_terms) = results
    assert set(our_terms) >= terms_of(name)
    for term, value in our_terms.items():
        assert value == pytest.approx(their_terms[term], rel=1e-5), term
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(ours))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * scale), ours, theirs)


def check_finite(name: str, objects: int) -> None:
    found, terms = gradients(*variables(name), batch(objects), name)
    assert all(np.isfinite(value) for value in terms.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert set(terms) >= terms_of(name)  # one program for all
    if not objects:
        assert all(terms[term] == 0 for term in terms_of(name) if term.endswith(("mask", "box")))
        heads = [head for head in found if head.startswith("mask_head")]
        assert heads
        assert not any(np.asarray(found[head]["logits"]["kernel"]).any() for head in heads)
    assert np.asarray(found["rpn"]["objectness"]["kernel"]).any()


@pytest.mark.parametrize("objects", [0, 1, 100], ids=["none, or crowds alone", "one", "a hundred"])
def test_losses_and_gradients_are_finite_whatever_the_ground_truth(objects: int):
    check_finite(MASK_RCNN, objects)


@pytest.mark.long
@pytest.mark.parametrize("objects", [0, 1, 100], ids=["none, or crowds alone", "one", "a hundred"])
@pytest.mark.parametrize("name", [CASCADE, HTC])
def test_those_of_cascades_are_finite_whatever_the_ground_truth(name: str, objects: int):
    check_finite(name, objects)


@pytest.mark.long
@pytest.mark.parametrize("name", FIELDS)
def test_what_stands_in_rows_without_object_or_picture_changes_nothing(name: str):
    plain, rng = batch(), np.random.RandomState(5)
    plain["valid"][6:] = False
    other = {field: values.copy() for field, values in plain.items()}
    empty = ~plain["box_valid"]
    other["boxes"][empty] = np.sort(rng.uniform(0, SIDE, (empty.sum(), 2, 2)), axis=1).reshape(-1, 4)
    other["labels"][empty] = 2
    other["masks"][empty] = True
    other["boxes"][6:] = [0, 0, 30, 30]
    other["box_valid"][6:] = True
    other["semantic"][6:] = 0
    for ours, theirs in zip(
        jax.tree.leaves(gradients(*variables(name), plain, name)),
        jax.tree.leaves(gradients(*variables(name), other, name)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def seen(name: str = MASK_RCNN, **fields: Any) -> dict[str, np.ndarray]:
    rows = batch()
    pictures = {name: rows[name] for name in ("image", "size", "valid")} | {
        "original_size": np.array([[128, 96], [50, 60]] * 4, np.int32)
    }
    if fields.get("scales", 1) > 1:
        pictures |= {"image_1": rows["image"], "size_1": rows["size"]}
    predict = jax.jit(
        lambda *arguments: task(name, seen=Seen(**fields)).predict(*variables(name), *arguments)
    )
    return jax.device_get(predict(pictures))


def test_detections_lie_in_the_original_pictures_best_first():
    found = seen()
    assert found["boxes"].shape == (8, 6, 4)
    assert found["masks"].shape == (8, 6, 28, 28)
    assert found["masks"].dtype == np.uint8
    for row, (height, width) in enumerate([(128, 96), (50, 60)] * 4):
        boxes = found["boxes"][row][found["box_valid"][row]]
        assert (boxes >= 0).all()
        assert (boxes <= np.array([width, height] * 2) + 1e-3).all()
        assert (np.diff(found["scores"][row]) <= 0).all()


@pytest.mark.long
def test_a_picture_seen_twice_alike_is_the_picture():
    """The best detection: behind it, proposals of two views have suppressed each other across levels, too."""
    twice, once = seen(scales=2), seen()
    np.testing.assert_allclose(twice["scores"][:, 0], once["scores"][:, 0], atol=1e-5)
    np.testing.assert_allclose(twice["boxes"][:, 0], once["boxes"][:, 0], atol=1e-2)


def test_a_mirrored_view_brings_its_boxes_back():
    sizes = jnp.array([[40, 30]])
    view = View(jnp.zeros((1, 64, 64, 3)), sizes, mirrored=True)
    original = jnp.array([[80, 90]])
    boxes = jnp.array([[[10.0, 20.0, 40.0, 60.0]]])
    there = into(view, boxes, original)
    np.testing.assert_allclose(there[0, 0], [30 - 40 / 3, 10, 30 - 10 / 3, 30], atol=1e-4)
    np.testing.assert_allclose(out_of(view, there, original), boxes, atol=1e-4)


def test_the_sheet_shows_annotated_beside_found():
    rows = {name: values[:2] for name, values in batch().items()}
    rows["original_size"] = rows["size"]
    predictions = {
        "boxes": np.array([[[5, 5, 30, 40]]] * 2, np.float32),
        "scores": np.array([[0.9], [0.1]], np.float32),
        "labels": np.zeros((2, 1), np.int32),
        "box_valid": np.ones((2, 1), bool),
        "masks": np.full((2, 1, 28, 28), 255, np.uint8),
    }
    truth = {
        "images": [{"id": 4}, {"id": 5}],
        "categories": [{"id": 9, "name": "a"}],
        "annotations": [{"image_id": 4, "category_id": 9, "bbox": [5, 5, 20, 20], "iscrowd": 0}],
    }
    with_truth = task().draw(rows, predictions, truth)["predictions"]
    without = task().draw(rows, predictions)["predictions"]
    assert with_truth.shape[1] > 1.5 * without.shape[1]
    with pytest.raises(ValueError, match="these data have no annotations to score detections against"):
        task().scorer()


def test_anchors_of_model_and_settings_must_agree():
    with pytest.raises(ValueError, match=r"the model has 3 anchors a cell, .* make 1"):
        Detection(
            model=task().model,
            canvases=((SIDE, SIDE),),
            max_boxes=1,
            mask_size=CROP,
            class_names=("a", "b", "c"),
            palette=((1, 1, 1),) * 3,
            mean=(0.5,) * 3,
            std=(0.2,) * 3,
            settings=TwoStage(anchor_ratios=(1.0,)),
        )
    with pytest.raises(ValueError, match=r"detection.roi_positives is 9; expected 1 to the roi_sample of 8"):
        TwoStage(roi_sampling=Sampling(8, 9))
    with pytest.raises(ValueError, match=r"detection.test_stages is 2; expected 1 to the model's 1 stages"):
        TwoStage(test_stages=2)
    with pytest.raises(ValueError, match=r"detection.box_loss is 'l2'; expected one of l1, smooth_l1, giou"):
        BoxLoss("l2")


def test_the_published_settings_of_each_family():
    mask_rcnn, cascade, htcpp = (published_settings(create_detector(name)) for name in FIELDS)
    htc = published_settings(create_detector("htc_resnet50"))
    assert mask_rcnn == TwoStage()
    assert [stage.matching.positive_iou for stage in cascade.stages] == [0.5, 0.6, 0.7]
    assert [stage.weight for stage in cascade.stages] == [1.0, 0.5, 0.25]
    assert cascade.stages[0].matching.low_quality_iou is None
    assert htc.stages[2].matching.low_quality_iou == 0.7
    assert cascade.box_loss == htcpp.box_loss == BoxLoss("giou", 10.0)
    assert htc.box_loss == BoxLoss("smooth_l1")
    stock = create_detector("cascade_mask_rcnn_swin_tiny", class_agnostic=True, box_convs=0)
    assert published_settings(stock).box_loss == BoxLoss("smooth_l1")
    assert (cascade.train_proposals.most, htc.train_proposals.most) == (2000, 2000)
    assert (cascade.selecting.least_score, htc.selecting.least_score) == (0.05, 0.001)
    assert (cascade.interleaved, htc.interleaved) == (False, True)


def test_of_one_stage_the_first_alone_judges():
    """Its boxes and probabilities: later stages' weights, whatever they are, change nothing."""
    name = CASCADE
    first = dataclasses.replace(task(name).settings, test_stages=1)
    rows = batch()
    size, valid = jnp.asarray(rows["size"]), jnp.ones(8, bool)
    images = jnp.asarray(rows["image"], jnp.float32) / 255

    @jax.jit
    def run(variables: Any) -> Any:
        view = View(images, size, mirrored=False)
        return find(task(name).model, variables, [view], size, valid, first)

    params, state = variables(name)
    other = jax.tree.map(lambda leaf: leaf + 1, params["box_head2"])
    found = run({"params": params, **state})
    changed = run({"params": params | {"box_head2": other, "box_head1": params["box_head1"]}, **state})
    for field in ("boxes", "scores", "masks"):
        np.testing.assert_array_equal(found[field], changed[field])
