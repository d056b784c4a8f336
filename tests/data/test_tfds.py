"""tfds sets in ArrayRecord form are read without TensorFlow; any other state is told with the command that mends it."""

import io
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from swin_jax.data.decode import UnreadablePicture, decode_picture
from swin_jax.data.sources import open_source


class Flowers(tfds.core.GeneratorBasedBuilder):
    """Made as imagenet2012 is: a picture, a class, a file name. Labels below 0 where they are secret."""

    VERSION = tfds.core.Version("2.0.1")
    url_infos = {}  # noqa: RUF012

    def _info(self):
        features = {
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=["rose", "tulip"]),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(10),
            "validation": self._generate_examples(4),
            "test": self._generate_examples(3, -1),
        }

    def _generate_examples(self, count, label=None):
        for index in range(count):
            picture = {"image": io.BytesIO(jpeg(index)), "file_name": f"n{index:03}.JPEG"}
            yield index, picture | {"label": index % 2 if label is None else label}


class Sounds(tfds.core.GeneratorBasedBuilder):
    """No picture."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = {}  # noqa: RUF012

    def _info(self):
        features = {
            "wave": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"wave": np.zeros(3, np.float32), "label": 0}


def jpeg(shade: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), 10 * shade, np.uint8)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    directory = str(tmp_path_factory.mktemp("tfds"))
    for builder in (Flowers, Sounds):
        builder(data_dir=directory, file_format="array_record").download_and_prepare()
    return directory


def test_records_hold_the_stored_bytes(root):
    source = open_source("tfds:flowers", "train", root=root)
    assert source.class_names == ("rose", "tulip")
    assert len(source) == 10
    assert source.identity == "tfds:flowers/2.0.1:train:2 classes:10"
    record = source[7]
    assert record["image"] == jpeg(7)
    assert record["label"] == 1
    assert record["name"] == "tfds:flowers/2.0.1, split train, record 7 (n007.JPEG)"
    assert decode_picture(record["image"], record["name"]).shape == (20, 30, 3)


def test_versions_slices_and_secret_labels(root):
    assert len(open_source("tfds:flowers:2.0.1", "validation", root=root)) == 4
    part = open_source("tfds:flowers", "train[50%:]", root=root)
    assert [part[index]["image"] for index in range(len(part))] == [jpeg(shade) for shade in range(5, 10)]
    assert open_source("tfds:flowers", "test", root=root)[0]["label"] == -1


def test_a_fingerprint_holds_for_another_preparation_of_the_same_examples(root, tmp_path, monkeypatch):
    def prepared(name: str) -> str:
        builder = Flowers(data_dir=str(tmp_path / name), file_format="array_record")
        builder.download_and_prepare()
        return open_source("tfds:flowers", "train", root=str(tmp_path / name)).fingerprint

    first = open_source("tfds:flowers", "train", root=root).fingerprint
    assert prepared("again") == first
    assert open_source("tfds:flowers", "train[50%:]", root=root).fingerprint != first
    monkeypatch.setitem(globals(), "jpeg", lambda shade, draw=jpeg: draw(shade + (shade == 9)))
    assert prepared("the last picture changed") != first


def test_a_source_travels(root):
    source = open_source("tfds:flowers", "train", root=root)
    source[0]
    packed = pickle.dumps(source)
    assert len(packed) < 20_000
    assert pickle.loads(packed)[9] == source[9]


def test_unknown_splits_are_refused(root):
    with pytest.raises(
        ValueError, match=r"^tfds:flowers/2.0.1 has no split 'val'; it has test, train, validation$"
    ):
        open_source("tfds:flowers", "val", root=root)


def test_sets_without_pictures_are_refused(root):
    with pytest.raises(ValueError, match=r"expected one Image feature, got 0 among label, wave"):
        open_source("tfds:sounds", "train", root=root)


def test_a_missing_or_damaged_shard_is_named(tmp_path):
    Flowers(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    source = open_source("tfds:flowers", "validation", root=str(tmp_path))
    (shard,) = tmp_path.glob("flowers/2.0.1/*validation*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        UnreadablePicture, match=r"^tfds:flowers/2\.0\.1, split validation, record 0 cannot be read"
    ):
        pickle.loads(pickle.dumps(source))[0]
    shard.unlink()
    with pytest.raises(ValueError, match=r"record 0 cannot be read as a picture: .*No such file"):
        open_source("tfds:flowers", "validation", root=str(tmp_path))


def test_a_tfrecord_preparation_gets_the_command_that_converts_it(tmp_path):
    Flowers(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    info = tmp_path / "flowers" / "2.0.1" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="is prepared as tfrecord") as caught:
        open_source("tfds:flowers", "train", root=str(tmp_path))
    assert f"tfds convert_format --dataset_version_dir={info.parent} --out_file_format=array_record" in str(
        caught.value
    )


def test_a_known_set_that_is_not_prepared_gets_the_command_that_prepares_it(tmp_path):
    with pytest.raises(ValueError, match="'imagenet2012' is not prepared in") as caught:
        open_source("tfds:imagenet2012", "train", root=str(tmp_path))
    assert str(caught.value).endswith(
        f"tfds build imagenet2012 --data_dir={tmp_path} --file_format=array_record"
    )


def test_unknown_names_get_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="nor known to tfds; did you mean 'imagenet2012'"):
        open_source("tfds:imagenet_2012", "train", root=str(tmp_path))
    with pytest.raises(ValueError, match="'a b' does not name a tfds data set"):
        open_source("tfds:a b", "train", root=str(tmp_path))
