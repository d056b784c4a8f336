"""Programs as StableHLO through `jax.export`: one file for CPU, CUDA and TPU, made on any machine, any batch size.

The parameters are inside. jax promises that later versions read the file for six months after it was written, and
earlier ones for three weeks (jax.export, "Compatibility guarantees"). It needs jax and none of this package:
`jax.export.deserialize(bytearray(data)).call(images)`.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from swin_jax.exports.frozen import BATCH, Frozen

PLATFORMS = ("cpu", "cuda", "tpu")
FILE = "model.stablehlo"
DESCRIPTION = "export.json"


@dataclasses.dataclass(frozen=True)
class Program:
    """A program read back: call it with pictures [batch, height, width, 3].

    Attributes:
      exported: as jax has it: `platforms`, `in_avals`, `out_avals`, `mlir_module()`.
      call: compiled for each size of batch at its first use.
      description: what was written beside it; empty if it came alone.
    """

    exported: export.Exported
    call: Callable[[Any], tuple[jax.Array, ...]]
    description: Mapping[str, Any]

    def __call__(self, images: Any) -> jax.Array | tuple[jax.Array, ...]:
        """Its output, a tuple if there are several. Raises ValueError for pictures of another size or type."""
        images = np.asarray(images) if not isinstance(images, jax.Array) else images
        wanted = self.exported.in_avals[0]
        if images.shape[1:] != wanted.shape[1:] or images.dtype != wanted.dtype:
            expected = f"{wanted.dtype} [{', '.join(map(str, wanted.shape))}]"
            raise ValueError(f"the program takes {expected}, got {images.dtype} {list(images.shape)}")
        found = self.call(images)
        return found[0] if len(found) == 1 else found


def write(path: Path, frozen: Frozen) -> None:
    """Writes the program for all of `PLATFORMS`, with a symbolic batch."""
    (batch,) = export.symbolic_shape(BATCH)
    pictures = jax.ShapeDtypeStruct((batch, *frozen.size, 3), np.dtype(frozen.dtype))
    exported = export.export(jax.jit(frozen.call), platforms=PLATFORMS)(pictures)
    path.write_bytes(exported.serialize())


def load(path: str | Path) -> Program:
    """The program in a `.stablehlo` file, or in the directory that `swin_jax.export` wrote.

    Raises:
      ValueError: there is none, or it is damaged.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file} does not exist: name a directory or .stablehlo file of swin_jax.export")
    try:
        exported = export.deserialize(bytearray(file.read_bytes()))
    except Exception as error:  # what a damaged file raises is the flatbuffer reader's affair
        raise ValueError(f"{file} is no program of jax.export, or is damaged: export it again") from error
    beside = file.parent / DESCRIPTION
    description = json.loads(beside.read_text()) if beside.is_file() else {}
    return Program(exported, jax.jit(exported.call), description)
