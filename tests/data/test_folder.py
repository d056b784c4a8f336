"""Folders and zips of pictures: what is found, how it is labelled, and what is refused."""

import logging
import pickle
import shutil
import threading
import zipfile

import pytest

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.sources import open_source
from swin_jax.data.sources.files import Files, Subset


def test_classes_are_sorted_and_nested_pictures_found(pictures):
    source = open_source("folder", "train", root=str(pictures))
    assert source.class_names == ("ant", "bee", "cat")
    assert len(source) == 21
    records = [source[index] for index in range(21)]
    assert [record["label"] for record in records] == [0] * 7 + [1] * 7 + [2] * 7
    assert records[0]["name"] == str(pictures / "train" / "ant" / "00.jpg")
    assert records[6]["name"] == str(pictures / "train" / "ant" / "more" / "05.jpg")
    assert records[6]["image"] == (pictures / "train" / "ant" / "more" / "05.jpg").read_bytes()
    assert source.identity == "folder:pictures:train:3 classes:21"


def test_a_zip_holds_the_same_as_its_folder(pictures, zipped):
    for split in ("train", "val"):
        folder, archive = (open_source("folder", split, root=str(root)) for root in (pictures, zipped))
        assert archive.class_names == folder.class_names
        assert len(archive) == len(folder)
        for index in range(len(folder)):
            one, other = folder[index], archive[index]
            assert (one["image"], one["label"]) == (other["image"], other["label"])
        assert archive[0]["name"] == f"{zipped}/{split}/ant/00.jpg"


def test_a_fingerprint_is_that_of_the_pictures_wherever_they_lie(pictures, zipped, tmp_path):
    def fingerprint(root) -> str:
        return open_source("folder", "train", root=str(root)).fingerprint

    first = fingerprint(pictures)
    assert fingerprint(zipped) == first
    assert fingerprint(shutil.copytree(pictures, tmp_path / "elsewhere")) == first
    assert open_source("folder", "val", root=str(pictures)).fingerprint != first
    source = open_source("folder", "train", root=str(pictures))
    assert Subset(source, (0, 1)).fingerprint != Subset(source, (1, 0)).fingerprint
    file = pictures / "train" / "bee" / "03.jpg"
    seen = [first]
    file.write_bytes(file.read_bytes() + b"x")  # another size
    seen.append(fingerprint(pictures))
    file.rename(pictures / "train" / "bee" / "003.jpg")  # another name
    seen.append(fingerprint(pictures))
    (pictures / "train" / "bee" / "003.jpg").rename(pictures / "train" / "ant" / "003.jpg")  # another label
    seen.append(fingerprint(pictures))
    (pictures / "train" / "cat").rename(pictures / "train" / "dog")  # another class of the same pictures
    seen.append(fingerprint(pictures))
    assert len(set(seen)) == 5


def test_sources_travel_and_are_read_by_many_threads(zipped):
    source = open_source("folder", "train", root=str(zipped))
    expected = [source[index]["image"] for index in range(21)]
    copy = pickle.loads(pickle.dumps(source))
    del source
    wrong = []

    def read_all() -> None:
        wrong.extend(index for index in list(range(21)) * 20 if copy[index]["image"] != expected[index])

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_no_picture_is_left_out(pictures):
    for name in ("notes.txt", ".hidden.jpg", "thumbs.db"):
        (pictures / "train" / "ant" / name).write_text("x")
    (pictures / "train" / "readme.jpg").write_text("x")
    (pictures / "train" / ".cache").mkdir()
    shutil.copy(pictures / "train" / "ant" / "00.jpg", pictures / "train" / "ant" / "capital.JPEG")
    source = open_source("folder", "train", root=str(pictures))
    assert source.class_names == ("ant", "bee", "cat")
    assert len(source) == 22


def test_links_are_followed_but_not_in_circles(pictures, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(pictures / "train" / "ant" / "00.jpg", tmp_path / "elsewhere")
    (pictures / "train" / "ant" / "linked").symlink_to(tmp_path / "elsewhere")
    (pictures / "train" / "ant" / "circle").symlink_to(pictures / "train")
    assert len(open_source("folder", "train", root=str(pictures))) == 22


def test_a_class_may_be_missing_in_validation(pictures, caplog):
    shutil.rmtree(pictures / "val" / "bee")
    with caplog.at_level(logging.WARNING):
        source = open_source("folder", "val", root=str(pictures))
    assert source.class_names == ("ant", "bee", "cat")
    assert {source[index]["label"] for index in range(len(source))} == {0, 2}
    assert "val/ has no pictures of 1 classes, e.g. bee" in caplog.text


def test_a_class_only_in_validation_is_refused(pictures, zipped):
    (pictures / "val" / "dog").mkdir()
    shutil.copy(pictures / "val" / "ant" / "00.jpg", pictures / "val" / "dog")
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.write(pictures / "val" / "dog" / "00.jpg", "val/dog/00.jpg")
    for root in (pictures, zipped):
        with pytest.raises(
            ValueError, match=r"class folder 'dog' in val/ but not in train/ \(1 such in all\)"
        ):
            open_source("folder", "val", root=str(root))


def test_missing_and_empty_roots_are_refused(tmp_path, pictures):
    with pytest.raises(ValueError, match=r"data root '.*nowhere' does not exist"):
        open_source("folder", "train", root=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="needs its root"):
        open_source("folder", "train", root=None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"no class folders in train/: expected train/<class>/<pictures>, found none"
    ):
        open_source("folder", "train", root=str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"no class folders in test/: .*, found the folders train, val"):
        open_source("folder", "test", root=str(pictures))
    (tmp_path / "hollow" / "train" / "ant").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"no pictures in the class folders of train/: expected files ending in \.jpg"
    ):
        open_source("folder", "train", root=str(tmp_path / "hollow"))
    (tmp_path / "pictures.tar").write_text("x")
    with pytest.raises(ValueError, match=r"pictures\.tar' is neither a directory nor a zip"):
        open_source("folder", "train", root=str(tmp_path / "pictures.tar"))


def test_an_encrypted_zip_is_refused(zipped):
    data = bytearray(zipped.read_bytes())
    entry = data.index(b"PK\x01\x02")  # the first file of the directory at the end
    data[entry + 8] |= 1
    zipped.write_bytes(data)
    with pytest.raises(ValueError, match=r"holds train/ant/00\.jpg encrypted"):
        open_source("folder", "train", root=str(zipped))


def test_damage_in_a_zip_is_named(zipped):
    source = open_source("folder", "train", root=str(zipped))
    with zipfile.ZipFile(zipped) as archive:
        entry = archive.getinfo("train/bee/00.jpg")
    data = bytearray(zipped.read_bytes())
    data[entry.header_offset + 30 + len(entry.filename) + 100] ^= 0xFF
    zipped.write_bytes(data)
    with pytest.raises(
        UnreadablePicture, match=r"train/bee/00\.jpg cannot be read .*: the zip is damaged there"
    ):
        source[7]
    assert source[8]["label"] == 1


def test_a_file_that_vanished_is_named(pictures):
    source = open_source("folder", "train", root=str(pictures))
    (pictures / "train" / "bee" / "00.jpg").unlink()
    with pytest.raises(UnreadablePicture, match=r"bee/00\.jpg cannot be read as a picture: No such file"):
        source[7]


def test_files_and_subsets(pictures):
    paths = [str(path) for path in sorted((pictures / "val" / "cat").rglob("*.jpg"))]
    files = Files(paths)
    assert len(files) == 3
    assert files[1]["name"] == paths[1]
    assert files[1]["label"] == -1
    source = open_source("folder", "val", root=str(pictures))
    part = Subset(source, (8, 0))
    assert [part[0]["label"], part[1]["label"], len(part)] == [2, 0, 2]
    assert part.class_names == source.class_names


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="data source 'imagenet' is unknown; known: shapes/easy"):
        open_source("imagenet", "train", root=None)
