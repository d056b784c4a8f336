"""Prints parameters and multiply-accumulates of every registered model beside the published figures.

Example:
  python -m swin_jax.summary
  python -m swin_jax.summary --json

With --json one object a line, with the keys model, image_size, classes, params, macs; image_size is the side
of the published square picture. MACs follow the formula of the official code. Nothing is allocated:
parameters are counted on shapes.
"""

import dataclasses
import json
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from swin_jax import cli
from swin_jax.models import registry
from swin_jax.models.complexity import swin_macs

JSON = cli.json_flag()


@dataclasses.dataclass(frozen=True)
class Row:
    """What is printed of one model; `image_size` is the side of its picture in pixels."""

    model: str
    image_size: int
    classes: int
    params: int
    macs: int


def summarize(name: str) -> Row:
    """Counts the parameters and multiply-accumulates of one registered model."""
    model = registry.create_model(name)
    height, width = registry.preprocessing(name).size
    # Parameters do not depend on the picture; a small one is quicker to trace.
    picture = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), picture)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))
    return Row(name, height, model.num_classes, params, swin_macs(model, height, width))


def table(rows: list[Row]) -> str:
    """The rows as text, ours and the published figure side by side."""
    lines = [
        f"{'model':<36}{'image':>7}{'classes':>9}{'params':>14}{'published':>11}{'MACs':>10}{'published':>11}"
    ]
    for row in rows:
        figures = registry.published(row.model)
        lines.append(
            f"{row.model:<36}{row.image_size:>7}{row.classes:>9}{row.params:>14,}"
            f"{_rounded(figures.params, 1e6, 'M', 0):>11}{row.macs / 1e9:>9.3f}G"
            f"{_rounded(figures.macs, 1e9, 'G', 1):>11}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Prints the table, or with --json one object a line."""
    del argv
    if JSON.value:
        for name in registry.model_names():
            print(json.dumps(dataclasses.asdict(summarize(name))), flush=True)
    else:
        print(table([summarize(name) for name in registry.model_names()]))


def _rounded(figure: float | None, unit: float, symbol: str, digits: int) -> str:
    return "-" if figure is None else f"{figure / unit:.{digits}f}{symbol}"


if __name__ == "__main__":
    cli.run(main)
