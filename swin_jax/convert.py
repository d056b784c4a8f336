"""Turns weights of other code bases into ours, and ours (a run or a file) into theirs.

    python -m swin_jax.convert --weights=swin_tiny_patch4_window7_224.pth --output=swin_tiny.safetensors
    python -m swin_jax.convert --weights=runs/flowers --to=timm --output=flowers_timm.safetensors photo.jpg
    python -m swin_jax.convert --weights=runs/flowers --to=transformers --output=flowers_transformers
    python -m swin_jax.convert --weights=runs/ade20k --to=openmmlab --output=upernet_swin_tiny.pth

The format of --weights is recognised, and so is the model where --model is not given. --to is one of swin_jax,
official, official-dense, timm, torchvision, transformers, transformers-5 (names in memory) and openmmlab; the suffix of
--output says safetensors or a PyTorch file, and for transformers a directory gets model.safetensors and config.json.
Prints what became of every tensor, reads the written file back and compares the bits. A model card lies beside it:
x.card.json and x.README.md for a file x.safetensors, card.json and README.md in a directory. Where PyTorch and the
other library are installed, logits are compared too: on the pictures named, or on noise.

A segmentation or detection run, or a file with an UperNet or Mask R-CNN, is converted whole, heads and batch statistics
too, between swin_jax, openmmlab, official-dense and (UperNet) transformers and transformers-5: a file of names and
tensors. On a ResNet or ViT they are written as swin_jax alone.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from swin_jax import cli, inputs, pretrained
from swin_jax.data.decode import UnreadablePicture
from swin_jax.exports.arrays import check_bits
from swin_jax.exports.card import load_lines, make_card, write_card
from swin_jax.models.registry import Preprocessing
from swin_jax.origin import Origin, check_run, origin_of, variant
from swin_jax.training.provenance import provenance
from swin_jax.training.run_directory import RunDirectoryError
from swin_jax.weights import FORMATS, OURS, Weights, peers, read_weights, state_of, unflatten, write_weights
from swin_jax.weights.composed import classes_of, family_of, known_family, read_composed, write_composed
from swin_jax.weights.exchange import check_suffix

WEIGHTS = cli.weights_flag()
OUTPUT = cli.output_flag()
TO = flags.DEFINE_enum("to", OURS, FORMATS, "Format to write.")
MODEL = cli.model_flag()
CHECKPOINT = cli.checkpoint_flag()
CHECK = flags.DEFINE_bool("check", True, "Compare logits with the other libraries where they are installed.")
JSON = cli.json_flag()

NOISE_PICTURES = 2
TOLERANCE = 1e-4  # of the largest logit, float32


def main(arguments: Sequence[str]) -> None:
    with cli.one_sentence(ValueError, UnreadablePicture, RunDirectoryError, OSError):
        if not WEIGHTS.value or not OUTPUT.value:
            raise ValueError(
                "both are needed: --weights, a file or a run directory, and --output, what to write"
            )
        report = convert(WEIGHTS.value, OUTPUT.value, TO.value, pictures=arguments[1:])
    print(json.dumps(report) if JSON.value else table(report))
    wrong = [check for check in report["checks"] if check.get("difference", 0.0) > TOLERANCE]
    if wrong:
        cli.fail(f"logits differ from {wrong[0]['library']} by {wrong[0]['difference']:.1e} of their scale")


def convert(source: str, output: str, to: str, *, pictures: Sequence[str] = ()) -> dict[str, Any]:
    """Writes the weights of `source` to `output` and reports. Raises ValueError for what cannot be done."""
    path = Path(output)
    as_directory = to == "transformers" and not path.suffix
    file = path / "model.safetensors" if as_directory else path
    check_suffix(file, to)
    read = pretrained.read(source, checkpoint=CHECKPOINT.value, whole=True)
    if family := family_of(read.params):
        if MODEL.value:
            raise ValueError(f"--model is {MODEL.value!r}, but {source} is {family.name}: leave it out")
        return convert_composed(read, path, to)
    origin = origin_of(read, model=MODEL.value)
    weights, fitted, shown = origin.weights, origin.fitted, origin.preprocessing
    if to != OURS and (other := variant(weights.description.get("model", {}))):
        told = ", ".join(f"{name}={value}" for name, value in other.items())
        raise ValueError(f"{source} has {told}, which no other code base has: only --to={OURS} keeps that")
    written = write_weights(file, fitted.params, to, description=origin.description, image_size=shown.size)
    if as_directory:
        config = peers.transformers_config(origin.architecture, shown.size, origin.class_names)
        (path / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    check_bits(
        file,
        read_weights(file, {name: value.shape for name, value in fitted.params.items()}).params,
        fitted.params,
    )
    cards = write_card(
        file.parent,
        origin.card(file.name, layout="" if to == OURS else to),
        stem="" if as_directory else file.stem,
    )
    return {
        "source": source,
        "format": weights.layout,
        "model": str(origin.architecture),
        "name": origin.name,
        "output": str(file),
        "cards": [str(file.parent / name) for name in cards],
        "to": to,
        "parameters": origin.parameters,
        "tensors": len(written),
        "mapped": {path: list(weights.names.get(path, ())) for path in fitted.params},
        "notes": list(fitted.notes),
        "checks": checks(origin, to, pictures) if CHECK.value else [],
    }


def convert_composed(weights: Weights, file: Path, to: str) -> dict[str, Any]:
    """As `convert`, of a whole segmenter or detector with its statistics. A card is written where the source says what
    it is."""
    check_run(weights)
    known = weights.description
    values = {**weights.params, **weights.statistics}
    described = {
        **known,
        "from": {"file": Path(weights.source).name, "format": weights.layout},
        "versions": provenance(),
    }
    written = write_composed(file, values, to, description=described)
    found = read_composed(file)
    check_bits(file, {**found.params, **found.statistics}, values)
    parameters = sum(value.size for value in weights.params.values())
    family = known_family(weights.params)
    cards, notes = [], [f"logits of a {family.noun} are not compared"]
    if weights.buffers:
        notes.append(f"{len(weights.buffers)} recomputed buffers left out")
    if known.keys() >= {"model", "preprocessing"}:
        load = load_lines(known["model"], file.name, known.get("detection"))
        card = make_card(
            described, parameters=parameters, load=load, files=(file.name,), layout="" if to == OURS else to
        )
        cards = write_card(file.parent, card, stem=file.stem)
    else:
        notes.append("no model card: the file says nothing of its classes and pictures")
    return {
        "source": weights.source,
        "format": weights.layout,
        "model": f"{family.name.partition(' ')[2]}, {classes_of(family, weights.shapes)} classes",
        "name": known.get("model", {}).get("name", "not named in the file"),
        "output": str(file),
        "cards": [str(file.parent / name) for name in cards],
        "to": to,
        "parameters": parameters,
        "tensors": len(written),
        "mapped": {path: list(weights.names.get(path, ())) for path in values},
        "notes": notes,
        "checks": [],
    }


def checks(origin: Origin, to: str, pictures: Sequence[str]) -> list[dict[str, Any]]:
    """Our logits against those of the libraries of both formats: largest difference as a share of the largest logit."""
    weights, params, model, shown = (
        origin.weights,
        origin.fitted.params,
        origin.architecture,
        origin.preprocessing,
    )
    layouts = [layout for layout in dict.fromkeys((weights.layout, to)) if layout != OURS]
    if model.dense or not model.num_classes:
        return [{"format": layout, "skipped": "a model without a head has no logits"} for layout in layouts]
    images = inputs.read_pictures(pictures, shown) if pictures else noise(shown)
    ours: np.ndarray | None = None
    found = []
    for layout in layouts:
        try:
            state = state_of(params, layout, image_size=shown.size)
            theirs, library = peers.peer_logits(layout, state, model, images)
        except peers.Unavailable as error:
            found.append({"format": layout, "skipped": str(error)})
            continue
        if ours is None:
            ours = np.asarray(jax.jit(origin.module.apply)({"params": unflatten(params)}, images))
        difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        agree = int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        found.append(
            {
                "format": layout,
                "library": library,
                "pictures": len(images) if pictures else 0,
                "images": len(images),
                "difference": difference,
                "same_class": agree,
            }
        )
    return found


def noise(shown: Preprocessing) -> np.ndarray:
    """What stands for normalised pictures where none are named, float32 [N, H, W, 3]."""
    generator = np.random.default_rng(0)
    return generator.standard_normal((NOISE_PICTURES, *shown.size, 3)).astype(np.float32)


def table(report: Mapping[str, Any]) -> str:
    """The report for a terminal: what became of every kind of tensor, what else was done, and the checks."""
    lines = [f"{report['source']} ({report['format']}): {report['model']}", f"name: {report['name']}", ""]
    kinds = Counter(
        (re.sub(r"\d+", "*", path), " + ".join(re.sub(r"\d+", "*", name) for name in names))
        for path, names in report["mapped"].items()
    )
    width = max(len(ours) for ours, _ in kinds)
    lines += [f"  {count:>4}  {ours:<{width}}  <- {theirs}" for (ours, theirs), count in kinds.items()]
    lines += ["", *(f"note: {note}" for note in report["notes"])]
    for check in report["checks"]:
        lines.append(f"logits, {check['format']}: {told(check)}")
    lines.append(
        f"written: {report['output']} ({report['to']}; {report['tensors']} tensors, "
        f"{report['parameters']:,} parameters), read back bit for bit"
    )
    if report["cards"]:
        lines.append(f"model card: {', '.join(report['cards'])}")
    return "\n".join(lines)


def told(check: Mapping[str, Any]) -> str:
    if "skipped" in check:
        return f"not compared, {check['skipped']}"
    shown = f"{check['pictures']} pictures" if check["pictures"] else f"{check['images']} images of noise"
    return (
        f"{check['library']} differs by {check['difference']:.1e} of their scale on {shown}, "
        f"same class on {check['same_class']}"
    )


if __name__ == "__main__":
    cli.run(main, takes_arguments=True)
