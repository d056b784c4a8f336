"""Segmenters and detectors of other code bases as our parameters and batch statistics, and back.

The backbone goes by its own layout (`tables.py`, `backbones.py`), the heads by their family's (`upernet.py`,
`mask_rcnn.py`, `cascade.py`). Our own layout has parameters and statistics by their paths.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from swin_jax.weights.architecture import architecture
from swin_jax.weights.backbones import RESNET
from swin_jax.weights.cascade import CASCADE_MASK_RCNN, HTC
from swin_jax.weights.exchange import (
    OURS,
    Weights,
    check_suffix,
    check_values,
    own,
    save_state,
    sort_state,
    state_of,
)
from swin_jax.weights.family import Family
from swin_jax.weights.files import read_arrays
from swin_jax.weights.fit import Fitted, fit
from swin_jax.weights.heads import FRESH
from swin_jax.weights.kinds import Shape
from swin_jax.weights.layouts import State, listed, read_state, write_state
from swin_jax.weights.mask_rcnn import MASK_RCNN
from swin_jax.weights.upernet import UPERNET

FAMILIES = (UPERNET, MASK_RCNN, HTC, CASCADE_MASK_RCNN)  # an HTC has all names of a cascade, too
BACKBONE = "backbone/"


def family_of(names: Iterable[str]) -> Family | None:
    """The family whose heads have these names, of a weight file or ours; None without such heads."""
    names = list(names)
    return next((family for family in FAMILIES if family.knows(names)), None)


def read_composed(path: str | Path) -> Weights:
    """The model of backbone and heads in a weight file, parameters and statistics.

    Args:
      path: a file of ours, OpenMMLab, the published code or transformers.

    Raises:
      ValueError: it cannot be read, or as `composed_of_state`.
    """
    return composed_of_arrays(*read_arrays(path), str(path))


def composed_of_arrays(arrays: State, description: Mapping[str, Any], source: str) -> Weights:
    """As `read_composed`, of what stands in a file and, where it is ours, its description."""
    return _apart(own(arrays, source, description)) if description else composed_of_state(arrays, source)


def write_composed(
    path: str | Path, weights: State, layout: str, *, description: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Writes what `read_composed` reads, as safetensors or (by the suffix) as a PyTorch file; returns what it wrote.

    Args:
      path: the file.
      weights: our path -> array, of parameters and statistics together.
      layout: one of the `formats` of its family.
      description: JSON values for the header of our own layout.

    Raises:
      ValueError: as `state_of_composed`; or the suffix is neither's; or PyTorch is needed and absent.
    """
    path = Path(path)
    state = state_of_composed(weights, layout)
    check_suffix(path, layout)
    save_state(path, state, layout, description)
    return state


def composed_of_state(state: State, source: str) -> Weights:
    """A state dict of another code base as parameters and statistics by our paths.

    The backbone is a Swin in any dense layout, a ResNet, or absent (heads alone).

    Args:
      state: name -> array.
      source: for messages.

    Raises:
      ValueError: the heads are of no family, a name has no place, a value is not finite, or the backbone is neither.
    """
    inside = {name: value for name, value in state.items() if name.startswith("backbone.")}
    heads = {name: value for name, value in state.items() if name not in inside}
    family = family_of(heads)
    layout = None if family is None else family.layout_of(heads)
    if layout is None:
        names = " and ".join(family.name.partition(" ")[2] for family in FAMILIES)
        raise ValueError(
            f"{source} has the heads of no known model ({names}): {listed(heads, most=4) or 'no names'}"
        )
    reading = read_state(heads, layout, "")
    if reading.unknown or reading.problems:
        raise ValueError(f"{source} ({layout.name}): {listed([*reading.problems, *reading.unknown])}")
    backbone = _backbone_of_state(inside, source, layout.name)
    params = {BACKBONE + path: value for path, value in backbone.params.items()} | reading.params
    names = {BACKBONE + path: value for path, value in backbone.names.items()} | reading.names
    check_values(source, state, names)
    unknown = backbone.parts.get("", [])
    if unknown:
        raise ValueError(f"{source} ({backbone.layout}): {listed(unknown)}")
    buffers = (*backbone.buffers, *reading.buffers)
    return _apart(Weights(source, backbone.layout, params, names, buffers, backbone.parts))


def _backbone_of_state(state: State, source: str, beside: str) -> Weights:
    """The names that begin with "backbone."; without any, nothing in the layout of the heads."""
    if not state:
        return Weights(source, beside, {}, {})
    prefix = RESNET.prefix_of(state)
    if prefix is None:
        return sort_state(state, source)
    reading = read_state(state, RESNET, prefix)
    unknown = {"": [*reading.problems, *reading.unknown]}
    return Weights(source, beside, reading.params, reading.names, tuple(reading.buffers), unknown)


def _apart(weights: Weights) -> Weights:
    """The running statistics, which no Swin has, apart from the parameters."""
    statistics = {path: value for path, value in weights.params.items() if path.endswith(("/mean", "/var"))}
    params = {path: value for path, value in weights.params.items() if path not in statistics}
    return dataclasses.replace(weights, params=params, statistics=statistics)


def state_of_composed(weights: State, layout: str) -> dict[str, np.ndarray]:
    """Parameters and statistics together by our paths, as a state dict in one of their family's `formats`.

    Raises:
      ValueError: there is no such layout, or it has no place for a parameter.
    """
    family = known_family(weights)
    if layout not in family.formats:
        name = family.name.partition(" ")[2]
        raise ValueError(f"{name} is not written as {layout!r}; formats: {', '.join(family.formats)}")
    if layout == OURS:
        return dict(weights)
    inside = _inside(weights)
    heads = {path: value for path, value in weights.items() if not path.startswith(BACKBONE)}
    state = write_state(heads, family.heads[family.beside[layout]])
    if inside:
        names = state_of(inside, layout)
        # Files of transformers have no "swin." in the backbone of a larger model; version 5 in memory has.
        if layout == "transformers":
            names = {name.removeprefix("swin."): value for name, value in names.items()}
        state |= {"backbone." + name.removeprefix("backbone."): value for name, value in names.items()}
    return state


def fit_composed(
    weights: Weights, params: Mapping[str, Shape], statistics: Mapping[str, Shape], *, head: str = ""
) -> Fitted:
    """A whole segmenter or detector for the model with these parameters and statistics.

    A Swin's bias tables are resampled to the model's window.

    Args:
      weights: as `read_composed` gives them.
      params, statistics: our path -> shape, of the model.
      head: "" takes the classifiers where the number of classes agrees and fresh ones where not; "fresh" fresh
        ones always.

    Raises:
      ValueError: the weights are of another model, or there is no such `head`.
    """
    check_head(head)
    family = known_family(weights.params)
    found, notes = dict(weights.params), []
    family.check(weights.source, found, params)
    fresh = [path for path in params if _is_fresh(path, family, found, params, head)]
    for path in fresh:
        found.pop(path, None)
    if fresh:
        layers = [layer for layer in family.classifiers if f"{layer}/bias" in fresh]
        old, new = (classes_of(family, shapes) for shapes in (weights.shapes, params))
        other = old != new or head
        why = f"{new} classes, the file has {old}" if other else "of another shape than the file's"
        notes.append(f"{' and '.join(layers)} fresh: {why}")
    wanted = _inside(params)
    swin = dataclasses.replace(weights, params=_inside(found), statistics={}, names=_inside(weights.names))
    if swin.architecture and architecture(wanted):
        backbone = fit(swin, wanted, resample=True)
        notes += backbone.notes
        found |= {BACKBONE + path: value for path, value in backbone.params.items()}
    check_fits(weights.source, {**found, **weights.statistics}, {**params, **statistics}, fresh)
    return Fitted(found, tuple(fresh), tuple(notes), dict(weights.statistics))


def check_head(head: str) -> None:
    """Raises ValueError unless a segmenter or detector may begin with the classifiers that `head` asks for."""
    if head not in ("", FRESH):
        raise ValueError(
            f"init_head is {head!r}; a segmenter's or detector's is {FRESH!r}, or empty for the file's own"
        )


def known_family(paths: Iterable[str]) -> Family:
    """As `family_of`, of parameters that are known to have heads."""
    family = family_of(paths)
    if family is None:
        raise ValueError(f"these are the parameters of no segmenter or detector: {listed(paths, most=4)}")
    return family


def classes_of(family: Family, shapes: Mapping[str, Shape]) -> int:
    """The number of classes of a model with these parameters; 0 without a classifier."""
    bias, more = family.classes
    return shapes[bias][0] - more if bias in shapes else 0


def _is_fresh(path: str, family: Family, found: State, wanted: Mapping[str, Shape], head: str) -> bool:
    """Whether a parameter is a classifier's that the file has in another shape, or that `head` asks for anew."""
    if path.rpartition("/")[0] not in family.classifiers:
        return False
    return bool(head) or (path in found and found[path].shape != tuple(wanted[path]))


def check_fits(source: str, found: State, wanted: Mapping[str, Shape], fresh: Iterable[str] = ()) -> None:
    """Raises ValueError with everything in which `found` differs from `wanted`, but for what is `fresh`."""
    absent = [path for path in wanted if path not in found and path not in set(fresh)]
    problems = [f"missing {path} {wanted[path]}" for path in absent]
    problems += [f"surplus {path} {value.shape}" for path, value in found.items() if path not in wanted]
    problems += [
        f"{path} is {found[path].shape}, expected {shape}"
        for path, shape in wanted.items()
        if path in found and found[path].shape != tuple(shape)
    ]
    if problems:
        raise ValueError(f"{source} does not fit the model: {listed(problems)}")


def _inside(values: Mapping[str, Any]) -> dict[str, Any]:
    """What stands under the backbone, by its own paths."""
    return {path.removeprefix(BACKBONE): value for path, value in values.items() if path.startswith(BACKBONE)}
