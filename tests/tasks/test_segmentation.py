"""The segmentation task: loss, views and inference against plain NumPy, scorer against counting by hand."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp

from experiments import ade20k
from swin_jax.ops.losses import pixel_cross_entropy
from swin_jax.ops.resize import resize_bilinear
from swin_jax.setups import segmentation as setup
from swin_jax.tasks.segmentation import Inference, Segmentation, SegmentationScorer, window_corners

NAMES = ("wall", "sky", "tree", "car")


class Tiny(nn.Module):
    """Logits of 4x4 cells from the cell, with batch norm, and an auxiliary head at half that size."""

    @nn.compact
    def __call__(self, images: Any, train: bool = False) -> Any:
        x = nn.Conv(8, (4, 4), strides=4, padding="VALID")(images)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.relu(x)
        auxiliary = nn.Conv(4, (2, 2), strides=2)(x)
        return nn.Dense(4)(x), auxiliary if train else None


def make(**fields: Any) -> Segmentation:
    options = {
        "model": Tiny(),
        "image_size": (16, 16),
        "class_names": NAMES,
        "palette": [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)],
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.2),
        "photometric": False,
    }
    return Segmentation(**options | fields)


def variables(task: Segmentation, seed: int = 0) -> tuple[Any, Any]:
    return jax.jit(task.init)(jax.random.key(seed))


def batch_of(size: tuple[int, int] = (16, 16), rows: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "image": generator.integers(0, 256, (rows, *size, 3)).astype(np.uint8),
        "semantic": generator.choice([0, 1, 2, 3, 255], (rows, *size)).astype(np.uint8),
        "size": np.full((rows, 2), size, np.int32),
        "example_index": np.arange(rows, dtype=np.uint32),
        "valid": np.ones(rows, bool),
    }


def on_device(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(values) for name, values in batch.items()}


def predicted(
    task: Segmentation, params: Any, state: Any, batch: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    @jax.jit
    def run(rows: Any) -> Any:
        views = [task.predict(params, state, view) for view in task.views(rows)]
        return {"mean": sum(view["probabilities"] for view in views) / len(views), **task.merge(views)}

    return jax.tree.map(np.asarray, run(on_device(batch)))


@pytest.mark.parametrize("mean", ["all", "valid"])
def test_loss_is_decode_and_weighted_auxiliary_over_the_chosen_pixels(mean: str) -> None:
    task, batch = make(loss_mean=mean), batch_of()
    params, state = variables(task)
    terms, aux = task.loss(params, state, on_device(batch), jax.random.key(0))
    images = (batch["image"] / 255 - np.asarray(task.mean)) / np.asarray(task.std)
    heads, _ = Tiny().apply(
        {"params": params, **state}, jnp.asarray(images, jnp.float32), train=True, mutable=["batch_stats"]
    )
    sums = [
        float(jnp.sum(pixel_cross_entropy(resize_bilinear(logits, (16, 16)), jnp.asarray(batch["semantic"]))))
        for logits in heads
    ]
    numerator, denominator = terms["cross_entropy"]
    assert float(numerator) == pytest.approx(sums[0] + 0.4 * sums[1], rel=1e-4)
    known = np.count_nonzero(batch["semantic"] != 255)
    assert float(denominator) == (batch["semantic"].size if mean == "all" else known)
    assert float(aux.metrics["train_pixel_accuracy"][1]) == known
    before, after = (jax.tree.leaves(tree) for tree in (state, aux.model_state))
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(before, after, strict=True))


def test_a_picture_of_ignored_pixels_gives_no_gradient() -> None:
    batch = batch_of()
    batch["semantic"][:] = 255
    for mean in ("all", "valid"):
        task = make(loss_mean=mean)
        params, state = variables(task)

        def loss(params: Any, task: Any = task, state: Any = state) -> jax.Array:
            return task.loss(params, state, on_device(batch), jax.random.key(0))[0]["cross_entropy"][0]

        value, gradient = jax.value_and_grad(loss)(params)
        assert float(value) == 0
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


def test_what_is_filled_up_is_zero_behind_the_normalisation() -> None:
    task, batch = make(), batch_of()
    batch["size"][1] = (9, 12)
    batch["image"][1, 9:] = batch["image"][1, :, 12:] = 200  # whatever distortion made of the black
    found = np.asarray(task._normalised(*(jnp.asarray(batch[name]) for name in ("image", "size"))))
    assert not found[1, 9:].any()
    assert not found[1, :, 12:].any()
    expected = (batch["image"] / 255 - np.asarray(task.mean)) / np.asarray(task.std)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(found[1, :9, :12], expected[1, :9, :12], atol=1e-5)


def test_a_whole_picture_alone_in_a_batch_and_on_a_larger_canvas() -> None:
    """Probabilities are those of logits resized to the picture, then to the labels' own size."""
    task = make()
    params, state = variables(task)
    batch = batch_of((16, 24), rows=3)
    batch["semantic"] = np.full((3, 32, 40), 255, np.uint8)
    batch["size"] = np.asarray([[32, 40], [20, 31], [16, 24]], np.int32)
    together = predicted(task, params, state, batch)["mean"]
    images = (batch["image"] / 255 - np.asarray(task.mean)) / np.asarray(task.std)
    logits, _ = Tiny().apply({"params": params, **state}, jnp.asarray(images, jnp.float32))
    for row, (height, width) in enumerate(batch["size"].tolist()):
        alone = predicted(
            task, params, state, {name: values[row : row + 1] for name, values in batch.items()}
        )
        np.testing.assert_allclose(alone["mean"][0], together[row], atol=1e-5)
        resized = resize_bilinear(resize_bilinear(logits[row : row + 1], (16, 24)), (height, width))
        np.testing.assert_allclose(together[row, :height, :width], jax.nn.softmax(resized)[0], atol=1e-5)


def test_one_window_that_covers_the_picture_equals_the_whole() -> None:
    batch = batch_of((16, 24))
    params, state = variables(make())
    whole = predicted(make(), params, state, batch)["mean"]
    for window in ((16, 24), (64, 64)):
        one = predicted(make(inference=Inference(window=window, stride=(8, 8))), params, state, batch)["mean"]
        np.testing.assert_allclose(one, whole, atol=2e-6)


def test_windows_are_averaged_where_they_overlap() -> None:
    batch = batch_of((16, 24), rows=1)
    task = make(inference=Inference(window=(16, 16), stride=(16, 4)))
    params, state = variables(task)
    found = predicted(task, params, state, batch)["mean"]
    images = jnp.asarray((batch["image"] / 255 - np.asarray(task.mean)) / np.asarray(task.std), jnp.float32)
    total, seen = np.zeros((16, 24, 4)), np.zeros((16, 24, 1))
    for left in (0, 4, 8):
        logits, _ = Tiny().apply({"params": params, **state}, images[:, :, left : left + 16])
        total[:, left : left + 16] += np.asarray(resize_bilinear(logits, (16, 16)))[0]
        seen[:, left : left + 16] += 1
    np.testing.assert_allclose(found[0], jax.nn.softmax(jnp.asarray(total / seen, jnp.float32)), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "window", "stride", "expected"),
    [
        ((512, 683), (512, 512), (341, 341), [(0, 0), (0, 171)]),
        ((10, 10), (4, 4), (3, 3), [(0, 0), (0, 3), (0, 6), (3, 0), (3, 3), (3, 6), (6, 0), (6, 3), (6, 6)]),
        ((5, 4), (4, 4), (4, 4), [(0, 0), (1, 0)]),
    ],
)
def test_window_places(size, window, stride, expected) -> None:
    assert window_corners(size, window, stride) == expected


def test_views_are_averaged_and_mirrored_ones_turned_back() -> None:
    params, state = variables(make())
    batch = batch_of((16, 24))
    batch["image_1"] = batch_of((24, 36), seed=1)["image"]
    several = predicted(make(inference=Inference(scales=2, flip=True)), params, state, batch)
    parts = []
    for field in ("image", "image_1"):
        for mirrored in (False, True):
            image = batch[field][:, :, ::-1] if mirrored else batch[field]
            mean = predicted(make(), params, state, {**batch, "image": image})["mean"]
            parts.append(mean[:, :, ::-1] if mirrored else mean)
    np.testing.assert_allclose(several["mean"], np.mean(parts, axis=0), atol=1e-5)
    assert several["classes"].dtype == np.uint8


def test_several_scales_of_which_there_is_one_are_plain_evaluation() -> None:
    config = ade20k.get_config()
    plain = setup.inference_of(config), setup.eval_example(config)
    config.evaluation.multi_scale = True
    assert (setup.inference_of(config), setup.eval_example(config)) != plain
    config.evaluation.ratios, config.evaluation.flip = (1.0,), False
    assert (setup.inference_of(config), setup.eval_example(config)) == plain


def test_a_window_of_the_config_strides_by_two_thirds() -> None:
    config = ade20k.get_config()
    config.evaluation.window = (512, 640)
    assert setup.inference_of(config) == Inference(window=(512, 640), stride=(341, 426))


def test_fields_that_make_no_sense() -> None:
    for fields, sentence in (
        ({"loss_mean": "most"}, "loss.mean is 'most'"),
        ({"auxiliary_weight": -1.0}, "loss.auxiliary_weight is -1.0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make(**fields)
    with pytest.raises(ValueError, match=r"evaluation\.stride is"):
        Inference(window=(4, 4), stride=(5, 4))


def counted(labels: np.ndarray, guesses: np.ndarray, number: int) -> tuple[int, int, int]:
    """Intersection, union and labels of a class, pixel by pixel."""
    intersection = union = seen = 0
    for label, guess in zip(labels.ravel().tolist(), guesses.ravel().tolist(), strict=True):
        if label == 255:
            continue
        intersection += label == guess == number
        union += label == number or guess == number
        seen += label == number
    return intersection, union, seen


def scored(rows: int = 5) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    generator = np.random.default_rng(4)
    batch = {
        "semantic": generator.choice([0, 1, 255], (rows, 9, 11)).astype(
            np.uint8
        ),  # trees and cars do not occur
        "valid": np.arange(rows) != 2,
    }
    return batch, {"classes": generator.choice([0, 1, 2], (rows, 9, 11)).astype(np.uint8)}  # cars never


def test_scores_equal_counting_by_hand() -> None:
    batch, predictions = scored()
    scorer = SegmentationScorer(NAMES)
    scorer.add(batch, predictions)
    labels, guesses = batch["semantic"][batch["valid"]], predictions["classes"][batch["valid"]]
    counts = [counted(labels, guesses, number) for number in range(4)]
    ious = [intersection / union for intersection, union, _ in counts[:3]]  # the tree's is 0, and counts
    assert ious[2] == 0
    result = scorer.result()
    assert result["miou"] == pytest.approx(np.mean(ious), rel=1e-12)
    accuracies = [intersection / seen for intersection, _, seen in counts[:2]]
    assert result["mean_class_accuracy"] == pytest.approx(np.mean(accuracies), rel=1e-12)
    known = labels != 255
    assert result["pixel_accuracy"] == np.mean((labels == guesses)[known])
    assert (result["pixels"], result["examples"], result["classes"]) == (known.sum(), 4, 3)
    by_class = scorer.by_class()
    assert np.isnan(by_class["iou"]["car"])
    assert by_class["iou"]["wall"] == pytest.approx(ious[0])


def test_ignored_pixels_may_be_guessed_as_anything() -> None:
    batch, predictions = scored()
    first, second = SegmentationScorer(NAMES), SegmentationScorer(NAMES)
    first.add(batch, predictions)
    predictions["classes"][batch["semantic"] == 255] = 3
    second.add(batch, predictions)
    np.testing.assert_array_equal(first.confusion, second.confusion)


def test_parts_merge_to_the_whole() -> None:
    batch, predictions = scored()
    whole = SegmentationScorer(NAMES)
    whole.add(batch, predictions)
    parts = []
    for rows in (slice(3, 5), slice(0, 3)):
        parts.append(SegmentationScorer(NAMES))
        parts[-1].add({k: v[rows] for k, v in batch.items()}, {k: v[rows] for k, v in predictions.items()})
    parts[0].merge(parts[1])
    assert parts[0].result() == whole.result()


def test_nothing_scored_and_no_class() -> None:
    scorer = SegmentationScorer(NAMES)
    scorer.add_map(np.full((1, 2), 255, np.uint8), np.zeros((1, 2), np.uint8))
    assert scorer.result() == {"pixels": 0.0, "examples": 0.0}
    with pytest.raises(ValueError, match="the class number 4; there are 4 classes"):
        scorer.add_map(np.zeros((1, 2), np.uint8), np.asarray([[0, 4]], np.uint8))


def test_pictures() -> None:
    batch, task = batch_of(), make()
    predictions = {"classes": np.zeros((2, 16, 16), np.uint8)}
    scorer = task.scorer()
    scorer.add(batch, predictions)
    drawn = {**task.draw(batch, predictions), **scorer.draw()}
    assert set(drawn) == {"predictions", "iou"}
    assert all(picture.dtype == np.uint8 and picture.ndim == 3 for picture in drawn.values())
