"""A detection run as a user has it: train, resume, evaluate, look at the page, predict, score a result file."""

import html.parser
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import own_detection
from swin_jax import pretrained, train
from swin_jax.config import Config
from swin_jax.restore import open_run
from swin_jax.training.run_directory import read_metrics
from tests.runs.conftest import run

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
    "model.channels": 4,
    "model.fc_channels": 8,
    "model.mask_channels": 4,
    "model.mask_convs": 1,
    "data.scale": (64, 32),
    "data.short_sides": (32,),
    "data.max_boxes": 4,
    "data.mask_size": 14,
    "detection.least_score": 0.01,
    "detection.most": 5,
    "detection.train_proposals": 20,
    "detection.test_proposals": 20,
    "evaluation.ratios": (0.5, 1.0),
    "schedule.warmup": "1 steps",
}
SIZES = ((32, 60), (60, 32), (40, 40), (32, 64))


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three sizes with a bright rectangle each, and their annotations."""
    root = tmp_path_factory.mktemp("boxes")
    for split in ("train", "val"):
        images, annotations = [], []
        (root / split).mkdir()
        for index, (height, width) in enumerate(SIZES):
            image = np.full((height, width, 3), 30, np.uint8)
            image[6:26, 8:28] = 220
            Image.fromarray(image).save(root / split / f"{index}<b>.png")
            images.append({"id": 7 + index, "file_name": f"{index}<b>.png", "height": height, "width": width})
            annotations.append(
                {
                    "id": 1 + index,
                    "image_id": 7 + index,
                    "category_id": 4,
                    "bbox": [8, 6, 20, 20],
                    "area": 400,
                    "iscrowd": 0,
                    "segmentation": [[8, 6, 28, 6, 28, 26, 8, 26]],
                }
            )
        categories = [{"id": 4, "name": "tile"}, {"id": 9, "name": "never"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def micro(boxes: Path) -> Callable[[], Config]:
    def make() -> Config:
        config = own_detection.get_config("micro")
        config.update_from_flattened_dict(OVERRIDES | {"data.root": str(boxes)})
        return config.lock()

    return make


def bits(workdir: Path) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(open_run(str(workdir), checkpoint="newest").load())]


class Page(html.parser.HTMLParser):
    """What a page shows: its pictures, and the order of its headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.articles: list[dict[str, Any]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            assert dict(attrs)["alt"]
            self.pictures.append(str(dict(attrs)["src"]))
        if tag == "article":
            self.articles.append(dict(attrs))


@pytest.mark.long
def test_a_run_resumes_to_the_bit_and_its_result_file_scores_what_it_scored(
    boxes: Path, micro: Callable[[], Config], tmp_path: Path
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

    recorded = [line for line in read_metrics(whole) if "eval/box_ap" in line][-1]
    assert recorded["eval/examples"] == 4
    assert "swin_jax.load_detector" in (whole / "README.md").read_text()
    names = {path.name for path in (whole / "pictures").iterdir()}
    assert names == {"box_ap.png", "mask_ap.png", "precision_recall.png", "predictions.png"}
    params, model_state = jax.eval_shape(open_run(str(whole)).task.init, jax.random.key(0))
    assert pretrained.beginning(str(whole), params, model_state).fresh == ()

    done = run("evaluate", f"--workdir={whole}", "--checkpoint=newest", devices=2)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["box_ap"] == pytest.approx(recorded["eval/box_ap"], abs=1e-6)
    page = whole / "viewer_val_4"
    shown = Page((page / "index.html").read_text())
    assert len(shown.articles) == 4
    assert all((page / file).exists() for file in shown.pictures)
    assert [float(row["data-f1"]) for row in shown.articles] == sorted(
        float(row["data-f1"]) for row in shown.articles
    )
    assert {row["data-name"] for row in shown.articles} == {f"{index}<b>.png" for index in range(4)}
    assert "<b>" not in (page / "index.html").read_text()

    results = whole / "detections_val_4.json"
    done = run("evaluate", f"--workdir={whole}", f"--predictions={results}", "--viewer=0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mask_ap"] == pytest.approx(found["mask_ap"], abs=1e-4)

    done = run("evaluate", f"--workdir={whole}", "--checkpoint=newest", "--multi_scale", "--viewer=0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == 4
    assert (whole / "detections_val_4_multi_scale.json").exists()


@pytest.mark.long
def test_predictions_are_drawn_and_written(boxes: Path, micro: Callable[[], Config], tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    config = micro()
    with config.unlocked():
        config.model.with_masks = False
        config.total = "1 steps"
    train.train(train.prepare(config, str(workdir)))
    assert [line for line in read_metrics(workdir) if "eval/box_ap" in line]
    output = tmp_path / "output"
    picture = boxes / "val" / "1<b>.png"
    done = run(
        "predict", f"--workdir={workdir}", f"--maps={output}", "--least_score=0.01", "--json", str(picture)
    )
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["name"] == str(picture)
    results = json.loads((output / "detections.json").read_text())
    assert len(results) == len(row["detections"])
    assert all(result["category_id"] in (4, 9) for result in results)
    assert all("segmentation" not in result for result in results)
    for one in row["detections"]:
        x1, y1, x2, y2 = one["box"]
        assert 0 <= x1 <= x2 <= 32
        assert 0 <= y1 <= y2 <= 60
    assert len(list(output.glob("*.png"))) == 1


def test_what_is_wrong_is_one_sentence(boxes: Path, micro: Callable[[], Config], tmp_path: Path) -> None:
    content = json.loads((boxes / "train.json").read_text())
    for one in content["annotations"]:
        del one["segmentation"]
    bare = tmp_path / "bare"
    shutil.copytree(boxes, bare)
    (bare / "train.json").write_text(json.dumps(content))
    config = micro()
    with config.unlocked():
        config.data.root = str(bare)
    with pytest.raises(ValueError, match=r"has boxes and no masks; .*--config.model.with_masks=False"):
        train.prepare(config, str(tmp_path / "run"))
    for field, value, sentence in (
        (
            "detection.roi_align",
            "nearest",
            r"detection.roi_align is 'nearest'; expected one of auto, gather, separable",
        ),
        ("data.short_sides", (128,), r"data.scale allows a long side of 64, less than the short side 128"),
        ("model.name", "mask_rcnn_swin_tine", "no detector is called"),
    ):
        config = micro()
        with config.unlocked():
            config.update_from_flattened_dict({field: value})
        with pytest.raises(ValueError, match=sentence):
            train.prepare(config, str(tmp_path / "run"))
