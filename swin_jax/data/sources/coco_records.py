"""Detection data as a tfds builder: pictures untouched and what is annotated of them, read at random."""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.labels import LabelMap
from swin_jax.data.sources.base import Record, digest, spread
from swin_jax.data.sources.coco import STUFF_CLASSES, CocoPictures, encoded, open_coco, stuff_coding
from swin_jax.data.sources.coco_format import Annotations
from swin_jax.data.sources.tfds_source import CHECKED, TfdsRecords, open_builder

CATEGORIES = "categories"


class CocoRecords(tfds.core.GeneratorBasedBuilder):
    """Pictures with the instances of COCO's annotation files (Lin et al., 2014).

    Pictures are stored as they were, with their label maps where there are any, and of each the JSON of its
    annotations: everything, also what training leaves out.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos = {}  # noqa: RUF012 (checksums of downloads, which there are none of)

    def __init__(self, *, sources: dict[str, CocoPictures] | None = None, **options: Any):
        self._sources = sources or {}
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        first = next(iter(self._sources.values()), None)
        categories = [] if first is None else first.truth_of([])["categories"]
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "image_id": np.int64,
            "height": np.int64,
            "width": np.int64,
            "annotations": tfds.features.Text(),
            "file_name": tfds.features.Text(),
            "semantic": tfds.features.Sequence(  # of one map, or of none
                tfds.features.Image(shape=(None, None, 1), encoding_format="png")
            ),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            description=CocoRecords.__doc__,
            metadata=tfds.core.MetadataDict({CATEGORIES: categories}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(source) for split, source in self._sources.items()}

    def _generate_examples(self, source: CocoPictures) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(len(source)):
            truth = source.truth_of([index])
            (image,) = truth["images"]
            record = source[index]
            maps = [io.BytesIO(record["semantic"].data)] if "semantic" in record else []
            yield (
                index,
                {
                    "image": io.BytesIO(record["image"]),
                    "image_id": image["id"],
                    "height": image["height"],
                    "width": image["width"],
                    "annotations": json.dumps(truth["annotations"], default=bytes.decode),
                    "file_name": image["file_name"],
                    "semantic": maps,
                },
            )


def prepare(archive: str, splits: Sequence[str], directory: str) -> str:
    """Builds the set from `archive`, COCO's official layout as a zip or folder, in the tfds data directory `directory`.

    Label maps of COCO-Stuff are stored along where the archive has them, see `CocoPictures`.

    Returns:
      The name by which it is read.

    Raises:
      ValueError: the archive is not what it should be, the directory cannot be written, or holds the set without the
        label maps that the archive has.
    """
    sources = {split: open_coco(archive, split, training=False, semantic=True) for split in splits}
    if len({source.class_names for source in sources.values()}) > 1:
        raise ValueError(f"the splits {', '.join(splits)} have different categories; prepare them apart")
    try:
        builder = CocoRecords(sources=sources, data_dir=directory, file_format="array_record")
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except OSError as error:
        raise ValueError(
            f"{directory} cannot be written ({error.strerror or error}); name another"
        ) from error
    # What is there already is left as it is.
    kind = f"tfds:{builder.info.name}"
    with_maps = [split for split, source in sources.items() if source.semantic_classes]
    lacking = [split for split in with_maps if not _maps(TfdsRecords(builder, split, kind).features(0))]
    if lacking:
        raise ValueError(
            f"{builder.data_dir} was prepared before, without the label maps of {', '.join(lacking)}; remove it and "
            "prepare it again"
        )
    return kind


def _maps(stored: Mapping[str, Any]) -> Sequence[bytes]:
    """An example's encoded label maps: one or none. Sets from before the feature was there read as none."""
    return stored["semantic"].bytes_list.value


class RecordedInstances(TfdsRecords):
    """One split of `CocoRecords`: the records that it was made of."""

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        split: str,
        kind: str,
        *,
        training: bool,
        semantic: bool = False,
    ):
        """Arguments and errors as `TfdsRecords`; `training` and `semantic` as `CocoPictures`.

        Raises:
          ValueError: the set holds other things.
        """
        super().__init__(builder, split, kind)
        categories = (builder.info.metadata or {}).get(CATEGORIES)
        if not categories:
            raise ValueError(
                f"{kind} holds no instances; make a set that does with swin_jax.prepare --source=coco"
            )
        self._rows = range(super().__len__())
        self._annotations = Annotations(json.dumps(self._joined(categories)), f"{kind}, split {split}")
        self.class_names = self._annotations.class_names
        self.category_ids = self._annotations.category_ids
        self.has_masks = self._annotations.has_masks
        kept = self._annotations.trainable() if training else np.ones(len(self._annotations), bool)
        self._chosen = np.flatnonzero(kept)
        with_maps = semantic and any(_maps(self.features(row)) for row in self._rows[:1])
        self.semantic_classes = STUFF_CLASSES if with_maps else 0
        self._sample = digest(*encoded([self[index] for index in spread(CHECKED, len(self))]))

    def _joined(self, categories: Any) -> dict[str, Any]:
        """What all records together have annotated."""
        images, annotations = [], []
        for row in self._rows:
            stored = self.features(row)
            number, height, width = (
                int(stored[name].int64_list.value[0]) for name in ("image_id", "height", "width")
            )
            file = stored["file_name"].bytes_list.value[0].decode()
            images.append({"id": number, "height": height, "width": width, "file_name": file})
            annotations += json.loads(stored["annotations"].bytes_list.value[0])
        return {"images": images, "annotations": annotations, "categories": categories}

    @property
    def fingerprint(self) -> str:
        """Of all annotations, and of a few whole pictures and label maps."""
        return digest(self.identity, self.class_names, self._chosen, *self._annotations.parts(), self._sample)

    @property
    def sizes(self) -> np.ndarray:
        """(height, width) of the pictures, int32 [n, 2]."""
        return self._annotations.sizes[self._chosen]

    def truth(self) -> dict[str, Any]:
        """All of the split's annotations, as the COCO tools take them."""
        return self._annotations.truth(self._chosen.tolist())

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Record:
        place = int(self._chosen[index])
        stored = self.features(place)
        name, image = self.name(place, stored), stored["image"].bytes_list.value
        if len(image) != 1:
            raise UnreadablePicture(name, f"it holds {len(image)} pictures, expected one")
        record = {
            "image": image[0],
            "instances": self._annotations.of_picture(place),
            "image_id": int(self._annotations.image_ids[place]),
            "size": self._annotations.sizes[place],
            "label": -1,
            "name": name,
        }
        if self.semantic_classes:
            maps = _maps(stored)
            if len(maps) != 1:
                raise UnreadablePicture(name, f"it holds {len(maps)} label maps, expected one")
            record["semantic"] = LabelMap(maps[0], stuff_coding(), name)
        return record


def open_records(
    name: str, split: str, *, root: str | None = None, training: bool, semantic: bool = False
) -> RecordedInstances:
    """One split of what `prepare` made.

    Raises:
      ValueError: as `open_builder`, and if there is no such split, or the set holds no instances.
    """
    builder, kind = open_builder(name, root=root)
    return RecordedInstances(builder, split, kind, training=training, semantic=semantic)
