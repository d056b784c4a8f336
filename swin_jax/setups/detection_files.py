"""Detections in files: COCO's result files and pictures."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from swin_jax.tasks import pictures
from swin_jax.tasks.detection_scores import Found, coco_masks
from swin_jax.training.run_directory import write_atomically

LEAST_DRAWN = 0.3
"""What is less certain is not drawn."""


def write_results(path: epath.PathLike, results: Sequence[Mapping[str, Any]]) -> None:
    """Writes COCO's result file: a list of detections, run lengths as text."""
    write_atomically(path, json.dumps([_plain(result) for result in results]).encode() + b"\n")


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    written = {
        **result,
        "bbox": [round(value, 3) for value in result["bbox"]],
        "score": round(result["score"], 6),
    }
    if "segmentation" in result:
        runs = result["segmentation"]
        written["segmentation"] = {"size": list(runs["size"]), "counts": runs["counts"].decode()}
    return written


def read_results(path: epath.PathLike) -> list[dict[str, Any]]:
    """The detections of a result file.

    Raises:
        ValueError: it cannot be read, or is no list of detections.
    """
    try:
        results = json.loads(epath.Path(path).read_bytes())
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror or error}); give a COCO result file"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        raise ValueError(f"{path} is no COCO result file: expected a list of detections")
    return results


def masks_of(found: Found, kept: np.ndarray) -> np.ndarray | None:
    """The masks of some detections, bool [n, H, W]."""
    if found.runs is None or not len(kept):
        return None
    return np.stack([coco_masks.decode(found.runs[place]).astype(bool) for place in kept.tolist()])


def drawn(
    picture: np.ndarray, found: Found, class_names: Sequence[str], palette: np.ndarray, least_score: float
) -> np.ndarray:
    """A picture with its detections from `least_score` on, uint8 [H, W, 3]."""
    kept = np.flatnonzero(found.scores >= least_score)
    shown = pictures.Shown(found.boxes[kept], found.labels[kept], found.scores[kept], masks_of(found, kept))
    return pictures.draw_instances(picture, shown, class_names, palette)
