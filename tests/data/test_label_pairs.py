"""Folders and zips of pictures with label maps, in the layouts people have."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.segmentation import SegmentationEval
from swin_jax.data.sources.semantic import open_semantic

SIZES = ((20, 30), (24, 24), (30, 20), (20, 30), (21, 31))


def write(root: Path, picture: str, label: str, count: int = 5, split: str = "train") -> None:
    """Pictures of several sizes whose label maps hold the values 1, 2 and 255."""
    generator = np.random.default_rng(0)
    for index in range(count):
        height, width = SIZES[index % len(SIZES)]
        for pattern, pixels in (
            (picture, generator.integers(0, 256, (height, width, 3))),
            (label, generator.choice([1, 2, 255], (height, width))),
        ):
            path = root / pattern.format(split=split, index=index)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)


def zipped(root: Path, inside: str = "") -> Path:
    path = root.parent / f"{root.name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, inside + str(file.relative_to(root)))
    return path


LAYOUTS = {
    "ade20k": ("images/{split}/{index}.jpg", "annotations/{split}/{index}.png"),
    "below": ("images/{split}/a/{index}.jpg", "labels/{split}/a/{index}.png"),
    "camvid": ("{split}/{index}.png", "{split}_labels/{index}_L.png"),
    "segnet": ("{split}/{index}.png", "{split}annot/{index}.png"),
    "cityscapes": (
        "leftImg8bit/{split}/bonn/{index}_leftImg8bit.png",
        "gtFine/{split}/bonn/{index}_gtFine_labelTrainIds.png",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_in_a_folder_and_in_a_zip(layout: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root, *LAYOUTS[layout])
    if layout != "cityscapes":
        (root / "classes.txt").write_text("void\nroad\nsky\n")
    sources = [
        open_semantic("label_pairs", "train", root=str(place))
        for place in (root, zipped(root), zipped(root, "top/"))
    ]
    for source in sources:
        assert len(source) == 5
        assert len(source.class_names) == (19 if layout == "cityscapes" else 2)
        rows = [SegmentationEval(scale=None)(source[index], np.random.default_rng()) for index in range(5)]
        assert [tuple(row["size"]) for row in rows] == list(SIZES)
        known = {1, 2} if layout == "cityscapes" else {0, 1}
        assert all(set(np.unique(row["semantic"])) == known | {255} for row in rows)
    assert sources[0].identity == f"label_pairs:set:train:{len(sources[0].class_names)} classes:5"


def test_ade20k_as_distributed(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    write(root, *LAYOUTS["ade20k"], split="training")
    for place in (root, zipped(root, "ADEChallengeData2016/")):
        source = open_semantic("ade20k", "training", root=str(place))
        assert source.class_names[:2] == ("wall", "building")
        assert set(np.unique(source[1]["semantic"].classes(SIZES[1], "x"))) == {0, 1, 255}


def test_a_prepared_archive_reads_the_same(tmp_path: Path) -> None:
    from swin_jax.data.sources import ade20k

    root = tmp_path / "ADEChallengeData2016"
    for split in ("training", "validation"):
        write(root, *LAYOUTS["ade20k"], split=split, count=3)
    name = ade20k.prepare(str(root), str(tmp_path / "tfds"))
    direct = open_semantic("ade20k", "validation", root=str(root))
    prepared = open_semantic(name, "validation", root=str(tmp_path / "tfds"))
    assert prepared.coding.palette == direct.coding.palette
    assert len(prepared) == 3
    for index in range(3):
        assert prepared[index]["image"] == direct[index]["image"]
        size = SIZES[index]
        np.testing.assert_array_equal(
            prepared[index]["semantic"].classes(size, "x"), direct[index]["semantic"].classes(size, "x")
        )
    with pytest.raises(ValueError, match="has no pictures with label maps of the split 'training'"):
        ade20k.prepare(str(tmp_path / "tfds"), str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda root: (root / "annotations/train/2.png").unlink(), "images/train/2.jpg has no label map"),
        (lambda root: (root / "images/train/2.jpg").unlink(), "annotations/train/2.png has no picture"),
        (
            lambda root: shutil.rmtree(root / "annotations"),
            "no pictures with label maps of the split 'train'",
        ),
        (lambda root: (root / "classes.txt").unlink(), "no list of classes; write classes.txt"),
        (
            lambda root: (root / "classes.txt").write_text("road\n"),
            "it has the value 1, 2 in .* the 1 classes have 0",
        ),
        (
            lambda root: (root / "annotations/train/2.bmp").write_bytes(b""),
            "differ in nothing but their suffix",
        ),
    ],
)
def test_what_is_missing_is_named(break_it, sentence: str, tmp_path: Path) -> None:
    write(tmp_path, *LAYOUTS["ade20k"])
    (tmp_path / "classes.txt").write_text("void\nroad\nsky\n")
    break_it(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        open_semantic("label_pairs", "train", root=str(tmp_path))


def test_a_label_map_of_another_size_is_named_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path, *LAYOUTS["ade20k"])
    (tmp_path / "classes.txt").write_text("void\nroad\nsky\n")
    out = io.BytesIO()
    Image.fromarray(np.ones((20, 29), np.uint8)).save(out, "PNG")
    (tmp_path / "annotations/train/3.png").write_bytes(out.getvalue())
    source = open_semantic("label_pairs", "train", root=str(tmp_path))
    with pytest.raises(
        UnreadablePicture,
        match=r"annotations/train/3.png .* 20 x 29 pixels and its picture .*3.jpg is 20 x 30",
    ):
        SegmentationEval()(source[3], np.random.default_rng())


@pytest.mark.parametrize(
    ("kind", "root", "sentence"),
    [
        ("folder", "/tmp", "the data source 'folder' has no label maps or is unknown"),
        ("ade20k", None, "needs its root"),
        (
            "label_pairs",
            "/none",
            "the data root '/none' does not exist; give a directory or zip with images/train",
        ),
    ],
)
def test_sources_that_are_not_there(kind: str, root: str | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_semantic(kind, "train", root=root)
