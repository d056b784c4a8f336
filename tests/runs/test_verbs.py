"""The commands on a finished run: what they print is what was measured."""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from jax import numpy as jnp
from PIL import Image

from swin_jax import exports, train
from swin_jax.config import Config
from swin_jax.data.sources import Source, open_source
from swin_jax.data.sources.renumbered import renumber
from swin_jax.evaluate import candidates, evaluate_on
from swin_jax.restore import Run, open_run
from swin_jax.training.run_directory import read_metrics
from tests.runs.conftest import CLASSES, ROOT, run

pytestmark = pytest.mark.xdist_group("verbs")  # one worker, one trained run


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from experiments import own_images
    from tests.runs.conftest import OVERRIDES

    config = own_images.get_config("micro_32")
    config.update_from_flattened_dict(OVERRIDES | {"data.root": str(folder)})
    workdir = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(workdir.parent):  # a relative path, as most people give one
        train.train(train.prepare(config.lock(), workdir.name))
    return workdir


def test_a_run_directory_holds_what_it_should(trained: Path) -> None:
    present = {path.name.split(".tfevents")[0] for path in trained.iterdir()}
    assert present == {
        "config.json",
        "classes.json",
        "checkpoints",
        "metrics.jsonl",
        "events.out",
        "curves.png",
        "pictures",
        "card.json",
        "README.md",
    }
    assert {path.name for path in (trained / "pictures").iterdir()} == {
        "accuracy.png",
        "confusion.png",
        "predictions.png",
    }
    for path in (trained / "curves.png", *(trained / "pictures").iterdir()):
        with Image.open(path) as picture:
            assert min(picture.size) > 100


def test_the_card_of_a_run_says_what_the_run_knows(trained: Path, folder: Path) -> None:
    card, text = json.loads((trained / "card.json").read_text()), (trained / "README.md").read_text()
    written = json.loads((trained / "config.json").read_text())
    opened = open_run(str(trained))
    best = opened.step
    assert card["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(opened.load()[0]))
    assert card["classes"] == {"count": 3, "names": list(CLASSES)}
    assert card["run"]["step"] == best
    assert card["run"]["data"]["fingerprint"] == written["config"]["data_fingerprint"]
    assert card["run"]["config"]["batch_size"] == 8
    assert card["run"]["versions"] == written["versions"]
    recorded = next(line for line in read_metrics(trained) if line["step"] == best and "eval/top1" in line)
    (evaluation,) = card["run"]["evaluations"]
    assert evaluation["split"] == "val"
    assert evaluation["top1"] == recorded["eval/top1"]
    assert f"| {written['config']['data_fingerprint']['train']} |" in text
    for place in (folder, folder.parent, trained.parent, ROOT):  # nothing of this machine
        assert str(place) not in json.dumps(card) + text
    lines = [line for line in text.splitlines() if line.startswith("model, variables")]
    found: dict[str, Any] = {}
    with contextlib.chdir(trained.parent):
        exec("import swin_jax\n" + lines[0], found)
    assert found["model"].num_classes == 3


@pytest.mark.long
def test_export_writes_the_run_and_checks_it(trained: Path, tmp_path: Path) -> None:
    arguments = [f"--weights={trained}", f"--output={tmp_path / 'out'}", "--preprocess", "--json"]
    done = run("export", *arguments, devices=2)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["input"]["shape"] == ["batch", 16, 16, 3]
    assert [check["batch"] for check in report["files"][0]["checks"]] == [1, 3]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.stablehlo",
        "params.safetensors",
        "export.json",
        "card.json",
        "README.md",
    }
    program = exports.load(tmp_path / "out")
    assert program.description["class_names"] == list(CLASSES)
    assert (
        program.description["run"]["data"] == json.loads((trained / "card.json").read_text())["run"]["data"]
    )
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    opened = open_run(str(trained))
    params, state = opened.load()
    expected = np.exp(opened.task.predict(params, state, {"image": jnp.asarray(images)})["log_probabilities"])
    np.testing.assert_allclose(program(images), expected, rtol=0, atol=1e-2)  # the run computes in bfloat16
    again = run("export", *arguments[:1], f"--output={trained}")
    assert again.stderr.strip().splitlines()[-1].endswith("name a new one")


def test_evaluate_repeats_the_recorded_figures(trained: Path) -> None:
    done = run("evaluate", f"--workdir={os.path.relpath(trained, ROOT)}", "--checkpoint=newest")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    recorded = [line for line in read_metrics(trained) if "eval/top1" in line][-1]
    for name in ("top1", "top5", "loss", "mean_class_accuracy", "examples"):
        assert found[name] == pytest.approx(recorded[f"eval/{name}"], rel=1e-5)
    assert found["examples"] == 21  # 21 is no multiple of the batch size: nothing counts twice
    written = json.loads((trained / f"evaluation_val_{found['step']}.json").read_text())
    assert set(written.pop("by_class")["accuracy"]) == set(CLASSES)
    assert written == found


@pytest.mark.long
def test_evaluate_does_not_depend_on_batch_size_and_devices(trained: Path) -> None:
    results = [
        json.loads(run("evaluate", f"--workdir={trained}", "--split=train", devices=devices).stdout)
        for devices in (1, 8)
    ]
    assert results[0]["examples"] == results[1]["examples"] == 27
    assert results[0]["top1"] == results[1]["top1"]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-5)


def test_predict_files_directories_and_globs(trained: Path, folder: Path, tmp_path: Path) -> None:
    red = folder / "val" / "red"
    arguments = [str(red / "0.png"), str(folder / "val" / "green"), str(folder / "val" / "blue" / "[12].png")]
    sheet = tmp_path / "sheet.png"
    done = run("predict", f"--workdir={trained}", "--json", "--top=2", f"--sheet={sheet}", *arguments)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(row["name"]).parent.name for row in rows] == ["red"] + ["green"] * 7 + ["blue"] * 2
    for row in rows:
        values = [entry["probability"] for entry in row["top"]]
        assert len(values) == 2
        assert values == sorted(values, reverse=True)
        assert {entry["class"] for entry in row["top"]} <= set(CLASSES)
        assert row["label"] is None
    with Image.open(sheet) as picture:
        assert np.asarray(picture).std() > 0


def test_predict_a_split_as_a_table(trained: Path) -> None:
    done = run("predict", f"--workdir={trained}", "--split=val", "--count=5")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
    assert "%" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no pictures are named"),
        (["/none/*.jpg"], "'/none/*.jpg' is no picture, no directory with pictures and no glob that matches"),
        (["--split=val", __file__], "choose one"),
        ([__file__], "test_verbs.py cannot be read as a picture"),
    ],
)
def test_predict_says_what_is_wrong(trained: Path, arguments: list[str], sentence: str) -> None:
    done = run("predict", f"--workdir={trained}", *arguments)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert sentence in last


@pytest.mark.long
def test_init_from_begins_with_the_parameters_of_a_run(
    trained: Path, micro: Callable[..., Config], tmp_path: Path
) -> None:
    """At a rate of zero a run that begins with another's parameters scores what that one scored."""
    config = micro(
        init_from=str(trained),
        total="1 steps",
        schedule__warmup="0 steps",
        schedule__peak=0.0,
        schedule__end=0.0,
    )
    train.train(train.prepare(config, str(tmp_path)))
    begun = [line for line in read_metrics(tmp_path) if "eval/loss" in line][-1]
    best = max(
        (line for line in read_metrics(trained) if "eval/top1" in line), key=lambda line: line["eval/top1"]
    )
    assert begun["eval/top1"] == best["eval/top1"]


class Elsewhere(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A tfds set of a single split with the classes of the run in another order."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict[str, Any]] = {}
    names = ("red", "blue", "green")
    labels: ClassVar[list[int]] = [0, 1, 0, 1, 1, 0, 0]  # no green one

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.ClassLabel(names=self.names)
        features = {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="png")}
        features |= (
            {"label": label}
            if self.name != "imagenet2012_real"
            else {"real_label": tfds.features.Sequence(label)}
        )
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, _: Any) -> dict[str, Any]:
        return {"test": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, label in enumerate(self.labels):
            pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), np.uint8)
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, "PNG")
            out.seek(0)
            several = {"real_label": [[], [label], [1, 2]][index % 3]}
            yield index, {"image": out} | (several if self.name == "imagenet2012_real" else {"label": label})


class ImagenetR(Elsewhere, skip_registration=True):
    pass


class ImagenetSketch(Elsewhere, skip_registration=True):
    pass


class Imagenet2012Real(Elsewhere, skip_registration=True):
    pass


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("elsewhere")
    for builder in (ImagenetR, ImagenetSketch, Imagenet2012Real):
        builder(data_dir=str(root), file_format="array_record").download_and_prepare()
    return root


def log_probabilities(opened: Run, source: Source) -> np.ndarray:
    """Of each picture over the run's classes, without the verb's way of scoring."""
    images = np.stack([np.asarray(Image.open(io.BytesIO(source[i]["image"]))) for i in range(len(source))])
    params, state = opened.load()
    return np.asarray(opened.task.predict(params, state, {"image": jnp.asarray(images)})["log_probabilities"])


@pytest.mark.long
def test_evaluation_on_other_data(trained: Path, elsewhere: Path) -> None:
    """Classes are matched by name; of ImageNet-R only those compete that it has; ReaL takes one of several labels."""
    opened = open_run(str(trained))
    assert opened.class_names == ("blue", "green", "red")
    raw = open_source("tfds:imagenet_sketch", "", root=str(elsewhere))
    scores = log_probabilities(opened, raw)
    labels = np.asarray([opened.class_names.index(Elsewhere.names[label]) for label in Elsewhere.labels])
    present = np.where(np.arange(3) == 1, -np.inf, scores)

    found = {}
    for kind in ("tfds:imagenet_sketch", "tfds:imagenet_r", "tfds:imagenet2012_real"):
        source = renumber(open_source(kind, "", root=str(elsewhere)), opened.class_names)
        classes = candidates(source, kind, None)
        assert classes == ((0, 2) if kind == "tfds:imagenet_r" else None)
        found[kind] = evaluate_on(opened, source, classes).scorer.result()
    sketch, r, real = found.values()
    assert sketch["top1"] == pytest.approx(np.mean(scores.argmax(-1) == labels))
    assert sketch["loss"] == pytest.approx(-np.mean(scores[np.arange(7), labels]), rel=1e-4)
    assert r["top1"] == pytest.approx(np.mean(present.argmax(-1) == labels))
    restricted = present - np.log(np.exp(present).sum(-1, keepdims=True))
    assert r["loss"] == pytest.approx(-np.mean(restricted[np.arange(7), labels]), rel=1e-4)
    sets = [[set(), {labels[i]}, {0, 1}][i % 3] for i in range(7)]  # numbers 1, 2 there: blue, green
    counted = [i for i in range(7) if sets[i]]
    assert real["examples"] == len(counted) == 4
    assert real["top1"] == pytest.approx(np.mean([scores[i].argmax() in sets[i] for i in counted]))
    assert candidates(raw, "tfds:imagenet_r", "all") is None


def test_the_command_on_other_data(trained: Path, elsewhere: Path) -> None:
    done = run("evaluate", f"--workdir={trained}", "--data=tfds:imagenet_r", f"--data_root={elsewhere}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["examples"], found["classes"]) == (7, 2)
    assert found["data"] == "tfds:imagenet_r/1.0.0:test:3 classes:7"
    written = json.loads((trained / f"evaluation_tfds_imagenet_r_{found['step']}.json").read_text())
    by_class = written.pop("by_class")["accuracy"]
    assert [name for name in CLASSES if by_class[name] is None] == ["green"]  # the one that has no picture
    assert written == found
    assert (trained / "pictures" / "tfds_imagenet_r" / "confusion.png").exists()
