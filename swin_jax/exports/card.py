"""The model card: what weights are, how they came to be and how to load them, for machines and for people.

A card says what its source knows. Figures are those that a run recorded; weights from elsewhere have none.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from swin_jax.models.detectors import create_detector, detector_names
from swin_jax.models.registry import create_model
from swin_jax.models.segmenters import create_segmenter, segmenter_names
from swin_jax.training.provenance import describe, provenance
from swin_jax.training.run_directory import write_atomically

CARD, README = "card.json", "README.md"


def make_card(
    description: Mapping[str, Any],
    *,
    parameters: int,
    load: Sequence[str],
    files: Sequence[str] = (),
    layout: str = "",
) -> dict[str, Any]:
    """The card as JSON values.

    Args:
      description: `model`, `preprocessing`, `class_names`; where known `run` (of `run_facts`) and `from`.
      parameters: how many there are.
      load: lines of Python that load them.
      files: names of the files the card lies beside.
      layout: whose names the parameters have in them, if not ours.
    """
    names = list(description.get("class_names", ()))
    count = description["model"].get("num_classes", len(names))
    return {
        "format": 1,
        "model": dict(description["model"]),
        "parameters": parameters,
        "classes": {"count": count, "names": names},
        "preprocessing": dict(description["preprocessing"]),
        **{name: description[name] for name in ("run", "from") if description.get(name)},
        "load": list(load),
        "files": list(files),
        **({"layout": layout} if layout else {}),
        "written_by": provenance(),
    }


def write_card(directory: epath.PathLike, card: Mapping[str, Any], *, stem: str = "") -> list[str]:
    """Writes `card.json` and `README.md`, with a stem `stem.card.json` and so on; returns the names.

    Raises:
      RunDirectoryError: the place cannot be written.
    """
    directory = epath.Path(directory)
    names = [f"{stem}.{name}" if stem else name for name in (CARD, README)]
    texts = (json.dumps(card, indent=1), markdown(card))
    for name, text in zip(names, texts, strict=True):
        write_atomically(directory / name, text.encode() + b"\n")
    return names


def load_lines(model: Mapping[str, Any], file: str, detection: Mapping[str, Any] | None = None) -> list[str]:
    """Python that loads a weight file or run directory and uses it; it names every field in which the published model,
    or the published detector's settings, differ."""
    dense = bool(model.get("dense"))
    use = "{} = model.apply(variables, images)  # normalised pictures [B, H, W, 3]"
    if model["name"] in segmenter_names():
        whole = create_segmenter(model["name"])
        function, use, parts = "load_segmenter", use.format("logits, _"), (whole, whole.backbone)
    elif model["name"] in detector_names():
        whole = create_detector(model["name"])
        function, parts = "load_detector", (whole, whole.backbone)
        settings = "".join(f", {name}={_python(value)!r}" for name, value in (detection or {}).items())
        use = f"found = swin_jax.detect(model, variables, images, sizes{settings})".replace("'", '"')
    else:
        function, out = ("features", "maps") if dense else ("load", "logits")
        options = {"features_only": True} if dense else {}  # which not every classifier knows
        parts, use = (create_model(model["name"], **options),), use.format(out)
    known = {name: value for part in reversed(parts) for name, value in vars(part).items()}
    known |= {"window_policy": "dense"} if dense else {}
    fields = {
        name: _python(value)
        for name, value in model.items()
        if name != "name" and name in known and not (dense and name == "num_classes")
    }
    other = {name: value for name, value in fields.items() if known[name] != value}
    arguments = [repr(model["name"]), repr(file), *(f"{name}={value!r}" for name, value in other.items())]
    called = f"swin_jax.{function}({', '.join(arguments)})".replace("'", '"')
    return [
        "import swin_jax",
        f"model, variables = {called}",
        use,
    ]


def _python(value: Any) -> Any:
    """A JSON value as a config has it."""
    return tuple(value) if isinstance(value, list) else value


def markdown(card: Mapping[str, Any]) -> str:
    """The card for a reader."""
    model, run = card["model"], card.get("run")
    lines = [f"# {model['name']}", "", *_table(_facts(card)), ""]
    if card["load"]:
        lines += ["## Loading", "", "```python", *card["load"], "```", ""]
    if run:
        lines += ["## Training", "", *_table(_training(run)), "", *_evaluations(run)]
        lines += ["The whole config is in the JSON card beside this file.", ""]
    return "\n".join(lines).rstrip()


def _facts(card: Mapping[str, Any]) -> dict[str, Any]:
    model, pictures, classes = card["model"], card["preprocessing"], card["classes"]
    fields = ", ".join(f"{name} {_plain(value)}" for name, value in model.items() if name != "name")
    found = {
        "model": fields or model["name"],
        "parameters": f"{card['parameters']:,}",
        "classes": f"{classes['count']:,}"
        + (", named in the JSON card" if classes["names"] else ", no names known"),
        "pictures": _pictures(pictures, dense=_dense(model)),
        "normalisation": f"pixels in 0..1, mean {_plain(pictures['mean'])}, std {_plain(pictures['std'])}",
    }
    if "from" in card:
        found["from"] = f"{card['from']['file']} ({card['from']['format']})"
    if card["files"]:
        layout = f" (in the format of {card['layout']})" if "layout" in card else ""
        found["files"] = ", ".join(card["files"]) + layout
    return found | {"written by": _software(card["written_by"])}


def _pictures(made: Mapping[str, Any], *, dense: bool) -> str:
    """How pictures are made."""
    resize, (height, width) = made["resize"], made["size"]
    if resize is None:
        how = "as they are"
    elif dense:
        how = f"fitted into {_plain(resize)}, aspect kept"
    elif isinstance(resize, int):
        how = f"centre, shorter side resized to {resize} first"
    else:
        how = f"whole, resized to {_plain(resize)}"
    size = f"{height} x {width}" + (" in training" if dense else "")
    return f"{size}, RGB; {how} ({made['interpolation']})"


def _dense(model: Mapping[str, Any]) -> bool:
    return model["name"] in (*segmenter_names(), *detector_names())


def _training(run: Mapping[str, Any]) -> dict[str, Any]:
    config, data = run["config"], run["data"]
    fields = {
        name: config[name]
        for name in ("batch_size", "total", "seed", "init_from")
        if config.get(name) not in ("", None)
    }
    for section in ("optimizer", "schedule", "augment", "loss", "ema"):
        values = {
            name: value for name, value in config.get(section, {}).items() if value not in ("", None, [], 0.0)
        }
        if values:
            fields[section] = ", ".join(f"{name} {_plain(value)}" for name, value in values.items())
    fingerprint = data.get("fingerprint", {})
    prints = fingerprint if isinstance(fingerprint, Mapping) else {"": fingerprint}
    return {
        "checkpoint": f"step {run['step']:,}"
        + (", averaged parameters" if run["parameters"] == "ema" else ""),
        "data": data.get("identity", config.get("data", {}).get("source", "")),
        **{f"fingerprint, {split}".rstrip(", "): value for split, value in prints.items()},
        **fields,
        "trained by": _software(run),
    }


def _evaluations(run: Mapping[str, Any]) -> list[str]:
    """A table of the figures recorded of this checkpoint, if there are any."""
    found = run["evaluations"]
    if not found:
        return ["No evaluation of this checkpoint was recorded.", ""]
    columns = list(
        dict.fromkeys(name for row in found for name in row if name not in ("step", "split", "data"))
    )
    head = ["data", *columns]
    rows = [
        [
            f"{row.get('data', '')} {row.get('split', '')}".strip(),
            *(_plain(row.get(name, "")) for name in columns),
        ]
        for row in found
    ]
    return ["## Measured", "", *(_row(cells) for cells in (head, ["---"] * len(head), *rows)), ""]


def _software(made_by: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in made_by.get("versions", {}).items())
    return "; ".join(part for part in (describe(made_by.get("code", {})), versions) if part)


def _table(facts: Mapping[str, Any]) -> list[str]:
    return ["| | |", "|---|---|", *(_row([name, _plain(value)]) for name, value in facts.items())]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_plain, value))})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
