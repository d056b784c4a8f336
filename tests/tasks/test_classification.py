"""The classification task: loss against a closed form, scorer against brute force."""

import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp
from jax import random

from swin_jax.models.registry import create_model
from swin_jax.ops.augment import Augmentation, Mixing, flip_rows, normalise
from swin_jax.ops.losses import smoothed_cross_entropy
from swin_jax.tasks.classification import Classification, ClassificationScorer

NAMES = tuple("abcdefgh")


def scored(rows: int = 40, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, len(NAMES))).astype(np.float32)
    logits[3] = 0.0  # a tie of all classes
    batch = {
        "label": generator.integers(0, len(NAMES) - 1, rows).astype(np.int32),  # the last class never occurs
        "example_index": generator.permutation(rows).astype(np.uint32),
        "valid": generator.random(rows) < 0.8,
    }
    batch["valid"][3] = True
    return batch, {"log_probabilities": np.asarray(nn.log_softmax(jnp.asarray(logits)))}


def test_smoothed_cross_entropy_is_that_of_the_smoothed_target() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(5, 7)).astype(np.float32)
    labels = np.asarray([0, 6, 3, 3, 1], np.int32)
    target = np.full((5, 7), 0.1 / 7) + 0.9 * np.eye(7)[labels]
    expected = -np.sum(target * (logits - np.log(np.exp(logits).sum(-1, keepdims=True))), axis=-1)
    found = smoothed_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing=0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_normalise_is_that_of_the_definition() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (images / 255.0 - mean) / std
    np.testing.assert_allclose(normalise(jnp.asarray(images), mean, std), expected, atol=2e-6)


def test_flips_mirror_about_half_of_the_rows() -> None:
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (400, 2, 3, 3)), jnp.uint8)
    found = np.asarray(flip_rows(images, random.key(0), probability=0.5))
    mirrored = (found == np.asarray(images)[:, :, ::-1]).all((1, 2, 3))
    assert 150 < mirrored.sum() < 250
    np.testing.assert_array_equal(found[~mirrored], np.asarray(images)[~mirrored])
    np.testing.assert_array_equal(flip_rows(images, random.key(0), probability=0.0), images)


class Constant(nn.Module):
    """Gives every picture the same logits."""

    logits: tuple[float, ...]

    @nn.compact
    def __call__(self, images: jnp.ndarray, train: bool) -> jnp.ndarray:
        return jnp.broadcast_to(jnp.asarray(self.logits)[None], (len(images), len(self.logits)))


def test_loss_and_accuracy_of_mixed_rows() -> None:
    """Guess is class 1, of probabilities (.2, .5, .3): rows that are own, partner's, both or neither."""
    task = Classification(
        model=Constant((np.log(0.2), np.log(0.5), np.log(0.3))),
        image_size=(4, 4),
        class_names=("a", "b", "c"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        label_smoothing=0.0,
        augmentation=Augmentation(mixing=Mixing()),
    )
    batch = {
        "image": jnp.zeros((4, 4, 4, 3)),
        "label": jnp.asarray([1, 0, 1, 0]),
        "partner": jnp.asarray([2, 1, 1, 2]),
        "share": jnp.asarray([0.7, 0.7, 0.6, 0.5]),
        "valid": jnp.ones(4, bool),
    }
    terms, aux = task.loss({}, {}, batch, random.key(0))
    found, count = aux.metrics["train_top1"]
    assert float(found) == pytest.approx(0.7 + 0.3 + 1.0 + 0.0)
    assert float(count) == 4
    log = np.log
    expected = -(0.7 * log(0.5) + 0.3 * log(0.3) + 0.7 * log(0.2) + 0.3 * log(0.5) + log(0.5))
    expected -= 0.5 * log(0.2) + 0.5 * log(0.3)
    assert float(terms["cross_entropy"][0]) == pytest.approx(expected, rel=1e-5)


def test_scores_equal_brute_force() -> None:
    batch, predictions = scored()
    scorer = ClassificationScorer(NAMES)
    scorer.add(batch, predictions)
    order = np.argsort(-predictions["log_probabilities"], axis=-1, kind="stable")
    valid, labels = batch["valid"], batch["label"]
    result = scorer.result()
    assert result["top1"] == np.mean((order[:, 0] == labels)[valid])
    assert result["top5"] == np.mean((order[:, :5] == labels[:, None]).any(-1)[valid])
    losses = -np.take_along_axis(predictions["log_probabilities"], labels[:, None], -1)[valid]
    assert result["loss"] == pytest.approx(losses.mean(), rel=1e-6)
    assert result["examples"] == valid.sum()
    expected = np.zeros((len(NAMES), len(NAMES)), int)
    for label, guess in zip(labels[valid], order[valid, 0], strict=True):
        expected[label, guess] += 1
    np.testing.assert_array_equal(scorer.confusion(), expected)
    seen = expected.sum(1)
    np.testing.assert_allclose(
        scorer.per_class()[seen > 0], (np.diag(expected) / np.maximum(seen, 1))[seen > 0]
    )
    assert np.isnan(scorer.per_class()[seen == 0]).all()
    assert result["mean_class_accuracy"] == pytest.approx(np.nanmean(scorer.per_class()))


def test_rows_without_a_label_are_not_counted() -> None:
    batch, predictions = scored()
    kept = batch["label"] != 2
    fewer, whole = ClassificationScorer(NAMES), ClassificationScorer(NAMES)
    fewer.add(batch | {"label": np.where(kept, batch["label"], -1).astype(np.int32)}, predictions)
    whole.add(batch | {"valid": batch["valid"] & kept}, predictions)
    assert fewer.result() == whole.result()
    none = ClassificationScorer(NAMES)
    none.add(batch | {"label": np.full(40, -1, np.int32)}, predictions)
    assert none.result() == {"examples": 0.0}


def test_of_several_right_labels_the_most_probable_counts() -> None:
    """As for ReaL (Beyer et al., 2020): right if the guess is one of them; pictures without any are left out."""
    batch, predictions = scored()
    accepted = np.random.default_rng(1).random((40, len(NAMES))) < 0.2
    labels = np.where(accepted.any(-1), accepted.argmax(-1), -1).astype(np.int32)
    assert (labels < 0).any()
    scorer = ClassificationScorer(NAMES)
    scorer.add(batch | {"label": labels, "accepted": accepted}, predictions)
    order = np.argsort(-predictions["log_probabilities"], axis=-1, kind="stable")
    hits = np.take_along_axis(accepted, order, -1)[batch["valid"] & accepted.any(-1)]
    result = scorer.result()
    assert result["examples"] == len(hits)
    assert result["top1"] == np.mean(hits[:, 0])
    assert result["top5"] == np.mean(hits[:, :5].any(-1))


def test_predictions_among_some_classes() -> None:
    """Their probabilities are those given that it is one of them; the others have none."""
    model = create_model(
        "swin", embed_dim=8, depths=(1,), num_heads=(1,), window_size=2, patch_size=4, num_classes=len(NAMES)
    )
    task = Classification(
        model=model, image_size=(8, 8), class_names=NAMES, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
    )
    params, _ = task.init(random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    batch = {"image": jnp.asarray(images)}
    free = np.exp(task.predict(params, {}, batch)["log_probabilities"])
    some = [1, 4, 6]
    found = np.exp(task.among(some).predict(params, {}, batch)["log_probabilities"])
    np.testing.assert_allclose(
        found[:, some], free[:, some] / free[:, some].sum(-1, keepdims=True), rtol=1e-5
    )
    assert not np.delete(found, some, axis=-1).any()
    assert task.candidates is None


def test_parts_merge_to_the_whole_in_any_order() -> None:
    batch, predictions = scored()
    whole = ClassificationScorer(NAMES)
    whole.add(batch, predictions)
    parts = []
    for rows in (slice(25, 40), slice(0, 25)):
        part = ClassificationScorer(NAMES)
        part.add({k: v[rows] for k, v in batch.items()}, {k: v[rows] for k, v in predictions.items()})
        parts.append(part)
    parts[0].merge(parts[1])
    assert parts[0].result() == whole.result()
    for field in ClassificationScorer.FIELDS:
        np.testing.assert_array_equal(parts[0].rows(field), whole.rows(field))


def test_nothing_scored() -> None:
    assert ClassificationScorer(NAMES).result() == {"examples": 0.0}


def test_thousands_of_classes_need_no_dense_matrix() -> None:
    scorer = ClassificationScorer(tuple(map(str, range(21841))))
    log_probabilities = np.full((2, 21841), -10.0, np.float32)
    log_probabilities[0, 21840] = log_probabilities[1, 5] = 0.0
    batch = {
        "label": np.asarray([21840, 6], np.int32),
        "example_index": np.arange(2, dtype=np.uint32),
        "valid": np.ones(2, bool),
    }
    scorer.add(batch, {"log_probabilities": log_probabilities})
    assert scorer.result()["top1"] == 0.5
    assert scorer.per_class()[21840] == 1.0
    drawn = scorer.draw()
    assert set(drawn) == {"accuracy"}
    assert drawn["accuracy"].ndim == 3


def test_pictures_of_an_evaluation() -> None:
    batch, predictions = scored()
    scorer = ClassificationScorer(NAMES)
    scorer.add(batch, predictions)
    drawn = scorer.draw()
    assert set(drawn) == {"accuracy", "confusion"}
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for picture in drawn.values())
