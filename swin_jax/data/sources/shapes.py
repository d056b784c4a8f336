"""The embedded data set as a tfds builder: drawn on this machine on first use, kept as ArrayRecord."""

import contextlib
import fcntl
import io
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from swin_jax.data.sources.base import Record
from swin_jax.data.sources.outlines import CLASSES
from swin_jax.data.sources.scenes import SIZE, Scene, draw_scene
from swin_jax.data.sources.tfds_source import TfdsSource

log = logging.getLogger(__name__)

SPLITS = {"train": 8000, "val": 1000}
DEFAULT_ROOT = "~/.cache/swin_jax"
LABEL_MAP = {"shape": (SIZE, SIZE, 1), "encoding_format": "png"}


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Scenes of textured geometric objects with classes, boxes, exact instance masks and a semantic map.

    Configs: `easy` (one or two bright objects on a dark ground) and `hard` (clutter, overlap, occlusion, any
    brightness); `scenes.VARIANTS` has the numbers.
    """

    VERSION = tfds.core.Version("1.1.0")  # a change of any pixel is a new version
    BUILDER_CONFIGS = [  # noqa: RUF012 (the name and kind that tfds asks for)
        tfds.core.BuilderConfig(name="easy", description="One or two bright objects, the main one whole."),
        tfds.core.BuilderConfig(name="hard", description="Clutter, overlap and occlusion."),
    ]

    # Checksums of downloads. There are none, and looking for them makes tfds import a library it does not install.
    url_infos = {}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        classes = tfds.features.ClassLabel(names=CLASSES)
        features = {
            "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
            "label": classes,
            "objects": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature(), "label": classes}),
            "instances": tfds.features.Image(**LABEL_MAP),
            "semantic": tfds.features.Image(**LABEL_MAP),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            description=Shapes.__doc__,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        variant, seed = str(self.builder_config_name), list(SPLITS).index(split)
        for index in range(SPLITS[split]):
            yield index, _encoded(draw_scene(variant, seed, index))


def _encoded(scene: Scene) -> dict[str, Any]:
    left, top, right, bottom = scene.boxes.T / SIZE
    boxes = [tfds.features.BBox(*box) for box in zip(top, left, bottom, right, strict=True)]
    return {
        "image": _png(scene.image[..., ::-1]),  # OpenCV writes BGR
        "label": scene.label,
        "objects": [
            {"bbox": box, "label": int(label)} for box, label in zip(boxes, scene.classes, strict=True)
        ],
        "instances": _png(scene.instances),
        "semantic": _png(scene.semantic),
    }


def _png(pixels: np.ndarray) -> io.BytesIO:
    # Bytes, because tfds would take TensorFlow to encode an array.
    return io.BytesIO(cv2.imencode(".png", pixels)[1].tobytes())


def open_shapes(variant: str, split: str, *, root: str | None = None) -> TfdsSource:
    """One split of the embedded data set, drawn first if it is not there.

    Args:
      variant: "easy" or "hard".
      split: "train" or "val".
      root: tfds data directory; None is ~/.cache/swin_jax.

    Raises:
      ValueError: unknown variant or split, or the directory cannot be written.
    """
    configs = [config.name for config in Shapes.BUILDER_CONFIGS]
    if variant not in configs:
        raise ValueError(
            f"the data source 'shapes/{variant}' is unknown; known: shapes/{', shapes/'.join(configs)}"
        )
    directory = os.path.expanduser(root or DEFAULT_ROOT)
    builder = Shapes(config=variant, data_dir=directory, file_format="array_record")
    if (
        not builder.info.splits
    ):  # what the builder read, not what lies there by now: another process may be at it
        _prepare(builder, directory)
    return ShapesSource(builder, split, kind=f"shapes/{variant}")


class ShapesSource(TfdsSource):
    """Scenes. A record has besides picture, label and name:

    boxes float32 [n,4] (left, top, right, bottom in pixels, right and bottom exclusive, around what is visible),
    classes int32 [n], and as PNG with one channel `instances` (0 background, i + 1 where object i is visible) and
    `semantic` (0 background, 1 + class).
    """

    def __getitem__(self, index: int) -> Record:
        stored = self.features(index)
        top_left_bottom_right = np.array(stored["objects/bbox"].float_list.value, np.float32).reshape(-1, 4)
        return self.record(index, stored) | {
            "boxes": top_left_bottom_right[:, [1, 0, 3, 2]] * SIZE,
            "classes": np.array(stored["objects/label"].int64_list.value, np.int32),
            "instances": stored["instances"].bytes_list.value[0],
            "semantic": stored["semantic"].bytes_list.value[0],
        }


def _is_prepared(builder: Shapes) -> bool:
    # tfds's own answer warns when there is nothing yet. The directory appears whole or not at all.
    return os.path.exists(os.path.join(builder.data_dir, "dataset_info.json"))


def _prepare(builder: Shapes, directory: str) -> None:
    """Draws the pictures. Whoever comes second waits for the first; a half-drawn set is never taken for a whole one."""
    try:
        os.makedirs(directory, exist_ok=True)
        with _locked(os.path.join(directory, f".shapes_{builder.builder_config_name}.lock")):
            if _is_prepared(builder):
                return builder.info.read_from_directory(builder.data_dir)
            for left_over in epath.Path(builder.data_dir).parent.glob("incomplete.*"):
                left_over.rmtree(missing_ok=True)
            count = sum(SPLITS.values())
            log.info(
                "drawing %d pictures of %s into %s (once)", count, builder.info.full_name, builder.data_dir
            )
            begun = time.monotonic()
            settings = tfds.download.DownloadConfig(try_download_gcs=False)
            tfds.disable_progress_bar()
            with contextlib.redirect_stdout(io.StringIO()):  # stdout is for results
                builder.download_and_prepare(download_config=settings)
            log.info("drew them in %.0f s", time.monotonic() - begun)
    except OSError as error:
        raise ValueError(
            f"the embedded data set cannot be written to {directory} ({error.strerror or error}); "
            "name a writable directory as data root"
        ) from error


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Holds a lock that ends with the process, however it ends."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
