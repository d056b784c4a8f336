"""Table 5: what each way of attention costs, layer by layer and in the whole model, on the device at hand.

All methods are timed in turn within every repeat, so that what else the machine does meets them alike.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.measure.timing import Spread, interleaved
from swin_jax.models.checks import check_choice
from swin_jax.models.registry import create_swin
from swin_jax.models.token_mixing import make_mixer
from swin_jax.training.preflight import check_workdir
from swin_jax.training.run_directory import write_atomically


class Method(NamedTuple):
    """One row: the fields of a Swin, and the published milliseconds of the layer in each stage and images per second
    of Swin-T, S and B on a V100."""

    title: str
    fields: Mapping[str, Any]
    layer_ms: tuple[float, ...]
    images_per_second: tuple[int, ...]


class Size(NamedTuple):
    """What is timed at a scale: models with further fields, pictures of a side, so many of them."""

    models: tuple[str, ...]
    fields: Mapping[str, Any]
    side: int
    batch: int
    repeats: int
    seconds: float


Found = dict[str, dict[str, dict[str, list[float]]]]
WORKS = ("forward", "forward and backward")
log = logging.getLogger(__name__)


def study(module: ModuleType, scale: str, directory: Path) -> None:
    """Measures a table of `METHODS` at one of its `SIZES`, prints it and writes table.md and table.json.

    Both are written after every layer and model: an accelerator compiles for minutes; who stops keeps what there is.

    Raises:
      ValueError: the scale is unknown, or the directory cannot be written.
    """
    check_choice("scale", scale, tuple(module.SIZES))
    check_workdir(str(directory))
    size: Size = module.SIZES[scale]
    text = ""
    for found in measure(module.METHODS, size):
        text = markdown(module.METHODS, module.BASE, size, found)
        write_atomically(directory / "table.md", text.encode())
        record = {
            "scale": scale,
            "size": size._asdict(),
            "device": jax.devices()[0].device_kind,
            "seconds": found,
        }
        write_atomically(directory / "table.json", json.dumps(record, indent=1).encode() + b"\n")
        log.info("measured: %s", ", ".join(f"{work} {place}" for work in found for place in found[work]))
    print(text)


def measure(methods: Mapping[str, Method], size: Size) -> Iterator[Found]:
    """Seconds, a value per repeat: work -> what (stage0 .. of the first model, or a model) -> method; ever more."""
    found: Found = {}
    for work in WORKS:
        found[work] = {}
        first = size.models[0]
        for stage in range(len(create_swin(first, "the study of attention's time", **size.fields).depths)):
            runs = {name: _layer(first, method, size, stage, work) for name, method in methods.items()}
            found[work][f"stage{stage}"] = _timed(runs, size)
            yield found
        for model in size.models:
            runs = {name: _model(model, method, size, work) for name, method in methods.items()}
            found[work][model] = _timed(runs, size)
            yield found


def markdown(
    methods: Mapping[str, Method],
    base: str,
    size: Size,
    found: Mapping[str, Mapping[str, Mapping[str, list[float]]]],
) -> str:
    """Milliseconds with their spread, and how many times as long as `base` each method takes, the paper's beside it."""
    device = jax.devices()[0].device_kind
    lines = [
        f"Batch {size.batch}, {size.side} x {size.side}, f32, {device}; median (least .. greatest) of {size.repeats} "
        f"repeats in one run, milliseconds; in brackets: times as long as {methods[base].title!r}, then the paper's "
        "ratio on a V100.",
    ]
    for work, places in found.items():
        lines += ["", f"| {work} | {' | '.join(places)} |", f"|{'---|' * (len(places) + 1)}"]
        for name, method in methods.items():
            cells = [method.title]
            for number, (place, times) in enumerate(places.items()):
                spread = Spread.of([1000 * value for value in times[name]])
                ratio = np.median(np.array(times[name]) / np.array(times[base]))
                cells.append(
                    f"{spread.text()} [{ratio:.2f}, {_published(methods, base, name, place, number)}]"
                )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _published(methods: Mapping[str, Method], base: str, name: str, place: str, number: int) -> str:
    method, reference = methods[name], methods[base]
    if place.startswith("stage"):
        ours = method.layer_ms[number : number + 1], reference.layer_ms[number : number + 1]
        return f"{ours[0][0] / ours[1][0]:.2f}" if ours[0] else ""
    index = next((i for i, size in enumerate(("tiny", "small", "base")) if size in place), None)
    if index is None:
        return ""
    return f"{reference.images_per_second[index] / method.images_per_second[index]:.2f}"


def _timed(runs: Mapping[str, Any], size: Size) -> dict[str, list[float]]:
    return interleaved(runs, repeats=size.repeats, seconds=size.seconds)


def _layer(name: str, method: Method, size: Size, stage: int, work: str) -> Any:
    """The attention layer of a shifted block, alone, on the map of a stage."""
    model = create_swin(name, "the study of attention's time", **{**size.fields, **method.fields})
    side = -(-size.side // (model.patch_size * 2**stage))
    layer = make_mixer(model)(num_heads=model.num_heads[stage], shifted=True)
    x = jnp.asarray(
        np.random.default_rng(0).standard_normal((size.batch, side, side, model.embed_dim * 2**stage)),
        jnp.float32,
    )
    return _run(layer, x, work)


def _model(name: str, method: Method, size: Size, work: str) -> Any:
    images = np.random.default_rng(0).standard_normal((size.batch, size.side, size.side, 3))
    return _run(
        create_swin(name, "the study of attention's time", **{**size.fields, **method.fields}),
        jnp.asarray(images, jnp.float32),
        work,
    )


def _run(module: Any, x: jax.Array, work: str) -> Any:
    """Does the work once, to its end; compiled before it is timed."""
    variables = jax.jit(lambda key: module.init(key, x, False))(jax.random.key(0))

    def forward(variables: Any, x: jax.Array) -> jax.Array:
        return module.apply(variables, x, False)

    def total(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(forward(variables, x) ** 2)

    work_of = {WORKS[0]: forward, WORKS[1]: jax.grad(total, argnums=(0, 1))}
    compiled = jax.jit(work_of[work]).lower(variables, x).compile()
    return lambda: jax.block_until_ready(compiled(variables, x))
