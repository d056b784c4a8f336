"""Turns weights of other code bases into ours, and ours (a run or a file) into theirs.

    python -m swin_jax.convert --weights=swin_tiny_patch4_window7_224.pth --output=swin_tiny.safetensors
    python -m swin_jax.convert --weights=runs/flowers --to=timm --output=flowers_timm.safetensors photo.jpg
    python -m swin_jax.convert --weights=runs/flowers --to=transformers --output=flowers_transformers

The format of --weights is recognised. --to is one of swin_jax, official, official-dense, timm, torchvision,
transformers, transformers-5 (names in memory) and openmmlab; the suffix of --output says safetensors or a PyTorch
file, and for transformers a directory gets model.safetensors and config.json. Prints what became of every tensor, reads
the written file back and compares the bits. Where PyTorch and the other library are installed, logits are compared
too: on the pictures named, or on noise.
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

from swin_jax import cli, pretrained
from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.examples import ClassificationEval
from swin_jax.data.sources.files import Files
from swin_jax.models.registry import FREE_FORM, Preprocessing, create_model, preprocessing
from swin_jax.models.registry import matching as matching_names
from swin_jax.ops.augment import normalise
from swin_jax.training.provenance import provenance
from swin_jax.weights import (
    FORMATS,
    OURS,
    Weights,
    fit,
    peers,
    read_weights,
    state_of,
    unflatten,
    write_weights,
)
from swin_jax.weights.architecture import Architecture
from swin_jax.weights.exchange import check_suffix

WEIGHTS = flags.DEFINE_string("weights", "", "Weight file of any format, or run directory.")
OUTPUT = flags.DEFINE_string(
    "output", "", "File to write (.safetensors or .pth); a directory for transformers."
)
TO = flags.DEFINE_enum("to", OURS, FORMATS, "Format to write.")
MODEL = flags.DEFINE_string("model", "", "Published name of the model; found by its sizes when empty.")
CHECKPOINT = cli.checkpoint_flag()
CHECK = flags.DEFINE_bool("check", True, "Compare logits with the other libraries where they are installed.")
JSON = cli.json_flag()

NOISE_PICTURES = 2
TOLERANCE = 1e-4  # of the largest logit, float32


def main(arguments: Sequence[str]) -> None:
    with cli.one_sentence(ValueError, UnreadablePicture, OSError):
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
    weights = pretrained.read(source, checkpoint=CHECKPOINT.value)
    model = weights.architecture
    if model is None:
        raise ValueError(f"{source} lacks the embedding, a bias table or a block: it is no whole Swin")
    name, module = named_model(weights, model)
    fitted = fit(weights, pretrained.shapes_of(pretrained.init_shapes(module)))
    shown = described_preprocessing(weights, name, model)
    class_names = tuple(weights.description.get("class_names", ()))
    written = write_weights(
        file,
        fitted.params,
        to,
        description=describe(weights, model, name, shown, class_names),
        image_size=shown.size,
    )
    if as_directory:
        config = peers.transformers_config(model, shown.size, class_names)
        (path / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    check_bits(file, fitted.params)
    return {
        "source": source,
        "format": weights.layout,
        "model": str(model),
        "name": name,
        "output": str(file),
        "to": to,
        "parameters": sum(value.size for value in fitted.params.values()),
        "tensors": len(written),
        "mapped": {path: list(weights.names.get(path, ())) for path in fitted.params},
        "notes": list(fitted.notes),
        "checks": checks(weights, fitted.params, module, model, to, shown, pictures) if CHECK.value else [],
    }


def named_model(weights: Weights, model: Architecture) -> tuple[str, Any]:
    """The published name (or "swin") and a module with these parameters."""
    fields = {
        "embed_dim": model.embed_dim,
        "depths": model.depths,
        "num_heads": model.num_heads,
        "window_size": model.window_size,
        "patch_size": model.patch_size,
    }
    known = MODEL.value or dict(weights.description.get("model", {})).get("name", "")
    names = matching_names(num_classes=model.num_classes, **fields) or matching_names(**fields)
    name = known or (names[0] if names else FREE_FORM)
    if MODEL.value:
        return name, create_model(name, num_classes=model.num_classes, features_only=model.dense)
    more = {
        "mlp_ratio": model.mlp_ratio,
        "qkv_bias": model.qkv_bias,
        "patch_norm": model.patch_norm,
        "features_only": model.dense,
        "absolute_position_embedding": model.absolute_position_embedding,
    }
    if model.dense:
        norms = {path.split("/")[0] for path in weights.params if re.match(r"norm\d+/", path)}
        more |= {"out_indices": tuple(sorted(int(norm.removeprefix("norm")) for norm in norms))}
    if model.absolute_position_embedding:
        rows, columns, _ = weights.params["absolute_pos_embed"].shape
        more |= {"absolute_position_size": (rows * model.patch_size, columns * model.patch_size)}
    return name, create_model(FREE_FORM, num_classes=model.num_classes, **fields, **more)


def described_preprocessing(weights: Weights, name: str, model: Architecture) -> Preprocessing:
    """What the source says its pictures are, else the published, else a size whose last map is one window."""
    told = weights.description.get("preprocessing")
    if told:
        fields: dict[str, Any] = {
            field: tuple(value) if isinstance(value, list) else value for field, value in told.items()
        }
        return Preprocessing(**fields)
    if name != FREE_FORM:
        return preprocessing(name)
    side = model.patch_size * 2 ** (len(model.depths) - 1) * model.window_size
    return Preprocessing((side, side), (side, side))


def describe(
    weights: Weights, model: Architecture, name: str, shown: Preprocessing, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """What our own files carry beside the parameters."""
    return {
        "model": {"name": name, **vars(model)},
        "preprocessing": vars(shown),
        "class_names": list(class_names),
        "from": {"file": Path(weights.source).name, "format": weights.layout},
        "versions": provenance(),
    }


def check_bits(file: Path, params: Mapping[str, np.ndarray]) -> None:
    """Reads a written file back. Raises ValueError if one bit is another, or one name."""
    again = read_weights(file, {path: value.shape for path, value in params.items()})
    same = again.params.keys() == params.keys() and all(
        np.array_equal(
            again.params[path].view(np.uint32), np.asarray(params[path], np.float32).view(np.uint32)
        )
        for path in params
    )
    if not same:
        raise ValueError(f"{file} does not read back as it was written; the disk or a library is at fault")


def checks(
    weights: Weights,
    params: Mapping[str, np.ndarray],
    module: Any,
    model: Architecture,
    to: str,
    shown: Preprocessing,
    pictures: Sequence[str],
) -> list[dict[str, Any]]:
    """Our logits against those of the libraries of both formats: largest difference as a share of the largest logit."""
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
            ours = np.asarray(jax.jit(module.apply)({"params": unflatten(params)}, images))
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
