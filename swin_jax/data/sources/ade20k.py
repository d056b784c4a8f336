"""ADE20K's scene parsing benchmark as a tfds builder, made from the archive that its owners hand out.

Not tfds's own `scene_parse150`: that holds the instance annotations, whose maps do not have the benchmark's classes.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from swin_jax.data.sources.label_pairs import ade20k_coding, open_ade20k

SPLITS = ("training", "validation")


class Ade20k150(tfds.core.GeneratorBasedBuilder):
    """20,210 training and 2,000 validation scenes with the class of every pixel (Zhou et al., 2017).

    Pictures and label maps are stored as they were in the archive: the value 0 is "other", which the benchmark
    ignores, and 1 to 150 are the classes.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos = {}  # noqa: RUF012 (checksums of downloads, which there are none of)

    def _info(self) -> tfds.core.DatasetInfo:
        names = ["ignore", *ade20k_coding().class_names]
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "semantic": tfds.features.LabeledImage(
                labels=names, shape=(None, None, 1), encoding_format="png"
            ),
            "file_name": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            description=Ade20k150.__doc__,
            disable_shuffling=True,
        )

    def __init__(self, *, archive: str = "", **options: Any):
        self._archive = archive
        super().__init__(**options)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        source = open_ade20k(self._archive, split)
        for index in range(len(source)):
            record = source[index]
            yield (
                index,
                {
                    "image": io.BytesIO(record["image"]),
                    "semantic": io.BytesIO(record["semantic"].data),
                    "file_name": epath.Path(record["name"]).name,
                },
            )


def prepare(archive: str, directory: str) -> str:
    """Builds the set from `archive`, a zip or the folder it unpacks to, in the tfds data directory `directory`.

    Returns:
      The name by which it is read.

    Raises:
      ValueError: the archive is not what it should be, or the directory cannot be written.
    """
    for split in SPLITS:
        open_ade20k(archive, split)  # says what is missing before anything is written
    try:
        builder = Ade20k150(archive=archive, data_dir=directory, file_format="array_record")
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except OSError as error:
        raise ValueError(
            f"{directory} cannot be written ({error.strerror or error}); name another"
        ) from error
    return f"tfds:{builder.info.name}"
