"""Average precision by the reference implementation, on cases whose answer is known."""

import pickle
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from pycocotools import mask as coco_masks

from swin_jax.data.instances import Instances, runs_of
from swin_jax.data.sources.instances import truth_of
from swin_jax.data.sources.outlines import CLASSES
from swin_jax.data.sources.scenes import SIZE, draw_scene
from swin_jax.ops import masks as mask_ops
from swin_jax.tasks.detection_scores import DetectionScorer, Found, matched

IDS = tuple(range(11, 11 + len(CLASSES)))


def records(count: int = 6) -> list[dict[str, Any]]:
    found = []
    for index in range(count):
        scene = draw_scene("hard", 3, index)
        masks = scene.instances[None] == np.arange(1, len(scene.classes) + 1)[:, None, None]
        found.append(
            {
                "name": f"{index}.png",
                "image_id": 100 + index,
                "size": (SIZE, SIZE),
                "instances": Instances(
                    boxes=scene.boxes.astype(np.float32),
                    labels=scene.classes,
                    areas=masks.sum((1, 2)).astype(np.float32),
                    crowd=np.zeros(len(masks), bool),
                    ids=1 + 50 * index + np.arange(len(masks)),
                    outlines=tuple(runs_of(mask) for mask in masks),
                ),
            }
        )
    return found


RECORDS = records()
TRUTH = truth_of(RECORDS, CLASSES, IDS)
MOST = max(len(record["instances"]) for record in RECORDS)


def through_the_mask_head() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A batch, and the ground truth as a model would predict it: boxes, and masks of 28 x 28."""
    count = len(RECORDS)
    predictions = {
        "boxes": np.zeros((count, MOST, 4), np.float32),
        "scores": np.zeros((count, MOST), np.float32),
        "labels": np.zeros((count, MOST), np.int32),
        "box_valid": np.zeros((count, MOST), bool),
        "complete": np.ones(count, bool),
        "masks": np.zeros((count, MOST, 28, 28), np.uint8),
    }
    for row, record in enumerate(RECORDS):
        objects = record["instances"]
        size = len(objects)
        predictions["boxes"][row, :size] = objects.boxes
        predictions["scores"][row, :size] = 0.9
        predictions["labels"][row, :size] = objects.labels
        predictions["box_valid"][row, :size] = True
        boxes = jnp.asarray(objects.boxes)
        targets = mask_ops.targets_from_crops(
            jnp.asarray(objects.mask_crops(112)), boxes, boxes, jnp.arange(size, dtype=jnp.int32)
        )
        predictions["masks"][row, :size] = 255 * np.asarray(targets)
    batch = {
        "valid": np.ones(count, bool),
        "example_index": np.arange(count, dtype=np.uint32),
        "original_size": np.full((count, 2), SIZE, np.int32),
    }
    return batch, predictions


@pytest.fixture(name="perfect", scope="module")
def fixture_perfect() -> DetectionScorer:
    scorer = DetectionScorer(TRUTH, masks=True)
    scorer.add(*through_the_mask_head())
    return scorer


def test_ground_truth_as_predictions_is_perfect(perfect: DetectionScorer):
    result = perfect.result()
    assert result["box_ap"] == pytest.approx(1.0, abs=1e-9)
    assert result["box_ar100"] == pytest.approx(1.0, abs=1e-9)
    assert result["mask_ap"] >= 0.9
    assert result["mask_ap50"] == pytest.approx(1.0, abs=1e-9)
    assert result["examples"] == len(RECORDS)
    by_class = perfect.by_class()
    present = {CLASSES[label] for record in RECORDS for label in record["instances"].labels}
    for name in CLASSES:
        value = by_class["box_ap"][name]
        assert value == pytest.approx(1.0) if name in present else np.isnan(value)
    assert set(perfect.draw()) == {"box_ap", "mask_ap", "precision_recall"}


def test_two_hosts_that_saw_half_each_count_as_one(perfect: DetectionScorer):
    batch, predictions = through_the_mask_head()
    merged = DetectionScorer(TRUTH, masks=True)
    for half in (slice(0, 3), slice(3, None)):
        part = DetectionScorer(TRUTH, masks=True)
        part.add(
            *({name: values[half] for name, values in arrays.items()} for arrays in (batch, predictions))
        )
        text = pickle.dumps(part)
        assert b"annotations" not in text  # every host has the truth itself
        merged.merge(pickle.loads(text))
    assert merged.result() == perfect.result()
    with pytest.raises(ValueError, match="image 100 is scored twice"):
        merged.merge(perfect)


def test_rows_of_padding_count_nowhere():
    batch, predictions = through_the_mask_head()
    batch["valid"][2:] = False
    scorer = DetectionScorer(TRUTH, masks=True)
    scorer.add(batch, predictions)
    assert scorer.result()["examples"] == 2
    assert scorer.result()["box_ap"] < 1  # pictures without detections are missed objects


def one_picture(boxes: list[list[float]], crowd: int = 0) -> dict[str, Any]:
    annotations = [
        {
            "id": number + 1,
            "image_id": 5,
            "category_id": 3,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": crowd,
            "segmentation": coco_masks.encode(np.ones((100, 100), np.uint8, order="F")),
        }
        for number, box in enumerate(boxes)
    ]
    image = {"id": 5, "file_name": "x.png", "height": 100, "width": 100}
    return {"images": [image], "annotations": annotations, "categories": [{"id": 3, "name": "thing"}]}


def scored(truth: dict[str, Any], boxes: list[list[float]], scores: list[float]) -> DetectionScorer:
    scorer = DetectionScorer(truth, masks=False)
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    scorer.add_picture(5, Found(corners, np.array(scores, np.float32), np.zeros(len(scores), np.int64), None))
    return scorer


def test_precision_and_recall_by_hand():
    """Of two objects the better detection finds one, the worse none: precision 1 up to recall .5, 51 of 101 points."""
    truth = one_picture([[10, 10, 20, 20], [60, 60, 20, 20]])
    scorer = scored(truth, [[10, 10, 30, 30], [0, 60, 20, 80]], [0.9, 0.8])
    assert scorer.result()["box_ap"] == pytest.approx(51 / 101)
    # An invention that is surer halves the precision.
    scorer = scored(truth, [[10, 10, 30, 30], [0, 60, 20, 80]], [0.8, 0.9])
    assert scorer.result()["box_ap"] == pytest.approx(51 / 101 / 2)


def test_no_detection_at_all_is_an_ap_of_zero():
    assert scored(one_picture([[10, 10, 20, 20]]), [], []).result()["box_ap"] == 0


def test_a_crowd_is_neither_found_nor_missed():
    truth = one_picture([[0, 0, 100, 100]], crowd=1)
    truth["annotations"].append({**one_picture([[10, 10, 20, 20]])["annotations"][0], "id": 9})
    scorer = scored(truth, [[10, 10, 30, 30], [40, 40, 90, 90]], [0.5, 0.9])
    assert scorer.result()["box_ap"] == pytest.approx(1.0)
    quality = matched(truth["annotations"], scorer.found[5], [3])
    assert (quality.right, quality.wrong, quality.missed) == (1, 0, 0)
    assert quality.f1 == 1


def test_f1_counts_right_wrong_and_missed():
    truth = one_picture([[10, 10, 20, 20], [60, 60, 20, 20]])
    scorer = scored(truth, [[10, 10, 30, 30], [10, 10, 30, 30], [0, 0, 9, 9]], [0.9, 0.8, 0.4])
    quality = matched(truth["annotations"], scorer.found[5], [3])
    assert (quality.right, quality.wrong, quality.missed) == (1, 1, 1)
    assert quality.f1 == 0.5


def test_a_result_file_scores_what_it_was_written_from(perfect: DetectionScorer):
    again = DetectionScorer(TRUTH, masks=True)
    again.add_results(perfect.results(), "results.json")
    assert again.result() == pytest.approx(perfect.result(), abs=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_id": 7},
            "results.json: detection number 0 has the image_id 7, which the split does not have",
        ),
        ({"category_id": 1}, "detection number 0 has the category_id 1"),
        ({"score": None}, "detection number 0 has no score"),
    ],
)
def test_a_wrong_result_file_is_one_sentence(change: dict, message: str, perfect: DetectionScorer):
    result = {name: value for name, value in {**perfect.results()[0], **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        DetectionScorer(TRUTH, masks=True).add_results([result], "results.json")
