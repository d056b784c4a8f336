"""Writes weights as frozen programs and plain arrays, for other places than this package.

    python -m swin_jax.export --weights=runs/flowers --output=flowers --preprocess
    python -m swin_jax.export --weights=swin_tiny_patch4_window7_224.pth --output=tiny --formats=stablehlo,onnx

--weights is a weight file of any known format or a run directory; the format is recognised, and so is the model where
--model is not given. The directory --output gets, by --formats:

    stablehlo    model.stablehlo, one program for CPU, CUDA and TPU (jax.export), made on any machine
    onnx         model.onnx, by jax2onnx, which is to be installed besides
    safetensors  params.safetensors, the parameters by their paths; swin_jax.load and train read it
    npz          params.npz, the same for numpy

and export.json (what goes in and comes out, class names, preprocessing, versions) and a model card, card.json and
README.md. Programs take any number of pictures of one size: normalised float32 [batch, height, width, 3] gives logits
(a backbone: maps); with --preprocess uint8 pictures give probabilities. Each file is read back: arrays bit for bit,
programs are run on the CPU on noise, for two sizes of batch. Segmenters and detectors are not exported; convert writes
them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from swin_jax import cli
from swin_jax.experiment import DTYPES
from swin_jax.exports import arrays, onnx, stablehlo
from swin_jax.exports.card import write_card
from swin_jax.exports.frozen import BATCH, Frozen, difference, freeze
from swin_jax.models.registry import Preprocessing
from swin_jax.origin import Origin, open_origin
from swin_jax.training.run_directory import CONFIG, RunDirectoryError
from swin_jax.weights import unflatten

FORMATS = ("stablehlo", "onnx", "npz", "safetensors")
PROGRAMS = ("stablehlo", "onnx")
CHECKED_BATCHES = (1, 3)
TOLERANCES = {  # of the largest value; bfloat16 has 8 significant bits, and programs are fused in different ways
    ("stablehlo", "float32"): 1e-5,
    ("onnx", "float32"): 1e-4,
    ("stablehlo", "bfloat16"): 3e-2,
    ("onnx", "bfloat16"): 3e-2,
}

WEIGHTS = cli.weights_flag()
OUTPUT = cli.output_flag()
MODEL = cli.model_flag()
CHECKPOINT = cli.checkpoint_flag()
WRITTEN = flags.DEFINE_list("formats", ["stablehlo", "safetensors"], f"Of {', '.join(FORMATS)}.")
PREPROCESS = flags.DEFINE_bool("preprocess", False, "uint8 pictures in, probabilities out.")
SIZE = flags.DEFINE_string("size", "", "Picture size HEIGHTxWIDTH; by default the model's own.")
DTYPE = flags.DEFINE_enum("dtype", "float32", sorted(DTYPES), "Of activations and matrix products.")
SCAN = flags.DEFINE_bool("scan", False, "Keep long stages as loops: a smaller program, and quicker compiled.")
JSON = cli.json_flag()


def main(_: Sequence[str]) -> None:
    with cli.one_sentence(ValueError, RunDirectoryError, OSError):
        if not WEIGHTS.value or not OUTPUT.value:
            raise ValueError(
                "both are needed: --weights, a file or a run directory, and --output, a directory"
            )
        formats = check_formats(WRITTEN.value)
        directory = check_directory(OUTPUT.value)
        size = parse_size(SIZE.value)
        origin = open_origin(WEIGHTS.value, model=MODEL.value, checkpoint=CHECKPOINT.value)
        report = export(
            origin,
            directory,
            formats,
            inside=PREPROCESS.value,
            size=size,
            dtype=DTYPE.value,
            scan=SCAN.value,
        )
    print(json.dumps(report) if JSON.value else table(report))
    for written in report["files"]:
        worst = max([check["difference"] for check in written["checks"]], default=0.0)
        if not worst <= TOLERANCES.get((written["format"], DTYPE.value), 0.0):  # NaN is wrong, too
            cli.fail(f"{written['file']} differs from the model by {worst:.1e} of its scale")


def check_formats(wanted: Sequence[str]) -> tuple[str, ...]:
    """In the order of `FORMATS`. Raises ValueError for unknown ones, none, or one whose library is absent."""
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown or not wanted:
        raise ValueError(f"--formats is {','.join(wanted)!r}; give some of {', '.join(FORMATS)}")
    if "onnx" in wanted:
        onnx.converter()
    return tuple(name for name in FORMATS if name in wanted)


def check_directory(path: str) -> Path:
    directory = Path(path)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"--output={path} is a file; name a directory")
    if (directory / CONFIG).exists():
        raise ValueError(
            f"--output={path} has a {CONFIG}: it is a run or belongs to something else; name a new one"
        )
    return directory


def parse_size(text: str) -> tuple[int, int] | None:
    """(height, width) of "448x320"; None for "". Raises ValueError for anything else."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if text and not found:
        raise ValueError(f"--size is {text!r}; write HEIGHTxWIDTH, such as 448x320")
    return (int(found[1]), int(found[2])) if found else None


def export(
    origin: Origin,
    directory: Path,
    formats: Sequence[str],
    *,
    inside: bool = False,
    size: tuple[int, int] | None = None,
    dtype: str = "float32",
    scan: bool = False,
) -> dict[str, Any]:
    """Writes `formats` into `directory`, checks what it wrote, and reports.

    Args:
      origin: the weights.
      directory: is made if missing.
      formats: some of `FORMATS`.
      inside: programs take uint8 pictures and normalise them; a classifier gives probabilities.
      size: of the pictures, (height, width); None for the model's own.
      dtype: of the programs' activations.
      scan: long stages stay loops in the programs.

    Raises:
      ValueError: a library is absent, or what was written does not read back.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with jax.default_device(jax.devices("cpu")[0]):
        frozen = freeze_origin(origin, inside=inside, size=size, dtype=dtype, scan=scan)
        written = [file for name in formats for file in write(name, directory, frozen, origin)]
    described = (
        describe(origin, frozen, written, dtype) if set(formats) & set(PROGRAMS) else origin.description
    )
    (directory / stablehlo.DESCRIPTION).write_text(json.dumps(described, indent=1) + "\n")
    files = tuple(file["file"] for file in written)
    card = origin.card(
        arrays.SAFETENSORS if arrays.SAFETENSORS in files else "",
        files=files,
        load=loading(directory.name, formats, frozen),
    )
    cards = write_card(directory, card)
    return {
        "source": origin.weights.source,
        "format": origin.weights.layout,
        "model": str(origin.architecture),
        "name": origin.name,
        "parameters": origin.parameters,
        "output": str(directory),
        "input": described.get("input"),
        "outputs": described.get("outputs"),
        "files": written,
        "beside": [stablehlo.DESCRIPTION, *cards],
        "notes": list(origin.fitted.notes),
    }


def freeze_origin(
    origin: Origin, *, inside: bool, size: tuple[int, int] | None, dtype: str, scan: bool
) -> Frozen:
    shown = origin.preprocessing
    pictures = Preprocessing(size or shown.size, shown.resize, shown.interpolation, shown.mean, shown.std)
    module = origin.module.clone(dtype=DTYPES[dtype], scan=scan)
    params = {path: jnp.asarray(value) for path, value in origin.fitted.params.items()}
    return freeze(module, unflatten(params), pictures, inside=inside)


def write(name: str, directory: Path, frozen: Frozen, origin: Origin) -> list[dict[str, Any]]:
    """Writes one format: its files, the first with what its check found."""
    params, found = origin.fitted.params, []
    if name == "stablehlo":
        files = [directory / stablehlo.FILE]
        stablehlo.write(files[0], frozen)
        program = stablehlo.load(files[0])
        found = compare(frozen, lambda images: [np.asarray(value) for value in program.call(images)])
    elif name == "onnx":
        files = onnx.write(directory / onnx.FILE, frozen)
        found = compare(frozen, lambda images: onnx.run(files[0], images))
    elif name == "npz":
        files = [directory / arrays.NPZ]
        arrays.write_npz(files[0], params)
    else:
        files = [directory / arrays.SAFETENSORS]
        arrays.write_safetensors(files[0], params, origin.description)
    return [
        {
            "file": file.name,
            "format": name,
            "bytes": file.stat().st_size,
            "checks": found if file == files[0] else [],
        }
        for file in files
    ]


def compare(frozen: Frozen, program: Any) -> list[dict[str, Any]]:
    """The difference on noise for each of `CHECKED_BATCHES`; none where nothing can run the program."""
    found = []
    for batch in CHECKED_BATCHES:
        images = frozen.noise(batch)
        theirs = program(images)
        if theirs is not None:
            found.append({"batch": batch, "difference": difference(frozen.reference(images), theirs)})
    return found


def describe(
    origin: Origin, frozen: Frozen, written: Sequence[Mapping[str, Any]], dtype: str
) -> dict[str, Any]:
    """What `export.json` says: what goes in, what comes out, where it runs, and what the weights are."""
    shapes = jax.eval_shape(frozen.call, jax.ShapeDtypeStruct((1, *frozen.size, 3), frozen.dtype))
    return {
        "format": 1,
        "input": {
            "name": onnx.INPUT,
            "shape": [BATCH, *frozen.size, 3],
            "dtype": frozen.dtype,
            "normalised": frozen.dtype != "uint8",
        },
        "outputs": [
            {"name": name, "shape": [BATCH, *value.shape[1:]], "dtype": str(value.dtype)}
            for name, value in zip(frozen.outputs, shapes, strict=True)
        ],
        "compute_dtype": dtype,
        "platforms": list(stablehlo.PLATFORMS),
        "files": list(written),
        **origin.description,
    }


def loading(directory: str, formats: Sequence[str], frozen: Frozen) -> tuple[str, ...]:
    """Lines of Python that call the programs."""
    out = ", ".join(frozen.outputs)
    lines = {
        "stablehlo": (
            "from swin_jax import exports",
            f'program = exports.load("{directory}")',
            f"{out} = program(images)",
        ),
        "onnx": (
            "import onnxruntime",
            f'session = onnxruntime.InferenceSession("{directory}/{onnx.FILE}")',
            f'{out}{"," * (len(frozen.outputs) == 1)} = session.run(None, {{"{onnx.INPUT}": images}})',
        ),
    }
    return tuple(line for name in formats for line in lines.get(name, ()))


def table(report: Mapping[str, Any]) -> str:
    """The report for a terminal."""
    lines = [f"{report['source']} ({report['format']}): {report['model']}", f"name: {report['name']}"]
    if report["input"]:
        values = [report["input"], *report["outputs"]]
        told = [
            f"{value['name']} {value['dtype']} [{', '.join(map(str, value['shape']))}]" for value in values
        ]
        lines.append(f"program: {told[0]} -> {', '.join(told[1:])}")
    lines += [*(f"note: {note}" for note in report["notes"]), ""]
    width = max(len(written["file"]) for written in report["files"])
    for written in report["files"]:
        size = f"{written['bytes'] / 1e6:,.1f} MB"
        lines.append(f"  {written['file']:<{width}}  {size:>12}  {told_checks(written)}")
    lines += ["", f"written to {report['output']}, with {', '.join(report['beside'])}"]
    return "\n".join(lines)


def told_checks(written: Mapping[str, Any]) -> str:
    if written["checks"]:
        each = [f"{check['difference']:.1e} at batch {check['batch']}" for check in written["checks"]]
        return f"differs from the model by {', '.join(each)} (of its scale)"
    if written["format"] not in PROGRAMS:
        return "read back bit for bit"
    if written["file"] == onnx.FILE:
        return "not run: onnxruntime is not installed"
    return "data of the program"


if __name__ == "__main__":
    cli.run(main)
