"""Which rows of a checkpoint's classification head a model with other classes begins with."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FRESH = "fresh"
"""The value that asks for a new head whatever the checkpoint has."""
CLASSES_22K, CLASSES_1K = 21841, 1000
WORDNET_ID = re.compile(r"n\d{8}")
# Facts of the published map of ImageNet-1K into ImageNet-22K, by which it is recognised.
MAP_FIRST, MAP_LAST = (359, 368, 460, 475, 486), (21200, 21369, 21817)
MAP_SUM, MAP_DESCENT = 6_373_512, (850, 11137, 5564)


def head_rows(path: str | Path, old_classes: int, class_names: Sequence[str]) -> np.ndarray:
    """The row of the checkpoint's head for each class of the model, int64 [new classes].

    Args:
      path: a text file, one entry a line: either the row for each class of the model (as the published map of
        ImageNet-22K to 1K), or the WordNet id of each class of the checkpoint, which the model's class names
        are looked up in.
      old_classes: of the checkpoint.
      class_names: of the model; WordNet ids if the file has them.

    Raises:
      ValueError: the file is missing, of neither form, or does not fit the classes.
    """
    try:
        lines = Path(path).read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the class map {path} cannot be read ({error})") from error
    if lines and all(WORDNET_ID.fullmatch(line) for line in lines):
        return _by_name(path, lines, old_classes, class_names)
    if not lines or not all(line.isdecimal() for line in lines):
        raise ValueError(f"the class map {path} must hold a row number or a WordNet id on each line")
    rows = np.array([int(line) for line in lines], np.int64)
    if len(rows) != len(class_names):
        raise ValueError(f"the class map {path} has {len(rows)} rows, the model {len(class_names)} classes")
    if rows.max() >= old_classes:
        raise ValueError(f"the class map {path} names row {rows.max()}, the checkpoint has {old_classes}")
    if (old_classes, len(rows)) == (CLASSES_22K, CLASSES_1K):
        check_map_22k_to_1k(rows)
    return rows


def check_map_22k_to_1k(rows: np.ndarray) -> None:
    """Raises ValueError unless `rows` has every known fact of the published map of ImageNet-22K to 1K."""
    (falls,) = np.nonzero(np.diff(rows) < 0)
    facts = {
        f"{CLASSES_1K} rows": len(rows) == CLASSES_1K,
        "no row twice": len(set(rows.tolist())) == len(rows),
        f"first rows {MAP_FIRST}": tuple(rows[:5].tolist()) == MAP_FIRST,
        f"last rows {MAP_LAST}": tuple(rows[-3:].tolist()) == MAP_LAST,
        f"sum {MAP_SUM}": int(rows.sum()) == MAP_SUM,
        f"ascending but for position {MAP_DESCENT[0]}": falls.tolist() == [MAP_DESCENT[0] - 1]
        and tuple(rows[falls[0] : falls[0] + 2].tolist()) == MAP_DESCENT[1:],
    }
    broken = [fact for fact, holds in facts.items() if not holds]
    if broken:
        raise ValueError(
            f"this is not the published map of ImageNet-22K to 1K, which has {'; '.join(broken)}"
        )


def _by_name(
    path: str | Path, names: Sequence[str], old_classes: int, class_names: Sequence[str]
) -> np.ndarray:
    if len(names) != old_classes:
        raise ValueError(f"{path} names {len(names)} classes, the checkpoint has {old_classes}")
    place = {name: index for index, name in enumerate(names)}
    absent = [name for name in class_names if name not in place]
    if absent:
        raise ValueError(f"{path} does not have {len(absent)} of the model's classes, such as {absent[0]!r}")
    return np.array([place[name] for name in class_names], np.int64)
