"""The embedded data set: the same pixels everywhere, exact annotations, hard enough, prepared without TensorFlow."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from swin_jax.data.decode import decode_picture
from swin_jax.data.sources import open_source, shapes
from swin_jax.data.sources.outlines import CLASSES
from swin_jax.data.sources.scenes import Scene, draw_scene

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {variant: [draw_scene(variant, 5, index) for index in range(60)] for variant in ("easy", "hard")}


@pytest.mark.parametrize(("variant", "digest"), [("easy", "6b5ca91153400df1"), ("hard", "787ddc39e2e74780")])
def test_pixels_never_change(variant, digest):
    drawn = [draw_scene(variant, seed, index) for seed in (0, 1) for index in range(20)]
    pixels = b"".join(scene.image.tobytes() + scene.instances.tobytes() for scene in drawn)
    assert hashlib.sha256(pixels).hexdigest()[:16] == digest


@pytest.mark.parametrize("variant", ["easy", "hard"])
def test_annotations_agree_with_one_another(variant, scenes):
    for scene in scenes[variant]:
        numbers = np.unique(scene.instances[scene.instances > 0])
        np.testing.assert_array_equal(numbers, np.arange(1, len(scene.classes) + 1))
        for number, label, box in zip(numbers, scene.classes, scene.boxes, strict=True):
            rows, columns = np.nonzero(scene.instances == number)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.all(scene.semantic[rows, columns] == label + 1)
        assert not scene.semantic[scene.instances == 0].any()


@pytest.mark.parametrize(("variant", "share"), [("easy", 0.66), ("hard", 0.61)])
def test_the_label_is_the_dominant_object(variant, share, scenes):
    for scene in scenes[variant]:
        pixels = np.bincount(scene.instances.ravel())[1:]
        order = np.argsort(-pixels)
        assert scene.classes[order[0]] == scene.label
        if len(order) > 1:
            assert pixels[order[1]] <= share * pixels[order[0]]


def test_easy_scenes_have_few_large_objects_and_hard_ones_clutter(scenes):
    easy, hard = ([len(scene.classes) for scene in scenes[variant]] for variant in ("easy", "hard"))
    assert (min(easy), max(easy)) == (1, 2)
    assert np.mean(hard) > 4
    for scene in scenes["easy"]:
        main = scene.boxes[np.bincount(scene.instances.ravel())[1:].argmax()]
        assert max(main[2] - main[0], main[3] - main[1]) >= 48  # radius 24 at least
    shown = np.concatenate([np.bincount(scene.instances.ravel())[1:] for scene in scenes["hard"]])
    assert shown.min() >= 25


def test_every_class_is_drawn_about_equally_often():
    labels = [draw_scene("easy", 9, index).label for index in range(200)]
    assert np.bincount(labels, minlength=len(CLASSES)).min() > 10


@pytest.mark.long
def test_a_linear_model_on_pixels_fails_on_hard_scenes():
    def pixels(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        drawn = [draw_scene("hard", seed, index) for index in range(count)]
        small = [cv2.resize(scene.image, (8, 8), interpolation=cv2.INTER_AREA) for scene in drawn]
        flat = np.reshape(small, (count, -1)) / 255 - 0.5
        return np.concatenate([flat, np.ones((count, 1))], axis=1), np.array([scene.label for scene in drawn])

    (inputs, labels), (held_out, expected) = pixels(0, 500), pixels(1, 150)
    targets = np.eye(len(CLASSES))[labels]
    weights = np.linalg.solve(inputs.T @ inputs + 10 * np.eye(inputs.shape[1]), inputs.T @ targets)
    accuracy = np.mean((held_out @ weights).argmax(axis=1) == expected)
    assert accuracy < 0.5


@pytest.fixture
def few(monkeypatch) -> None:
    monkeypatch.setattr(shapes, "SPLITS", {"train": 12, "val": 5})


def test_prepared_records_are_the_drawn_scenes(few, tmp_path):
    source = open_source("shapes/hard", "val", root=str(tmp_path))
    assert source.class_names == CLASSES
    assert source.identity == "shapes/hard:val:8 classes:5"
    for index in range(5):
        scene, record = draw_scene("hard", 1, index), source[index]
        np.testing.assert_array_equal(decode_picture(record["image"], "p"), scene.image)
        assert record["label"] == scene.label
        np.testing.assert_array_equal(record["boxes"], scene.boxes)
        np.testing.assert_array_equal(record["classes"], scene.classes)
        for name in ("instances", "semantic"):
            stored = cv2.imdecode(np.frombuffer(record[name], np.uint8), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(stored, getattr(scene, name))
    assert len(open_source("shapes/hard", "train", root=str(tmp_path))) == 12


def test_unknown_variants_and_splits_are_refused(few, tmp_path):
    with pytest.raises(ValueError, match="'shapes/medium' is unknown; known: shapes/easy, shapes/hard"):
        open_source("shapes/medium", "train", root=str(tmp_path))
    with pytest.raises(ValueError, match="shapes/easy has no split 'test'; it has train, val"):
        open_source("shapes/easy", "test", root=str(tmp_path))


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written to .*file.*; name a writable directory"):
        open_source("shapes/easy", "train", root=str(tmp_path / "file" / "below"))


SCRIPT = """
import sys
from swin_jax.data.sources import open_source, shapes
shapes.SPLITS = {"train": int(sys.argv[2]), "val": 3}
source = open_source("shapes/easy", "train", root=sys.argv[1])
print(len(source), source[len(source) - 1]["label"])
"""


def start(root: Path, count: int, *paths: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in (*paths, ROOT))}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(root), str(count)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_preparation_never_asks_for_tensorflow_and_two_processes_do_not_disturb_each_other(tmp_path):
    trap = tmp_path / "trap" / "tensorflow"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise SystemExit('tensorflow was imported')")
    both = [start(tmp_path / "data", 40, trap.parent) for _ in range(2)]
    for process in both:
        out, errors = process.communicate(timeout=120)
        assert (process.returncode, out.split()[:1]) == (0, ["40"]), errors


def test_a_killed_preparation_is_begun_anew(tmp_path):
    process = start(tmp_path, 100_000)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("shapes/easy/incomplete.*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.glob("shapes/easy/incomplete.*"))
    again = start(tmp_path, 6)
    out, errors = again.communicate(timeout=60)
    assert (again.returncode, out.split()[:1]) == (0, ["6"]), errors
    assert not list(tmp_path.glob("shapes/easy/incomplete.*"))
