"""List files: JSON and plain lines, beside the pictures or beside a zip, and what is refused."""

import json
import logging
import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.sources import listed as module
from swin_jax.data.sources import open_source
from swin_jax.data.sources.files import Strings
from tests.data.conftest import jpeg

ENTRIES = {  # split -> (path, label); wnids numbered in another order than that of their names
    "train": [("n03/a.jpg", 0), ("n01/b.jpg", 1), ("n03/c.jpg", 0), ("n02/d e.jpg", 2)],
    "val": [("n02/x.jpg", 2), ("n03/y.jpg", 0)],
}
FORMS = {
    "tab": lambda entries: "".join(f"{path}\t{label}\n" for path, label in entries),
    "space": lambda entries: "\n".join(f"{path} {label}" for path, label in entries) + "\n\n",
    "json": lambda entries: json.dumps([list(entry) for entry in entries]),
    "json over lines": lambda entries: json.dumps([list(entry) for entry in entries], indent=1) + "\n",
}


def write(root: Path, entries: dict[str, list[tuple[str, int]]], name: str, form: str = "tab") -> None:
    for split, pairs in entries.items():
        (root / name.format(split)).write_text(FORMS[form](pairs))


def write_pictures(root: Path, entries: dict[str, list[tuple[str, int]]]) -> None:
    for number, (path, _) in enumerate(pair for pairs in entries.values() for pair in pairs):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(jpeg(number))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pictures(tmp_path, ENTRIES)
    write(tmp_path, ENTRIES, "{}.txt")
    return tmp_path


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    number = 0
    for split, pairs in ENTRIES.items():
        with zipfile.ZipFile(tmp_path / f"{split}.zip", "w") as archive:
            for path, _ in reversed(pairs):
                archive.writestr(path, jpeg(number))
                number += 1
    write(tmp_path, ENTRIES, "{}_map.txt")
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_say_the_same(root: Path, form: str) -> None:
    write(root, ENTRIES, "{}.txt", form)
    for split, pairs in ENTRIES.items():
        source = open_source("list", split, root=str(root))
        assert source.class_names == ("n03", "n01", "n02")
        records = [source[index] for index in range(len(source))]
        assert [(record["name"], record["label"]) for record in records] == [
            (str(root / path), label) for path, label in pairs
        ]
        assert records[0]["image"] == (root / pairs[0][0]).read_bytes()
        assert source.identity == f"list:{root.name}:{split}:3 classes:{len(pairs)}"


def test_paths_may_begin_at_the_folder_of_the_split(tmp_path: Path) -> None:
    for split, pairs in ENTRIES.items():
        write_pictures(tmp_path / split, {split: pairs})
    write(tmp_path, ENTRIES, "{}.txt")
    assert open_source("list", "val", root=str(tmp_path))[1]["name"] == str(
        tmp_path / "val" / "n03" / "y.jpg"
    )


def test_a_zip_with_its_map(zipped: Path) -> None:
    source = open_source("zip_map", "train", root=str(zipped))
    assert source.class_names == ("n03", "n01", "n02")
    assert [(source[i]["image"], source[i]["label"]) for i in range(4)] == [
        (jpeg(3 - i), label) for i, (_, label) in enumerate(ENTRIES["train"])
    ]
    assert source[3]["name"] == str(zipped / "train.zip" / "n02" / "d e.jpg")
    assert (
        open_source("zip_map", "val", root=str(zipped)).identity == f"zip_map:{zipped.name}:val:3 classes:2"
    )


@pytest.mark.parametrize("kind", ["list", "zip_map"])
def test_a_source_travels(kind: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue("root" if kind == "list" else "zipped")
    source = open_source(kind, "train", root=str(root))
    packed = pickle.dumps(source)
    assert len(packed) < 3000
    assert [pickle.loads(packed)[i] for i in range(4)] == [source[i] for i in range(4)]


def test_imagenet_22k_has_its_classes_and_folds_two_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Numbers 21841 and 21842 of the raw lists are the classes 9205 and 15027 for a second time."""
    entries = {
        "train": [("n10/a.jpg", 9205), ("n11/b.jpg", 21841), ("n12/c.jpg", 21842), ("n13/d.jpg", 0)],
        "val": [("n14/e.jpg", 21840)],
    }
    write_pictures(tmp_path, entries)
    write(tmp_path, entries, "ILSVRC2011fall_whole_map_{}.txt", "json")
    with caplog.at_level(logging.WARNING):
        source = open_source("list", "train", root=str(tmp_path))
    assert [source[i]["label"] for i in range(4)] == [9205, 9205, 15027, 0]
    assert len(source.class_names) == len(set(source.class_names)) == 21841
    assert (source.class_names[9205], source.class_names[0]) == ("n10", "n13")
    assert source.class_names[15027] == "15027"  # nothing but the second number is here
    assert "has no pictures of 21838 classes, e.g. number 1" in caplog.text
    assert open_source("list", "val", root=str(tmp_path))[0]["label"] == 21840
    write(tmp_path, {"val": [("n14/e.jpg", 21843)]}, "ILSVRC2011fall_whole_map_{}.txt", "json")
    with pytest.raises(
        ValueError, match=r"'n14/e\.jpg' \(entry 1\) the label 21843; there are 21841 classes"
    ):
        open_source("list", "val", root=str(tmp_path))


@pytest.mark.parametrize(
    "entries",
    [
        [("n1/a.jpg", 0), ("n1/b.jpg", 1)],  # one folder, two classes
        [("n1/a.jpg", 0), ("n2/b.jpg", 0), ("n3/c.jpg", 1)],  # two folders, one class
        [("a.jpg", 0), ("b.jpg", 1)],  # no folders
    ],
)
def test_classes_are_numbers_where_folders_do_not_tell_them(
    tmp_path: Path, entries: list[tuple[str, int]]
) -> None:
    write_pictures(tmp_path, {"train": entries})
    write(tmp_path, {"train": entries}, "{}.txt")
    assert open_source("list", "train", root=str(tmp_path)).class_names == ("0", "1")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.txt", "n03/a.jpg\t0\nn01/b.jpg one\n", r"line 2 of .*train\.txt is 'n01/b\.jpg one'; expected a path"),
        ("train.txt", "n03/a.jpg\n", r"line 1 of .*train\.txt is 'n03/a\.jpg'"),
        ("train.txt", "n03/a.jpg -1\n", "line 1 of .* a label from 0 on"),
        ("train.txt", '[["n03/a.jpg", 0], ["n01/b.jpg", "1"]]', r"entry 2 of .* is '\[\"n01/b\.jpg\", \"1\"\]'"),
        ("train.txt", '[["n03/a.jpg", 0], ["n01/b.jpg"]]', "entry 2 of .*expected \\[path, label\\]"),
        ("train.txt", '[["n03/a.jpg", 0], ["n01/b', "entry 2 of .*expected \\[path, label\\]"),
        ("train.txt", "", r"train\.txt lists no pictures"),
        ("train.txt", "[]", r"train\.txt lists no pictures"),
        ("train.txt", "n03/a.jpg 7\n", "has the label 7, but names only 1 pictures; number the classes from 0"),
        ("train.txt", "n03/a.jpg 0\nn9/none.jpg 1\n", r"names 'n9/none\.jpg' \(entry 2\), but no such file is in"),
        ("val.txt", "n02/x.jpg 2\nn03/y.jpg 3\n", r"'n03/y\.jpg' \(entry 2\) the label 3; there are 3 classes, 0 to 2"),
        ("val_map.txt", "n02/x.jpg 2\n", r"several lists of the split 'val': val\.txt, val_map\.txt; keep one"),
    ],
)  # fmt: skip
def test_bad_lists_are_refused(root: Path, name: str, text: str, message: str) -> None:
    (root / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        open_source("list", "val" if name.startswith("val") else "train", root=str(root))
    assert "\n" not in str(caught.value)


def test_missing_lists_and_roots_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"no list of the split 'test': expected test\.txt or test_map\.txt or ILSVRC2011fall_whole_map_test"
        r"\.txt; its \.txt files are train\.txt, val\.txt",
    ):
        open_source("list", "test", root=str(root))
    with pytest.raises(ValueError, match=r"'.*nowhere' is not a directory"):
        open_source("list", "train", root=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="a zip_map needs its root"):
        open_source("zip_map", "train")
    (root / "train.txt").unlink()
    with pytest.raises(ValueError, match=r"no list of the split 'train'"):
        open_source("list", "val", root=str(root))


def test_zips_that_do_not_fit_are_refused(zipped: Path) -> None:
    with (zipped / "train_map.txt").open("a") as file:
        file.write("n03/lost.jpg\t0\nn03/gone.jpg\t0\n")
    with pytest.raises(
        ValueError, match=r"names 'n03/lost\.jpg' \(entry 5\), which is not in .*train\.zip \(2 such in all\)"
    ):
        open_source("zip_map", "train", root=str(zipped))
    (zipped / "val.zip").unlink()
    with pytest.raises(
        ValueError, match=r"val\.zip is missing: it should hold the pictures of .*val_map\.txt"
    ):
        open_source("zip_map", "val", root=str(zipped))


def test_a_file_that_vanished_is_named(root: Path) -> None:
    source = open_source("list", "train", root=str(root))
    (root / "n01" / "b.jpg").unlink()
    with pytest.raises(UnreadablePicture, match=r"n01/b\.jpg cannot be read as a picture: No such file"):
        source[1]


def test_a_changed_list_is_read_again(root: Path) -> None:
    assert len(open_source("list", "val", root=str(root))) == 2
    (root / "val.txt").write_text("n02/x.jpg 2\n")
    assert len(open_source("list", "val", root=str(root))) == 1


def test_a_json_list_is_the_same_in_pieces_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    pairs = [
        ("".join(draw.choices('ab],["\\ é', k=draw.randrange(1, 9))), draw.randrange(2000))
        for _ in range(200)
    ]
    path = tmp_path / "list.txt"
    path.write_text(json.dumps(pairs))
    for size in (90, 97, 1000):
        monkeypatch.setattr(module, "JSON_PIECE", size)
        with path.open() as file:
            assert list(module._json_pairs(file, str(path))) == pairs


def test_strings_are_compact() -> None:
    texts = ["", "é", os.fsdecode(b"\xff/a"), "b" * 100]
    strings = Strings(texts)
    assert list(strings) == texts
    assert strings[-1] == texts[-1]
    many = Strings(f"n{i:08}/{i}.JPEG" for i in range(10_000))
    packed = len(pickle.dumps(many))
    assert packed == pytest.approx(sum(len(text) + 8 for text in many), rel=0.01)
    assert many.joined.dtype == np.uint8
