"""Turns weights of other code bases into ours, and ours (a run or a file) into theirs.

    python -m swin_jax.convert --weights=swin_tiny_patch4_window7_224.pth --output=swin_tiny.safetensors
    python -m swin_jax.convert --weights=runs/flowers --to=timm --output=flowers_timm.safetensors photo.jpg
    python -m swin_jax.convert --weights=runs/flowers --to=transformers --output=flowers_transformers

The format of --weights is recognised, and so is the model where --model is not given. --to is one of swin_jax,
official, official-dense, timm, torchvision, transformers, transformers-5 (names in memory) and openmmlab; the suffix of
--output says safetensors or a PyTorch file, and for transformers a directory gets model.safetensors and config.json.
Prints what became of every tensor, reads the written file back and compares the bits. A model card lies beside it:
x.card.json and x.README.md for a file x.safetensors, card.json and README.md in a directory. Where PyTorch and the
other library are installed, logits are compared too: on the pictures named, or on noise.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from swin_jax import cli
from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.examples import ClassificationEval
from swin_jax.data.sources.files import Files
from swin_jax.exports.arrays import check_bits
from swin_jax.exports.card import write_card
from swin_jax.models.registry import Preprocessing
from swin_jax.ops.augment import normalise
from swin_jax.origin import Origin, open_origin
from swin_jax.training.run_directory import RunDirectoryError
from swin_jax.weights import FORMATS, OURS, peers, read_weights, state_of, unflatten, write_weights
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
    origin = open_origin(source, model=MODEL.value, checkpoint=CHECKPOINT.value)
    weights, fitted, shown = origin.weights, origin.fitted, origin.preprocessing
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
    images = read_pictures(pictures, shown)
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


def read_pictures(paths: Sequence[str], shown: Preprocessing) -> np.ndarray:
    """Pictures as the model sees them, float32 [N, H, W, 3]; noise where none are named."""
    if not paths:
        generator = np.random.default_rng(0)
        return generator.standard_normal((NOISE_PICTURES, *shown.size, 3)).astype(np.float32)
    example = ClassificationEval(size=shown.size, resize=shown.resize, interpolation=shown.interpolation)
    source, rng = Files(paths), np.random.default_rng(0)
    pixels = np.stack([example(source[index], rng)["image"] for index in range(len(source))])
    return np.asarray(normalise(jnp.asarray(pixels), shown.mean, shown.std))


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
