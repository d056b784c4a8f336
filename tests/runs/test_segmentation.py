"""A segmentation run as a user has it: train, resume, evaluate, predict, score label files."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import own_segmentation
from swin_jax import convert, pretrained, train
from swin_jax.config import Config
from swin_jax.restore import open_run
from swin_jax.setups import label_files
from swin_jax.training.run_directory import read_metrics
from swin_jax.weights import flatten
from tests.runs.conftest import run
from tests.weights.micro import same

OVERRIDES = {
    "batch_size": 8,
    "total": "4 steps",
    "evaluate_every": "4 steps",
    "evaluate_batch_size": 8,
    "checkpoint_every": "2 steps",
    "log_every": 1,
    "model.embed_dim": 4,
    "model.depths": (1, 1),
    "model.num_heads": (1, 1),
    "model.window_size": 2,
    "model.pool_scales": (1, 2),
    "model.auxiliary_index": 1,
    "model.channels": 4,
    "model.auxiliary_channels": 4,
    "data.size": (16, 16),
    "data.scale": (32, 16),
    "evaluation.canvas": 8,
    "evaluation.ratios": (0.5, 1.0),
    "schedule.warmup": "1 steps",
}
SIZES = ((16, 20), (20, 16), (16, 20))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two sizes whose halves are bright and dark, with the label maps of that and an ignored column."""
    root = tmp_path_factory.mktemp("pairs")
    (root / "classes.txt").write_text("dark, 10, 20, 30\nbright, 200, 210, 220\nnever, 1, 1, 1\n")
    for split in ("train", "val"):
        for index, (height, width) in enumerate(SIZES):
            labels = np.zeros((height, width), np.uint8)
            labels[:, width // 2 :] = 1
            labels[:, 0] = 255
            image = np.where(labels[..., None] == 1, 220, 30) + np.zeros(3, int)
            for folder, pixels in (("images", image), ("annotations", labels)):
                path = root / folder / split / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


@pytest.fixture
def micro(pairs: Path) -> Callable[[], Config]:
    def make() -> Config:
        config = own_segmentation.get_config("micro")
        config.update_from_flattened_dict(OVERRIDES | {"data.root": str(pairs)})
        return config.lock()

    return make


def bits(workdir: Path) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(open_run(str(workdir), checkpoint="newest").load())]


@pytest.mark.long
def test_a_run_resumes_to_the_bit_and_its_maps_score_what_it_scored(
    pairs: Path, micro: Callable[[], Config], tmp_path: Path
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train.train(train.prepare(micro(), str(whole)))
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "4")
    config = micro()
    with config.unlocked():
        config.evaluate_every = "100 steps"  # once is enough
    train.train(train.prepare(config, str(resumed)))
    for ours, theirs in zip(bits(whole), bits(resumed), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    check_the_run_goes_on_whole(whole, tmp_path)

    recorded = [line for line in read_metrics(whole) if "eval/miou" in line][-1]
    assert recorded["eval/examples"] == 3
    assert {path.name for path in (whole / "pictures").iterdir()} == {"iou.png", "predictions.png"}

    output = tmp_path / "maps"
    done = run(
        "predict", f"--workdir={whole}", "--split=val", "--count=0", "--json", f"--maps={output}", devices=2
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(Path(row["name"]).name for row in rows) == ["0.png", "1.png", "2.png"]
    for index, (height, width) in enumerate(SIZES):
        with Image.open(output / "labels" / f"{index}.png") as labels:
            assert labels.size == (width, height)
            assert labels.mode == "P"
            assert labels.getpalette()[3:6] == [200, 210, 220]
            shares = np.bincount(np.asarray(labels).ravel(), minlength=3) / (height * width)
        (row,) = [row for row in rows if Path(row["name"]).name == f"{index}.png"]
        assert {entry["class"]: entry["share"] for entry in row["classes"]} == {
            name: pytest.approx(share, abs=1e-6)
            for name, share in zip(("dark", "bright", "never"), shares, strict=True)
            if share
        }
        assert (output / "overlays" / f"{index}.png").exists()

    done = run("evaluate", f"--workdir={whole}", f"--predictions={output}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in ("miou", "pixel_accuracy", "mean_class_accuracy", "pixels", "examples"):
        assert found[name] == pytest.approx(recorded[f"eval/{name}"], abs=1e-12)
    written = json.loads((whole / "evaluation_val_predictions.json").read_text())
    assert written["by_class"]["iou"]["never"] is None or written["by_class"]["iou"]["never"] == 0

    (output / "labels" / "1.png").unlink()
    done = run("evaluate", f"--workdir={whole}", f"--predictions={output}")
    assert done.returncode == 1
    assert "labels/1.png is missing: the prediction for" in done.stderr.strip().splitlines()[-1]


def check_the_run_goes_on_whole(workdir: Path, place: Path) -> None:
    """Another run begins with all of it, directly and by way of OpenMMLab's names, and so does the package."""
    weights = pretrained.read(str(workdir), checkpoint="best", whole=True)
    values = {**weights.params, **weights.statistics}
    file = place / "upernet.safetensors"
    report = convert.convert_composed(weights, file, "openmmlab")
    assert report["cards"] == [str(place / "upernet.card.json"), str(place / "upernet.README.md")]
    card = (place / "upernet.README.md").read_text()
    assert "16 x 16 in training, RGB; fitted into (32, 16), aspect kept (bilinear)" in card
    params, model_state = jax.eval_shape(open_run(str(workdir)).task.init, jax.random.key(0))
    for source in (workdir, file):
        found = pretrained.beginning(str(source), params, model_state)
        assert found.fresh == ()
        assert same({**found.params, **found.statistics}, values)
    for written in (place / "upernet.card.json", workdir / "card.json"):
        scope: dict[str, Any] = {}
        with contextlib.chdir(place):
            exec("\n".join(json.loads(written.read_text())["load"][:2]), scope)
        loaded = flatten(scope["variables"]["params"]) | flatten(scope["variables"]["batch_stats"])
        assert same({path: np.asarray(value) for path, value in loaded.items()}, values)


def test_an_exported_map_holds_the_data_sets_values(tmp_path: Path) -> None:
    from swin_jax.data.sources.label_pairs import ade20k_coding
    from swin_jax.data.sources.semantic import open_semantic
    from tests.data.test_label_pairs import LAYOUTS, write

    write(tmp_path / "ADE", *LAYOUTS["ade20k"], split="validation", count=2)
    source = open_semantic("ade20k", "validation", root=str(tmp_path / "ADE"))
    coding = ade20k_coding()
    for record, labels in label_files.labelled(source):
        guesses = np.where(labels == 255, 7, labels).astype(np.uint8)
        label_files.write_prediction(str(tmp_path / "out"), record, guesses, coding, "dataset")
        with Image.open(
            tmp_path / "out" / "labels" / f"{label_files.file_name(record['name'])}.png"
        ) as picture:
            assert picture.mode == "L"
            np.testing.assert_array_equal(np.asarray(picture), guesses + 1)
    scorer = label_files.score_folder(source, str(tmp_path / "out"), coding, "dataset")
    assert scorer.result()["miou"] == 1.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/data/a b/ADE_val_00000001.jpg", "ADE_val_00000001"),
        ("tfds:ade20k150/1.0.0, split val, record 3 (ADE_val_00000003.jpg)", "ADE_val_00000003"),
        ("shapes/easy:1.1.0, split val, record 12", "easy_1.1.0_split_val_record_12"),
    ],
)
def test_names_of_label_files(name: str, expected: str) -> None:
    assert label_files.file_name(name) == expected


def test_two_pictures_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a/x.jpg and b/x.png would both be written to x.png"):
        label_files.check_file_names(["a/x.jpg", "b/x.png"])


def test_too_many_sizes_are_refused_before_a_device_works(
    micro: Callable[[], Config], tmp_path: Path
) -> None:
    config = micro()
    with config.unlocked():
        config.evaluation.max_shapes = 1
    with pytest.raises(
        ValueError, match=r"the evaluation pictures have 2 sizes and evaluation\.max_shapes is 1"
    ):
        train.prepare(config, str(tmp_path))
