"""What label files mean: class numbers, ignored values, colours, and what cannot be."""

import io

import numpy as np
import pytest
from PIL import Image

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.labels import LabelCoding, LabelMap, default_palette, parse_classes
from swin_jax.data.sources.label_pairs import ade20k_coding, cityscapes_coding

COLOURED = "void, 0, 0, 0\nroad, 128, 64, 128\nsky, 70, 130, 180\n"


def file(pixels: np.ndarray, kind: str = "PNG", palette: list[int] | None = None) -> bytes:
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(palette)
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


def test_ade20k_is_the_benchmarks() -> None:
    coding = ade20k_coding()
    assert len(coding.class_names) == 150
    assert (coding.class_names[0], coding.class_names[149]) == ("wall", "flag")
    assert (coding.class_names[12], coding.palette[12]) == ("person", (150, 5, 61))
    stored = np.arange(151, dtype=np.uint8).reshape(1, -1)
    expected = np.concatenate([[255], np.arange(150)])[None]
    np.testing.assert_array_equal(coding.decode(file(stored), "x.png"), expected)
    np.testing.assert_array_equal(coding.encode(np.arange(150, dtype=np.uint8)), np.arange(1, 151))
    with pytest.raises(
        UnreadablePicture, match=r"^x.png cannot be read as a label map: it has the value 151 in 1 of 2"
    ):
        coding.decode(file(np.asarray([[151, 3]], np.uint8)), "x.png")


def test_values_and_colours_of_a_list_of_classes() -> None:
    coding = parse_classes(COLOURED, "classes.txt")
    assert coding.class_names == ("road", "sky")
    assert coding.palette == ((128, 64, 128), (70, 130, 180))
    values = np.asarray([[0, 1, 2, 255]], np.uint8)
    expected = [[255, 0, 1, 255]]
    np.testing.assert_array_equal(coding.decode(file(values), "x"), expected)
    colours = np.asarray([[[0, 0, 0], [128, 64, 128], [70, 130, 180], [0, 0, 0]]], np.uint8)
    np.testing.assert_array_equal(coding.decode(file(colours), "x"), expected)
    with pytest.raises(UnreadablePicture, match=r"the colour \(1, 2, 3\) in 1 of 1 pixels"):
        coding.decode(file(np.asarray([[[1, 2, 3]]], np.uint8)), "x")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("road\nsky\n", ("road", "sky")),
        ("# a comment\n\nroad\n  traffic light \n", ("road", "traffic light")),
        ("name,r,g,b\nAnimal,64,128,64\nVoid,0,0,0\nSky,1,2,3", ("Animal", "Sky")),  # class_dict.csv
        ("64 128 64\tAnimal\n192 0 128\tArchway", ("Animal", "Archway")),  # label_colors.txt
    ],
)
def test_lists_of_classes(text: str, names: tuple[str, ...]) -> None:
    assert parse_classes(text, "list").class_names == names


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no class"),
        ("void\n", "names no class"),
        ("road, 1, 2, 3\nsky\n", "gives some classes a colour, but sky none"),
        ("road\nroad\n", "the class 'road' is listed twice"),
        ("road, 1, 2, 300", "a colour beyond 255"),
        ("\n".join(f"c{number}" for number in range(256)), "256 classes; expected 1 to 255"),
    ],
)
def test_lists_of_classes_that_cannot_be(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_classes(text, "list")


def test_palette_files_hold_indices_not_colours() -> None:
    coding = parse_classes("road\nsky\n", "list")
    pixels = np.asarray([[0, 1, 255]], np.uint8)
    data = file(pixels, palette=[9, 9, 9, 200, 0, 0] + [0] * 762)
    np.testing.assert_array_equal(coding.decode(data, "x"), pixels)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            file(np.zeros((2, 2, 3), np.uint8) + np.arange(3, dtype=np.uint8)),
            "three channels of different values",
        ),
        (file(np.zeros((8, 8), np.uint8), "JPEG"), "a JPEG file does not keep values"),
        (file(np.zeros((2, 2), np.float32), "TIFF"), "of the kind F"),
        (b"", "it is empty"),
        (b"no picture", "not in a known picture format"),
        (file(np.zeros((64, 64), np.uint8))[:-30], "cannot be read as a label map"),
        (file(np.full((2, 2), 300, np.uint16)), "the value 300 in 4 of 4 pixels; the 2 classes have 0, 1"),
    ],
)
def test_files_that_are_no_label_maps(data: bytes, sentence: str) -> None:
    with pytest.raises(UnreadablePicture, match=sentence):
        parse_classes("road\nsky\n", "list").decode(data, "labels/x.png")


def test_grey_stored_in_three_channels_is_grey() -> None:
    pixels = np.repeat(np.asarray([[[0], [1]]], np.uint8), 3, axis=-1)
    np.testing.assert_array_equal(parse_classes("road\nsky", "list").decode(file(pixels), "x"), [[0, 1]])


def test_cityscapes_values() -> None:
    ids = np.asarray([[0, 7, 8, 33, 29, 255]], np.uint8)
    np.testing.assert_array_equal(
        cityscapes_coding(label_ids=True).decode(file(ids), "x"), [[255, 0, 1, 18, 255, 255]]
    )
    coding = cityscapes_coding(label_ids=False)
    assert len(coding.class_names) == 19
    np.testing.assert_array_equal(coding.decode(file(ids[:, [1, 5]]), "x"), [[7, 255]])
    assert coding.palette[13] == (0, 0, 142)


def test_a_map_of_another_size_than_its_picture_is_named() -> None:
    labels = LabelMap(file(np.zeros((3, 5), np.uint8)), parse_classes("road", "list"), "labels/x.png")
    np.testing.assert_array_equal(labels.classes((3, 5), "x.jpg"), np.zeros((3, 5)))
    with pytest.raises(
        UnreadablePicture, match=r"labels/x.png .* 3 x 5 pixels and its picture x.jpg is 5 x 3 \(turned"
    ):
        labels.classes((5, 3), "x.jpg")


def test_a_coding_survives_json() -> None:
    import json

    for coding in (parse_classes(COLOURED, "x"), ade20k_coding(), cityscapes_coding(label_ids=True)):
        assert LabelCoding.from_json(json.loads(json.dumps(coding.to_json()))) == coding


def test_the_default_palette_is_pascals() -> None:
    assert default_palette(4) == ((128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert len(set(default_palette(255))) == 255
