"""Predicted label maps in files: written, read back and scored."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from swin_jax.data.decode import decode_picture, picture_size
from swin_jax.data.labels import LabelCoding
from swin_jax.data.sources.base import Record, Source
from swin_jax.data.sources.files import PICTURE_SUFFIXES, read_file
from swin_jax.tasks import pictures
from swin_jax.tasks.segmentation import SegmentationScorer
from swin_jax.training.run_directory import write_atomically

LABEL_FORMATS = ("classes", "dataset")
"""What a label file holds: class numbers from 0 with the palette's colours, or the data set's own values in grey."""
LABELS, OVERLAYS = "labels", "overlays"


def file_name(name: str) -> str:
    """What a record's label map is called, without suffix: as its picture's file; another record's name made one."""
    in_brackets = re.search(r"\(([^()]+)\)$", name)
    base = os.path.basename(in_brackets[1] if in_brackets else name)
    stem, suffix = os.path.splitext(base)
    return re.sub(r"[^\w.-]+", "_", stem if suffix.lower() in PICTURE_SUFFIXES else base)


def check_file_names(names: Sequence[str]) -> None:
    """Raises ValueError where two records' label maps would be one file."""
    seen: dict[str, str] = {}
    for name in names:
        key = file_name(name)
        if key in seen:
            raise ValueError(
                f"{seen[key]} and {name} would both be written to {key}.png; predict them into two directories"
            )
        seen[key] = name


def write_prediction(
    directory: str, record: Record, classes: np.ndarray, coding: LabelCoding, label_format: str
) -> dict[str, float]:
    """Writes `labels/<name>.png` and `overlays/<name>.png`; returns each class's share of the pixels."""
    key, palette = file_name(record["name"]), np.asarray(coding.palette, np.uint8)
    if label_format == "classes":
        data = pictures.palette_png(classes, palette)
    else:
        data = pictures.grey_png(coding.encode(classes))
    write_atomically(Path(directory) / LABELS / f"{key}.png", data)
    shares = np.bincount(classes.ravel(), minlength=len(palette)) / classes.size
    over = pictures.overlay(decode_picture(record["image"], record["name"]), classes, palette)
    drawn = pictures.with_legend(over, shares, coding.class_names, palette)
    write_atomically(Path(directory) / OVERLAYS / f"{key}.png", pictures.png(drawn))
    return {
        coding.class_names[index]: float(shares[index])
        for index in np.argsort(-shares, kind="stable")
        if shares[index]
    }


def score_folder(
    source: Source, directory: str, coding: LabelCoding, label_format: str
) -> SegmentationScorer:
    """Scores the label files in `directory` (or its `labels/`) against the labels of every record of `source`.

    Raises:
        ValueError: a file is missing, of another size than its labels, or holds what is no class.
    """
    folder = Path(directory) / LABELS
    folder = folder if folder.is_dir() else Path(directory)
    scorer = SegmentationScorer(coding.class_names)
    for record, labels in labelled(source):
        path = str(folder / f"{file_name(record['name'])}.png")
        if not os.path.exists(path):
            raise ValueError(f"{path} is missing: the prediction for {record['name']}")
        guesses = _coding_of(coding, label_format).decode(read_file(path), path)
        if guesses.shape != labels.shape:
            raise ValueError(
                f"{path} is {guesses.shape[0]} x {guesses.shape[1]} pixels, the labels of "
                f"{record['name']} are {labels.shape[0]} x {labels.shape[1]}"
            )
        try:
            scorer.add_map(labels, guesses)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return scorer


def labelled(source: Source) -> Iterator[tuple[Record, np.ndarray]]:
    """Each record with its class numbers at its picture's size."""
    for index in range(len(source)):
        record = source[index]
        size = picture_size(record["image"], record["name"])
        yield record, record["semantic"].classes(size, record["name"])


def check_format(label_format: str) -> None:
    if label_format not in LABEL_FORMATS:
        raise ValueError(f"--label_format is {label_format!r}; choose {' or '.join(LABEL_FORMATS)}")


def _coding_of(coding: LabelCoding, label_format: str) -> LabelCoding:
    """How files of `label_format` are read."""
    if label_format == "dataset":
        return coding
    return LabelCoding(coding.class_names, coding.palette, values=tuple(range(len(coding.class_names))))
