"""Forms a tfds set may have beyond the usual, and that reading one takes neither TensorFlow nor jax."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from swin_jax.data.sources import open_source

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("oak", "elm", "ash")
COUNTS = {"train": 9, "validation": 4}
GREY = 20  # step from one picture's shade to the next


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), GREY * value, np.uint8)).save(out, "PNG")
    return out.getvalue()


class Drawn(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Splits of grey pictures; the tests' sets differ in their features."""

    VERSION = tfds.core.Version("2.1.0")
    url_infos: dict = {}  # noqa: RUF012  (nothing is downloaded)
    features: dict[str, Any]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(self.features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split: str) -> Any:
        values = {
            "image": lambda i: io.BytesIO(png(i)),
            "depth": lambda i: io.BytesIO(png(i)),
            "label": lambda i: i % len(CLASSES),
            "family": lambda i: 2,
            "genus": lambda i: 1,
            "order": lambda i: 0,
            "file_name": lambda i: f"{split}_{i}.JPEG",
            "original_label": lambda i: 0,
            "real_label": lambda i: list(range(i % 3)),
        }
        for index in range(COUNTS[split]):
            yield index, {name: values[name](index) for name in self.features}


def prepared(root: Path, builder: type[Drawn]) -> str:
    """Prepares the builder's set under root; returns the set's directory."""
    made = builder(data_dir=str(root), file_format="array_record")
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        made.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return made.data_dir


def picture() -> tfds.features.Image:
    return tfds.features.Image(shape=(None, None, 3), encoding_format="png")


def label() -> tfds.features.ClassLabel:
    return tfds.features.ClassLabel(names=CLASSES)


class TinyTrees(Drawn, skip_registration=True):
    features = {"image": picture(), "label": label(), "file_name": tfds.features.Text()}  # noqa: RUF012


class TinyNameless(Drawn, skip_registration=True):
    features = {"depth": picture(), "family": label()}  # noqa: RUF012


class TinyManyLabels(Drawn, skip_registration=True):
    features = {"image": picture()} | {name: label() for name in ("family", "genus", "label", "order")}


class TinyReal(Drawn, skip_registration=True):
    """As imagenet2012_real: beside the original label any number of right ones."""

    features = {  # noqa: RUF012
        "image": picture(),
        "original_label": label(),
        "real_label": tfds.features.Sequence(label()),
        "file_name": tfds.features.Text(),
    }


def test_several_right_labels(tmp_path):
    prepared(tmp_path, TinyReal)
    source = open_source("tfds:tiny_real", "train", root=str(tmp_path))
    assert source.class_names == CLASSES
    records = [source[index] for index in range(3)]
    assert [record["label"] for record in records] == [-1, 0, 0]
    assert [record["accepted"].tolist() for record in records] == [
        [False, False, False],
        [True, False, False],
        [True, True, False],
    ]


def test_the_only_split_needs_no_name(tmp_path, monkeypatch):
    prepared(tmp_path, TinyTrees)
    with pytest.raises(ValueError, match=r"tiny_trees/2\.1\.0 has the splits train, validation; name one$"):
        open_source("tfds:tiny_trees", "", root=str(tmp_path))
    monkeypatch.setitem(COUNTS, "test", 2)
    monkeypatch.delitem(COUNTS, "train")
    monkeypatch.delitem(COUNTS, "validation")
    prepared(tmp_path, TinyNameless)
    assert len(open_source("tfds:tiny_nameless", "", root=str(tmp_path))) == 2


@pytest.mark.parametrize(
    "name", ["imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "imagenet2012_real"]
)
def test_the_sets_that_imagenet_runs_are_evaluated_on_name_classes_by_wnid(name):
    """Their definitions in tfds as it is installed: the classes of imagenet2012 in its order."""
    features = tfds.builder_cls(name)(data_dir="/nowhere").info.features
    found = features["real_label"].feature if name == "imagenet2012_real" else features["label"]
    names = Path(tfds.core.tfds_path("datasets/imagenet2012/labels.txt")).read_text().split()
    assert found.names == names
    assert len(names) == 1000


def test_features_are_found_by_type_and_a_record_without_file_name_is_named_by_its_number(tmp_path):
    prepared(tmp_path, TinyNameless)
    source = open_source("tfds:tiny_nameless", "validation", root=str(tmp_path))
    assert (source[2]["image"], source[2]["label"]) == (png(2), 2)
    for part in ("tiny_nameless", "validation", "2"):
        assert part in source[2]["name"]


def test_of_several_labels_the_one_called_label_counts(tmp_path):
    prepared(tmp_path, TinyManyLabels)
    source = open_source("tfds:tiny_many_labels", "train", root=str(tmp_path))
    assert [source[index]["label"] for index in range(3)] == [0, 1, 2]


def test_a_set_prepared_in_both_forms_is_read(tmp_path):
    """What `tfds convert_format` leaves when it writes beside the TFRecord files."""
    info = Path(prepared(tmp_path, TinyTrees)) / "dataset_info.json"
    content = json.loads(info.read_text())
    content |= {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    info.write_text(json.dumps(content))
    source = open_source("tfds:tiny_trees", "train", root=str(tmp_path))
    assert source[5]["image"] == png(5)


SCRIPT = """
import sys
from swin_jax.data.sources import open_source
source = open_source("tfds:tiny_trees", "train", root=sys.argv[1])
print(sum(source[index]["label"] for index in range(len(source))))
try:
    open_source("tfds:imagenet2012", "train", root=sys.argv[1])
except ValueError as error:
    print(error)
print(sorted(name for name in ("tensorflow", "jax") if name in sys.modules))
"""


def test_reading_takes_neither_tensorflow_nor_jax_nor_warnings(tmp_path):
    prepared(tmp_path, TinyTrees)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    total, refusal, imported = done.stdout.strip().splitlines()
    assert total == str(sum(index % len(CLASSES) for index in range(COUNTS["train"])))
    assert "tfds build imagenet2012" in refusal
    assert imported == "[]"
