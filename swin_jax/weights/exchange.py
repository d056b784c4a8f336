"""Weight files to our parameters and back: the format is recognised from the names, every name is accounted for."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from swin_jax.weights.architecture import Architecture, architecture, family, parts
from swin_jax.weights.files import (
    DESCRIPTION,
    PICKLES,
    SUFFIXES,
    read_arrays,
    write_pickle,
    write_safetensors,
)
from swin_jax.weights.kinds import Shape
from swin_jax.weights.layouts import Layout, listed, read_state, write_state
from swin_jax.weights.tables import LAYOUTS

OURS = "swin_jax"
"""The layout of our own files: our paths, our arrangement."""
FORMATS = (OURS, *LAYOUTS)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters from outside, in our paths and arrangement.

    Attributes:
      source: the file or run directory, for messages.
      layout: one of `FORMATS`.
      params: our path -> float32 array.
      names: our path -> the names in the file.
      buffers: names of recomputed tensors, which are left out.
      parts: what else the file holds -> its names; "" for names nobody knows.
      description: of one of our own files: model, class names, preprocessing, versions.
      statistics: our path -> float32 array of the running statistics of batch norms, where they are asked for.
    """

    source: str
    layout: str
    params: Mapping[str, np.ndarray]
    names: Mapping[str, tuple[str, ...]]
    buffers: tuple[str, ...] = ()
    parts: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    statistics: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, Shape]:
        return {path: value.shape for path, value in self.params.items()}

    @property
    def architecture(self) -> Architecture | None:
        return architecture(self.shapes)


def read_weights(path: str | Path, wanted: Mapping[str, Shape] | None = None) -> Weights:
    """The Swin in a weight file.

    Args:
      path: a `.safetensors`, `.pth`, `.pt` or `.bin` file in any of `FORMATS`.
      wanted: our path -> shape of the model it is for, if known: settles the rows of a position embedding.

    Raises:
      ValueError: it cannot be read, is no Swin V1, or its tensors are no finite floats of the right axes.
    """
    arrays, description = read_arrays(path)
    return own(arrays, str(path), description) if description else sort_state(arrays, str(path), wanted)


def own(arrays: Mapping[str, np.ndarray], source: str, description: Mapping[str, Any]) -> Weights:
    """One of our own files as `Weights`. Raises ValueError as `read_weights`."""
    names = {name: (name,) for name in arrays}
    check_values(source, arrays, names)
    return Weights(source, OURS, arrays, names, description=description)


def sort_state(
    state: Mapping[str, np.ndarray], source: str, wanted: Mapping[str, Shape] | None = None
) -> Weights:
    """A state dict, name -> array, as `Weights`. Raises ValueError as `read_weights`."""
    layout, prefix = recognise(state, source)
    reading = read_state(state, layout, prefix, wanted)
    if reading.problems:
        raise ValueError(f"{source} ({layout.name}): {listed(reading.problems)}")
    check_values(source, {**state}, reading.names)
    return Weights(
        source,
        layout.name,
        reading.params,
        reading.names,
        tuple(reading.buffers),
        parts(reading.unknown),
    )


def recognise(state: Mapping[str, Any], source: str) -> tuple[Layout, str]:
    """The layout of a state dict and the prefix of the model's names.

    Raises:
      ValueError: it is none of ours; the sentence says what the names look like.
    """
    other = family(state)
    if other:
        raise ValueError(f"{source} is {other}; only Swin V1 is read into this model")
    for layout in LAYOUTS.values():
        prefix = layout.prefix_of(state)
        if prefix is not None:
            return layout, prefix
    raise ValueError(
        f"{source} has the names of no Swin ({listed(state, most=4)}); formats: {', '.join(FORMATS)}"
    )


def check_values(
    source: str | Path, state: Mapping[str, np.ndarray], names: Mapping[str, tuple[str, ...]]
) -> None:
    """Raises ValueError unless all that is used are finite floats."""
    used = [name for group in names.values() for name in group]
    whole = [f"{name} ({state[name].dtype})" for name in used if state[name].dtype.kind != "f"]
    if whole:
        raise ValueError(f"{source}: parameters must be floats, these are not: {listed(whole)}")
    wild = [name for name in used if not np.isfinite(state[name]).all()]
    if wild:
        raise ValueError(f"{source} has values that are not finite (NaN or infinity) in {listed(wild)}")


def state_of(
    params: Mapping[str, np.ndarray],
    layout: str,
    *,
    image_size: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Our parameters as the state dict of a layout, with the buffers that a strict load there expects.

    Args:
      params: our path -> array.
      layout: one of `FORMATS`.
      image_size: (height, width) the official classifier is made for: its masks depend on it. None leaves the
        buffers out.

    Raises:
      ValueError: there is no such layout, or it has no place for a parameter.
    """
    if layout == OURS:
        return dict(params)
    if layout not in LAYOUTS:
        raise ValueError(f"there is no format {layout!r}; formats: {', '.join(FORMATS)}")
    table = LAYOUTS[layout]
    state = write_state(params, table)
    model = architecture({path: value.shape for path, value in params.items()})
    if table.write_buffers is None or image_size is None or model is None:
        return state
    buffers = table.write_buffers(model.depths, model.window_size, image_size, model.patch_size)
    return state | {table.prefix + name: value for name, value in buffers.items()}


def write_weights(
    path: str | Path,
    params: Mapping[str, np.ndarray],
    layout: str = OURS,
    *,
    description: Mapping[str, Any] | None = None,
    image_size: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Writes parameters in a layout, as safetensors or (by the suffix) as a PyTorch file; returns what it wrote.

    Our own layout is safetensors with `description` as JSON in its header.

    Raises:
      ValueError: as `state_of`; or the suffix does not fit the layout; or PyTorch is needed and absent.
    """
    path = Path(path)
    check_suffix(path, layout)
    state = state_of(params, layout, image_size=image_size)
    save_state(path, state, layout, description)
    return state


def save_state(
    path: Path, state: Mapping[str, np.ndarray], layout: str, description: Mapping[str, Any] | None
) -> None:
    """Writes a state dict that is in `layout` already: as PyTorch by the suffix, else as safetensors."""
    if path.suffix in PICKLES:
        write_pickle(path, state, LAYOUTS[layout].container)
    elif layout == OURS:
        write_safetensors(path, state, {DESCRIPTION: json.dumps(dict(description or {}) | {"format": 1})})
    else:
        write_safetensors(path, state, {"format": "pt"})


def check_suffix(path: Path, layout: str) -> None:
    """Raises ValueError unless a file of this name can hold the layout."""
    wanted = (".safetensors",) if layout == OURS else SUFFIXES
    if path.suffix not in wanted:
        raise ValueError(f"{path} must end in {' or '.join(wanted)} to hold the format {layout!r}")
