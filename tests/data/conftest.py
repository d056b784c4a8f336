"""Small picture sets on disk, for all tests of the data."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("ant", "bee", "cat")
PER_CLASS = {"train": 7, "val": 3}


def jpeg(value: int) -> bytes:
    """A grey picture of its own size and shade."""
    out = io.BytesIO()
    Image.fromarray(np.full((24 + value % 9, 30 - value % 7, 3), 20 + 8 * value, np.uint8)).save(out, "JPEG")
    return out.getvalue()


def write_pictures(root: Path) -> None:
    value = 0
    for split, count in PER_CLASS.items():
        for name in CLASSES:
            for number in range(count):
                # Every third lies in a folder below its class.
                place = root / split / name / ("more" if number % 3 == 2 else ".")
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{number:02}.jpg").write_bytes(jpeg(value))
                value += 1


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of its own with 21 training and 9 validation pictures of 3 classes."""
    write_pictures(tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.fixture(scope="session")
def shared_pictures(tmp_path_factory) -> Path:
    """The same, for tests that leave it as it is."""
    root = tmp_path_factory.mktemp("shared") / "pictures"
    write_pictures(root)
    return root


@pytest.fixture
def zipped(pictures) -> Path:
    """`pictures` as a zip: some files stored, some deflated."""
    path = pictures.parent / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, file in enumerate(sorted(pictures.rglob("*.jpg"))):
            kind = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            archive.write(file, file.relative_to(pictures), kind)
    return path
