"""Data in COCO's format: what is read, what is left out, and what is refused."""

import copy
import io
import json
import logging
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.detection import DetectionEval, DetectionTrain
from swin_jax.data.detection_geometry import Augmentation
from swin_jax.data.sources import coco_records
from swin_jax.data.sources.instances import open_instances

SIZES = {12: (40, 60), 5: (60, 40), 30: (40, 48), 31: (24, 24)}  # image id -> height, width
POLYGON = [[10, 5, 30, 5, 30, 25, 10, 25], [35.5, 10, 45, 10, 40, 20]]


def whole(height: int, width: int) -> dict[str, Any]:
    """A crowd's run lengths as COCO writes them: a list of counts."""
    return {"size": [height, width], "counts": [0, height * width]}


def annotation(number: int, image: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": 18,
        "bbox": [10, 5, 35, 20],
        "area": 450.0,
        "iscrowd": 0,
        "segmentation": POLYGON,
        **fields,
    }


def content() -> dict[str, Any]:
    square = np.zeros((60, 40), np.uint8, order="F")
    square[10:30, 5:25] = 1
    text = coco_masks.encode(square)
    return {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "height": height, "width": width}
            for number, (height, width) in SIZES.items()
        ],
        "annotations": [
            annotation(101, 12),
            annotation(104, 12, category_id=3, iscrowd=1, segmentation=whole(40, 60), bbox=[0, 0, 60, 40]),
            annotation(
                102,
                5,
                bbox=[5, 10, 20, 20],
                segmentation={"size": [60, 40], "counts": text["counts"].decode()},
            ),
            annotation(103, 30, iscrowd=1, segmentation=whole(40, 48), bbox=[0, 0, 48, 40]),
            annotation(105, 31, bbox=[2, 2, 20, 20]),
            # Of no use: no area; no side of a pixel; outside.
            annotation(106, 12, area=0),
            annotation(107, 12, bbox=[3, 3, 0.5, 20]),
            annotation(108, 12, bbox=[70, 5, 10, 10]),
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 90, "name": "brush"}],
    }


def jpeg(height: int, width: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), height, np.uint8)).save(out, "JPEG")
    return out.getvalue()


def write(root: Path, made: dict[str, Any], annotations: str, pictures: str) -> None:
    (root / annotations).parent.mkdir(parents=True, exist_ok=True)
    (root / annotations).write_text(json.dumps(made))
    (root / pictures).mkdir(parents=True, exist_ok=True)
    for number, size in SIZES.items():
        (root / pictures / f"{number}.jpg").write_bytes(jpeg(*size))


@pytest.fixture
def official(tmp_path: Path) -> Path:
    write(tmp_path, content(), "annotations/instances_val2017.json", "val2017")
    return tmp_path


def test_training_leaves_out_crowds_small_pictures_and_what_has_no_area(
    official: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        source = open_instances("coco", "val", root=str(official), training=True)
    assert "3 annotations have no area" in caplog.text
    assert "id 106" in caplog.text
    assert [source[index]["image_id"] for index in range(len(source))] == [12, 5]
    found = source[0]["instances"]
    assert found.ids.tolist() == [101, 104]
    np.testing.assert_array_equal(found.boxes[0], [10, 5, 45, 25])
    assert found.labels.tolist() == [1, 0]  # by category id: car, dog, brush
    assert found.crowd.tolist() == [False, True]
    assert source.class_names == ("car", "dog", "brush")
    assert source.category_ids == (3, 18, 90)
    assert source.has_masks
    np.testing.assert_array_equal(source.sizes, [[40, 60], [60, 40]])
    assert open_instances("coco", "val2017[:1]", root=str(official), training=True).sizes.tolist() == [
        [40, 60]
    ]


def test_evaluation_keeps_every_picture_and_annotation(official: Path):
    source = open_instances("coco", "val2017", root=str(official))
    assert [source[index]["image_id"] for index in range(4)] == list(SIZES)
    truth = source.truth()
    assert sorted(one["id"] for one in truth["annotations"]) == list(range(101, 109))
    by_id = {one["id"]: one for one in truth["annotations"]}
    assert by_id[101]["segmentation"] == POLYGON
    assert by_id[101]["bbox"] == [10, 5, 35, 20]
    assert coco_masks.area(by_id[103]["segmentation"]) == 40 * 48
    assert [one["id"] for one in truth["images"]] == list(SIZES)
    assert truth["categories"][0] == {"id": 3, "name": "car"}


@pytest.mark.parametrize("runs", [False, True], ids=["polygons", "run lengths"])
def test_masks_are_where_their_annotations_are(official: Path, runs: bool):
    source = open_instances("coco", "val2017", root=str(official))
    found = source[int(runs)]["instances"]
    crop = found.mask_crops(100)[0]
    if runs:
        assert crop.all()  # the box is the object
    else:
        assert crop[:, :57].all()  # x from 10 to 30 of a box from 10 to 45
        assert not crop[:, 58:72].any()
        assert 0.4 < crop[25:75, 73:].mean() < 0.8


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "zip"])
@pytest.mark.parametrize(
    ("annotations", "pictures"),
    [
        ("annotations/instances_train.json", "train"),
        ("annotations/train.json", "images/train"),
        ("train.json", "images"),
        ("train/_annotations.coco.json", "train"),
        ("data/annotations/instances_train.json", "data/images"),
    ],
)
def test_exports_of_annotation_tools_are_found(annotations: str, pictures: str, packed: bool, tmp_path: Path):
    root = tmp_path / "set"
    write(root, content(), annotations, pictures)
    place = root
    if packed:
        place = tmp_path / "set.zip"
        with zipfile.ZipFile(place, "w") as archive:
            for file in sorted(root.rglob("*.*")):
                archive.write(file, file.relative_to(root))
    source = pickle.loads(pickle.dumps(open_instances("instances", "train", root=str(place))))
    assert len(source) == 4
    row = DetectionEval(scale=(64, 64))(source[2], np.random.default_rng(0))
    assert row["original_size"].tolist() == [40, 48]


def test_files_with_boxes_alone_have_no_masks(tmp_path: Path):
    made = content()
    for one in made["annotations"]:
        del one["segmentation"]
    write(tmp_path, made, "train.json", "train")
    source = open_instances("instances", "train", root=str(tmp_path))
    assert not source.has_masks
    assert source[0]["instances"].outlines is None
    assert "segmentation" not in source.truth()["annotations"][0]


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    made = copy.deepcopy(content())
    change(made)
    return made


def first(made: dict[str, Any], **fields: Any) -> None:
    made["annotations"][0].update(fields)


BROKEN = {
    "an unknown category": (
        lambda made: first(made, category_id=4),
        "annotation 101 has the category_id 4, which is not a category of the file",
    ),
    "an unknown image": (
        lambda made: first(made, image_id=99),
        "annotation 101 has the image_id 99, which is not an image of the file",
    ),
    "a box of three numbers": (
        lambda made: first(made, bbox=[1, 2, 3]),
        "annotation 101 has the bbox [1, 2, 3]; expected [x, y, width, height] in pixels",
    ),
    "a box of negative width": (lambda made: first(made, bbox=[1, 2, -3, 4]), "annotation 101 has the bbox"),
    "a polygon of an odd number": (
        lambda made: first(made, segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
        "annotation 101 has a polygon of 7 coordinates; expected x and y of at least 3 corners",
    ),
    "a polygon of two corners": (
        lambda made: first(made, segmentation=[[1, 2, 3, 4]]),
        "annotation 101 has a polygon of 4 coordinates",
    ),
    "a polygon of words": (
        lambda made: first(made, segmentation=[["a", 2, 3, 4, 5, 6]]),
        "annotation 101 has a polygon with coordinates that are no numbers",
    ),
    "runs that do not add up": (
        lambda made: first(made, segmentation={"size": [40, 60], "counts": [5, 6]}),
        "annotation 101 has run lengths that do not add up to 40 x 60 pixels",
    ),
    "compressed runs that do not add up": (
        lambda made: first(made, segmentation={"size": [40, 60], "counts": "52"}),
        "annotation 101 has run lengths that do not add up",
    ),
    "runs of another picture": (
        lambda made: first(made, segmentation={"size": [9, 9], "counts": [81]}),
        "annotation 101 has run lengths of size [9, 9], its image is 40 x 60",
    ),
    "a missing segmentation": (
        lambda made: made["annotations"][0].pop("segmentation"),
        "annotation 101 has no segmentation (1 of 8 have none); give all of them one, or none",
    ),
    "two annotations of one id": (lambda made: first(made, id=102), "two annotations have the id 102"),
    "two images of one id": (lambda made: made["images"][0].update(id=5), "two images have the id 5"),
    "two categories of one id": (
        lambda made: made["categories"][0].update(id=3),
        "two categories have the id 3",
    ),
    "two categories of one name": (
        lambda made: made["categories"][0].update(name="car"),
        "two categories are called 'car'",
    ),
    "an id that is a word": (
        lambda made: made["images"][0].update(id="x"),
        "image number 0 has the id 'x'; expected an integer",
    ),
    "an image without height": (
        lambda made: made["images"][0].pop("height"),
        "image 12 has the height None; expected integer",
    ),
    "no list of images": (
        lambda made: made.pop("images"),
        "is no COCO annotation file: it has no list 'images'",
    ),
    "no categories": (lambda made: made["categories"].clear(), "has no categories; name at least one"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_sentence_with_file_and_id(name: str, tmp_path: Path):
    change, sentence = BROKEN[name]
    write(tmp_path, changed(change), "annotations/instances_val2017.json", "val2017")
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        open_instances("coco", "val2017", root=str(tmp_path))
    assert "instances_val2017.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(official: Path):
    (official / "val2017" / "5.jpg").unlink()
    with pytest.raises(ValueError, match=r"val2017/5.jpg is missing: image 5 of .*instances_val2017.json"):
        open_instances("coco", "val2017", root=str(official))
    with pytest.raises(ValueError, match=r"has no split 'test': expected annotations/instances_test.json"):
        open_instances("coco", "test", root=str(official))
    with pytest.raises(ValueError, match="the data root '/nowhere' does not exist"):
        open_instances("coco", "val2017", root="/nowhere")
    with pytest.raises(ValueError, match="needs its root"):
        open_instances("coco", "val2017")
    with pytest.raises(ValueError, match="'imagenet' has no instances or is unknown; known: shapes/easy"):
        open_instances("imagenet", "val")
    (official / "annotations" / "instances_val2017.json").write_text("{")
    with pytest.raises(ValueError, match=r"instances_val2017.json is no JSON"):
        open_instances("coco", "val2017", root=str(official))


def test_a_picture_of_another_size_than_annotated_is_named(official: Path):
    (official / "val2017" / "12.jpg").write_bytes(jpeg(41, 60))
    source = open_instances("coco", "val2017", root=str(official))
    with pytest.raises(UnreadablePicture, match=r"12.jpg .* it is 41 x 60 pixels, annotated as 40 x 60"):
        DetectionEval(scale=(64, 64))(source[0], np.random.default_rng(0))


def test_a_prepared_set_gives_the_same_records(official: Path, tmp_path: Path):
    name = coco_records.prepare(str(official), ["val2017"], str(tmp_path / "tfds"))
    for training in (False, True):
        ours = open_instances("coco", "val2017", root=str(official), training=training)
        theirs = open_instances(name, "val2017", root=str(tmp_path / "tfds"), training=training)
        assert theirs.class_names == ours.class_names
        assert theirs.truth() == ours.truth()
        np.testing.assert_array_equal(theirs.sizes, ours.sizes)
        for index in range(len(ours)):
            assert theirs[index]["image"] == ours[index]["image"]
            np.testing.assert_array_equal(
                theirs[index]["instances"].mask_crops(20), ours[index]["instances"].mask_crops(20)
            )
    with pytest.raises(ValueError, match="has no split 'train2017'"):
        open_instances(name, "train2017", root=str(tmp_path / "tfds"))


def test_the_fingerprint_sees_an_annotation(official: Path):
    before = open_instances("coco", "val2017", root=str(official)).fingerprint
    made = changed(lambda made: first(made, bbox=[10, 5, 35, 21]))
    (official / "annotations" / "instances_val2017.json").write_text(json.dumps(made))
    assert open_instances("coco", "val2017", root=str(official)).fingerprint != before


def label_map(number: int) -> np.ndarray:
    """Classes from 0 to 182, and some that are ignored."""
    values = np.random.RandomState(number).randint(0, 184, SIZES[number]).astype(np.uint8)
    return np.where(values == 183, 255, values).astype(np.uint8)


def png(pixels: np.ndarray, *, palette: bool = False) -> bytes:
    out, picture = io.BytesIO(), Image.fromarray(pixels)
    if palette:
        picture.putpalette(list(range(255, -1, -1)) * 3)
    picture.save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def stuff(official: Path) -> Path:
    """The folder of the label maps."""
    folder = official / "stuffthingmaps" / "val2017"
    folder.mkdir(parents=True)
    for number in SIZES:
        (folder / f"{number}.png").write_bytes(png(label_map(number)))
    return folder


def zipped(root: Path, place: Path, top: str = "") -> Path:
    with zipfile.ZipFile(place, "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, top / file.relative_to(root))
    return place


def opened(root: Path, **options: Any) -> Any:
    return open_instances("coco", "val2017", root=str(root), semantic=True, **options)


def found_map(source: Any, index: int) -> np.ndarray:
    record = source[index]
    return record["semantic"].classes(tuple(record["size"].tolist()), record["name"])


@pytest.mark.parametrize("top", [None, "", "coco"], ids=["directory", "zip", "zip with a folder around"])
def test_label_maps_come_along_when_asked_for(top: str | None, stuff: Path, tmp_path_factory: Any):
    root = official = stuff.parents[1]
    if top is not None:
        root = zipped(official, tmp_path_factory.mktemp("packed") / official.name, top)
    for training, ids in ((False, list(SIZES)), (True, [12, 5])):
        source = pickle.loads(pickle.dumps(opened(root, training=training)))
        assert source.semantic_classes == 183
        for index, number in enumerate(ids):
            np.testing.assert_array_equal(found_map(source, index), label_map(number))
    assert opened(root).fingerprint == opened(official).fingerprint


def test_who_does_not_ask_for_label_maps_notices_nothing_of_them(official: Path, stuff: Path):
    with_maps = opened(official).fingerprint
    (stuff / "5.png").unlink()
    source = open_instances("coco", "val2017", root=str(official))
    assert source.semantic_classes == 0
    assert "semantic" not in source[0]
    without = source.fingerprint
    for file in stuff.iterdir():
        file.unlink()
    stuff.rmdir()
    asked = opened(official)
    assert asked.semantic_classes == 0
    assert "semantic" not in asked[0]
    assert asked.fingerprint == without != with_maps


def test_the_fingerprint_sees_a_label_map(official: Path, stuff: Path):
    before = opened(official).fingerprint
    (stuff / "12.png").write_bytes(png(255 - label_map(12)))
    assert opened(official).fingerprint != before


def test_a_missing_label_map_is_named_with_how_many_others(official: Path, stuff: Path):
    for number in (5, 31):
        (stuff / f"{number}.png").unlink()
    sentence = (
        r"stuffthingmaps/val2017/5.png is missing: the label map of image 5 of "
        r"\S*instances_val2017.json; so are 1 others$"
    )
    with pytest.raises(ValueError, match=sentence):
        opened(official)


ODD_MAPS = {
    "of another size": (
        png(np.zeros((40, 61), np.uint8)),
        r"it is 40 x 61 pixels and its picture \S*val2017/12.jpg is 40 x 60$",
    ),
    "of a picture that was turned": (png(np.zeros((60, 40), np.uint8)), r"is 40 x 60 \(turned by 90 degrees"),
    "of colours": (
        png(np.random.RandomState(0).randint(0, 255, (40, 60, 3)).astype(np.uint8)),
        "it has three channels of different values",
    ),
    "of 16 bits": (png(np.full((40, 60), 300, np.uint16)), "it has the value 300 in 2400 of 2400 pixels"),
    "with a value of no class": (
        png(np.full((40, 60), 183, np.uint8)),
        "it has the value 183 in 2400 of 2400 pixels; the 183 classes have 0 to 182, and 255 is ignored$",
    ),
    "that is a JPEG": (jpeg(40, 60), "a JPEG file does not keep values as they are"),
    "that is cut off": (png(label_map(12))[:500], "truncated"),
}


@pytest.mark.parametrize("name", ODD_MAPS)
def test_an_odd_label_map_is_one_sentence_with_its_file(name: str, official: Path, stuff: Path):
    data, sentence = ODD_MAPS[name]
    (stuff / "12.png").write_bytes(data)
    example = DetectionTrain(Augmentation(), semantic_stride=8)
    with pytest.raises(UnreadablePicture, match=sentence) as caught:
        example(opened(official)[0], np.random.default_rng(0))
    assert str(caught.value).startswith(f"{stuff / '12.png'} cannot be read as a label map: ")
    assert "\n" not in str(caught.value)


def test_a_palette_changes_nothing_of_a_label_map(official: Path, stuff: Path):
    (stuff / "12.png").write_bytes(png(label_map(12), palette=True))
    np.testing.assert_array_equal(found_map(opened(official), 0), label_map(12))


def test_a_prepared_set_gives_the_same_label_maps(official: Path, stuff: Path, tmp_path: Path):
    root = str(tmp_path / "tfds")
    name = coco_records.prepare(str(official), ["val2017"], root)
    for training in (False, True):
        ours = opened(official, training=training)
        theirs = open_instances(name, "val2017", root=root, training=training, semantic=True)
        assert theirs.semantic_classes == 183
        for index in range(len(ours)):
            assert theirs[index]["image"] == ours[index]["image"]
            assert theirs[index]["semantic"].data == ours[index]["semantic"].data
            np.testing.assert_array_equal(found_map(theirs, index), found_map(ours, index))
    plain = open_instances(name, "val2017", root=root, training=True)
    assert plain.semantic_classes == 0
    assert "semantic" not in plain[0]
    assert plain.fingerprint != theirs.fingerprint


def test_a_set_prepared_without_label_maps_says_so(official: Path, tmp_path: Path, request: Any):
    root = str(tmp_path / "tfds")
    name = coco_records.prepare(str(official), ["val2017"], root)
    source = open_instances(name, "val2017", root=root, semantic=True)
    assert source.semantic_classes == 0
    assert "semantic" not in source[0]
    assert source.fingerprint == open_instances(name, "val2017", root=root).fingerprint
    request.getfixturevalue("stuff")  # now they are there, and the set stays as it was
    with pytest.raises(
        ValueError, match=r"coco_records/1.0.0 was prepared before, without the label maps of val2017"
    ):
        coco_records.prepare(str(official), ["val2017"], root)
