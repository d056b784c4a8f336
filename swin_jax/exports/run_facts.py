"""What a run directory knows of itself, for whoever gets its weights: recipe, data, figures reached, software."""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from swin_jax.training.run_directory import explaining, read_document, read_metrics

OF_THE_MACHINE = ("data.root",)
"""Config fields that say where something lies on the machine of the run, and nothing about the weights."""
RUN_FIELDS = ("step", "parameters", "config", "data", "evaluations")
"""What `run_facts` always has."""
FILES = ("init_from", "init_head")
"""Config fields that may name a file: its name is kept, not its place."""


def run_facts(directory: epath.Path, step: int, parameters: str) -> dict[str, Any]:
    """JSON values about the checkpoint of `step`.

    Args:
      directory: of the run.
      step: of the checkpoint.
      parameters: "plain" or "ema".

    Returns:
      `step`, `parameters`, `config` (without places on the machine), `data` (identity and fingerprints of both
      splits), `evaluations` (as recorded; none if there are none) and what trained it: `code`, `versions`.

    Raises:
      ValueError, RunDirectoryError: a file of the run is damaged or cannot be read.
    """
    document = read_document(directory) or {"config": {}}
    resolved = document["config"]
    config = {name: value for name, value in resolved.items() if not name.startswith("data_")}
    data = {name: resolved.get(f"data_{name}") for name in ("identity", "fingerprint")}
    return {
        "step": step,
        "parameters": parameters,
        "config": _portable(config),
        "data": {name: value for name, value in data.items() if value is not None},
        "evaluations": evaluations(directory, step, parameters),
        **{name: document[name] for name in ("code", "versions") if name in document},
    }


def evaluations(directory: epath.Path, step: int, parameters: str) -> list[dict[str, Any]]:
    """What was measured of these parameters: while training, and by `evaluate` since. Nothing else."""
    config = (read_document(directory) or {"config": {}})["config"]
    split = config.get("data", {}).get("eval_split", "")
    recorded = _while_training(directory, step, parameters)
    found = {("", split): {"step": step, "split": split, **recorded}} if recorded else {}
    with explaining("read", directory):
        files = sorted(path for path in directory.iterdir() if re.match(r"evaluation_.*\.json$", path.name))
        texts = [path.read_text() for path in files]
    for path, text in zip(files, texts, strict=True):
        try:
            result = dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged: run swin_jax.evaluate again, or remove it") from error
        if result.get("step") == step and result.pop("parameters", "plain") == parameters:
            found[(result.get("data", ""), result.get("split", ""))] = result
    return list(found.values())


def _while_training(directory: epath.Path, step: int, parameters: str) -> dict[str, float]:
    """The evaluation at a step in `metrics.jsonl`; those of the average begin with "eval/ema/"."""
    prefix = "eval/ema/" if parameters == "ema" else "eval/"
    return {
        name.removeprefix(prefix): value
        for line in read_metrics(directory)
        if line["step"] == step
        for name, value in line.items()
        if name.startswith(prefix) and "/" not in name.removeprefix(prefix)
    }


def _portable(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config without what belongs to one machine, and without fields that are unset."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        if path in OF_THE_MACHINE or value is None:
            continue
        if isinstance(value, Mapping):
            found[name] = _portable(value, f"{path}.")
        else:
            found[name] = os.path.basename(str(value).rstrip("/")) if path in FILES else value
    return found
