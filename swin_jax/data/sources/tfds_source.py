"""Any tfds image classification set that is prepared as ArrayRecord, read by random access without TensorFlow."""

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.proto import tf_example_pb2

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.sources.base import Record, check_labels, digest, spread

Features = Mapping[str, Any]

NAME = re.compile(r"\w+(/[\w+.-]+)?(:\d+\.\d+\.\d+)?$")
SEVERAL_LABELS = "real_label"
"""Of imagenet2012_real: all classes that a picture shows, possibly none; it counts before the one original label."""
NAME_FIELDS = ("file_name", "image/filename", "filename", "id")
CHECKED = 16  # records that are looked at when a source is opened


class TfdsRecords:
    """The examples of one split of a prepared tfds builder, as they are stored: pictures stay encoded."""

    class_names: tuple[str, ...] = ()

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, kind: str):
        """
        Args:
          builder: prepared as ArrayRecord.
          split: of the builder; slices as tfds writes them ("train[:90%]") are possible.
          kind: how the data set is called in messages and in `identity`.

        Raises:
          ValueError: the split is unknown.
        """
        self._kind, self._split = kind, split
        names: Any = builder.info.features
        self._name = next((field for field in NAME_FIELDS if field in names), None)
        self._data = _open(builder, split, kind)

    @property
    def identity(self) -> str:
        return f"{self._kind}:{self._split}:{len(self.class_names)} classes:{len(self)}"

    def __len__(self) -> int:
        return len(self._data)

    def features(self, index: int) -> Features:
        """The stored values of an example, undecoded, by flat feature name ("objects/bbox").

        Raises:
          UnreadablePicture: its file is missing or damaged.
        """
        example: Any = tf_example_pb2.Example  # type: ignore[attr-defined]  (made at run time)
        try:
            return example.FromString(self._data[index]).features.feature
        except (RuntimeError, OSError, DecodeError) as error:  # ArrayRecord raises the first
            raise UnreadablePicture(self._record_name(index), " ".join(str(error).split())) from error

    def name(self, index: int, features: Features) -> str:
        """Of the record, and of its file where the set keeps that."""
        name = self._record_name(index)
        if self._name is not None and features[self._name].bytes_list.value:
            name += f" ({features[self._name].bytes_list.value[0].decode(errors='replace')})"
        return name

    def _record_name(self, index: int) -> str:
        return f"{self._kind}, split {self._split}, record {index}"


class TfdsSource(TfdsRecords):
    """Pictures with a class each."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, kind: str):
        """Arguments and errors as `TfdsRecords`.

        Raises:
          ValueError: the set has no picture with a class.
        """
        super().__init__(builder, split, kind)
        features: Any = builder.info.features
        self._image, self._label = _picture_and_class(features, kind)
        self._several = self._label == SEVERAL_LABELS
        label = features[self._label]
        self.class_names = tuple((label.feature if self._several else label).names)
        some = [self[index] for index in spread(CHECKED, len(self))]
        labels = [record["label"] for record in some]
        check_labels(labels, len(self.class_names), f"{kind}, split {split},")
        # Not of shards: how many there are changes no example and not their order.
        self._sample = digest(
            [record["name"] for record in some],
            np.asarray(labels, np.int64),
            *(record["image"] for record in some),
        )

    @property
    def fingerprint(self) -> str:
        """Of the set's full name, split, classes and count, and of a few whole examples."""
        return digest(self.identity, self.class_names, self._sample)

    def __getitem__(self, index: int) -> Record:
        return self.record(index, self.features(index))

    def record(self, index: int, features: Features) -> Record:
        """Picture, label and name out of an example's stored values.

        Where an example has any number of labels, `accepted` bool [classes] marks them, and `label` is the first.
        """
        name = self.name(index, features)
        image, label = features[self._image].bytes_list.value, features[self._label].int64_list.value
        if len(image) != 1 or (len(label) != 1 and not self._several):
            raise UnreadablePicture(
                name, f"it holds {len(image)} pictures and {len(label)} labels, expected one each"
            )
        if not self._several:
            return {"image": image[0], "label": label[0], "name": name}
        accepted = np.zeros(len(self.class_names), bool)
        accepted[list(label)] = True
        return {"image": image[0], "label": label[0] if label else -1, "accepted": accepted, "name": name}


def open_tfds(name: str, split: str, *, root: str | None = None) -> TfdsSource:
    """One split of a prepared tfds data set.

    Args:
      name: of `open_builder`.
      split: e.g. "train" or "validation"; "" for the only one.
      root: of `open_builder`.

    Raises:
      ValueError: as `open_builder`, and if there is no such split, or no picture with a class.
    """
    builder, kind = open_builder(name, root=root)
    splits = sorted(builder.info.splits)
    if not split and len(splits) != 1:
        raise ValueError(f"{kind} has the splits {', '.join(splits)}; name one")
    return TfdsSource(builder, split or splits[0], kind=kind)


def open_builder(name: str, *, root: str | None = None) -> tuple[tfds.core.DatasetBuilder, str]:
    """A prepared tfds data set, and how it is called.

    Args:
      name: as tfds writes it, with config and version where wanted: "imagenet2012", "imagenet_resized/64x64:0.1.0".
      root: tfds data directory; None is tfds's own default (~/tensorflow_datasets, or $TFDS_DATA_DIR).

    Raises:
      ValueError: the set is unknown, not prepared, or prepared in another form than ArrayRecord; with the command
        that mends it.
    """
    options = {} if root is None else {"data_dir": os.path.expanduser(root)}
    if not NAME.match(name):
        raise ValueError(f"{name!r} does not name a tfds data set; write tfds:<name>[/<config>][:<version>]")
    try:
        # From its files: the code that defined a set may want TensorFlow, and reading does not need it.
        builder = read_only_builder.builder_from_files(name, **options)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(_not_prepared(name, options)) from error
    formats = {form.value for form in builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise ValueError(
            f"{builder.data_dir} is prepared as {', '.join(sorted(formats))} and cannot be read by random access; "
            "add an ArrayRecord copy, where TensorFlow is installed, with: tfds convert_format "
            f"--dataset_version_dir={builder.data_dir} --out_file_format=array_record"
        )
    return builder, f"tfds:{builder.info.full_name}"


def _not_prepared(name: str, options: Mapping[str, str]) -> str:
    known, base = tfds.list_builders(with_community_datasets=False), re.split("[/:]", name)[0]
    where = options.get("data_dir", "the tfds data directory")
    if base not in known:
        near = difflib.get_close_matches(base, known, n=1)
        return f"the tfds data set {name!r} is neither prepared in {where} nor known to tfds" + (
            f"; did you mean {near[0]!r}?" if near else ""
        )
    flags = "".join(f" --{flag}={value}" for flag, value in options.items())
    return (
        f"the tfds data set {name!r} is not prepared in {where}; prepare it, where TensorFlow is installed, with: "
        f"tfds build {name}{flags} --file_format=array_record"
    )


def _picture_and_class(features: Any, kind: str) -> tuple[str, str]:
    """The names of the one picture and the one class label."""
    if not isinstance(features, tfds.features.FeaturesDict):
        raise ValueError(f"{kind} is no image classification set: its features are {features}")
    found = []
    for sort in (tfds.features.Image, tfds.features.ClassLabel):
        names = [name for name, feature in features.items() if isinstance(feature, sort)]
        preferred = [name for name in names if name in ("image", "label")] or names
        if sort is tfds.features.ClassLabel and SEVERAL_LABELS in features:
            preferred = [SEVERAL_LABELS]
        if len(preferred) != 1:
            raise ValueError(
                f"{kind} is no image classification set: expected one {sort.__name__} feature, "
                f"got {len(names)} among {', '.join(sorted(features))}"
            )
        found += preferred
    return found[0], found[1]


def _open(builder: Any, split: str, kind: str) -> Any:
    """Random access to serialised examples."""
    try:
        # tfds would decode all features of an example, with their pictures.
        return builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    except ValueError as error:
        raise ValueError(
            f"{kind} has no split {split!r}; it has {', '.join(sorted(builder.info.splits))}"
        ) from error
