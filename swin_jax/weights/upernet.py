"""UperNet of OpenMMLab and transformers as our parameters and batch statistics, and back.

The backbone goes by its own layout (`tables.py`), the heads by the rows here.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from swin_jax.weights.exchange import check_suffix, sort_state, state_of
from swin_jax.weights.files import PICKLES, read_arrays, write_pickle, write_safetensors
from swin_jax.weights.kinds import Shape
from swin_jax.weights.layouts import Layout, State, listed, read_state, rows, write_state
from swin_jax.weights.tables import LAYOUTS

POOL_SCALES = (1, 2, 3, 6)
BACKBONE = "backbone/"


def _layout(name: str, norm: str, classifier: str) -> Layout:
    """The rows of the heads; the code bases differ in what they call a norm and the classifier."""
    blocks = (
        *(
            (f"decode_head/pool{scale}", f"decode_head.psp_modules.{i}.1")
            for i, scale in enumerate(POOL_SCALES)
        ),
        ("decode_head/bottleneck", "decode_head.bottleneck"),
        ("decode_head/lateral{i}", "decode_head.lateral_convs.{i}"),
        ("decode_head/fpn{i}", "decode_head.fpn_convs.{i}"),
        ("decode_head/fuse", "decode_head.fpn_bottleneck"),
        ("auxiliary_head/conv{i}", "auxiliary_head.convs.{i}"),
    )
    table = [(f"{ours}/conv", f"{theirs}.conv", "convolution") for ours, theirs in blocks]
    table += [(f"{ours}/bn", f"{theirs}.{norm}", "batch_norm") for ours, theirs in blocks]
    for head in ("decode_head", "auxiliary_head"):
        table.append((f"{head}/classifier", f"{head}.{classifier}", "convolution"))
    mark = rf"decode_head\.bottleneck\.{norm}\.\w+"
    return Layout(name, rows(*table), marks=(mark,), anchor=mark)


HEADS = {
    "openmmlab": _layout("openmmlab", "bn", "conv_seg"),
    "transformers": _layout("transformers", "batch_norm", "classifier"),
}
# The backbone's layout of a state dict that is written -> that of the heads beside it.
HEADS_BESIDE = {
    "openmmlab": "openmmlab",
    "official-dense": "openmmlab",
    "transformers": "transformers",
    "transformers-5": "transformers",
}

Collections = dict[str, dict[str, np.ndarray]]


def read_upernet(path: str | Path, wanted: Mapping[str, Mapping[str, Shape]]) -> Collections:
    """The UperNet in a weight file, as `{"params": path -> array, "batch_stats": path -> array}`.

    Args:
      path: a file of OpenMMLab, the published code or transformers.
      wanted: collection -> path -> shape, of the model it is for.

    Raises:
      ValueError: as `upernet_of_state`; or it is of another model: everything that differs is listed.
    """
    found = upernet_of_state(read_arrays(path)[0], str(path))
    problems = []
    for collection, shapes in wanted.items():
        values = found[collection]
        problems += [f"missing {name} {shape}" for name, shape in shapes.items() if name not in values]
        problems += [f"surplus {name} {value.shape}" for name, value in values.items() if name not in shapes]
        problems += [
            f"{name} is {values[name].shape}, expected {shape}"
            for name, shape in shapes.items()
            if name in values and values[name].shape != shape
        ]
    if problems:
        raise ValueError(f"{path} does not fit the model: {listed(problems)}")
    return found


def write_upernet(path: str | Path, collections: Mapping[str, State], layout: str) -> None:
    """Writes what `read_upernet` reads, as safetensors or (by the suffix) as a PyTorch file.

    Raises:
      ValueError: as `state_of_upernet`; or the suffix is neither's; or PyTorch is needed and absent.
    """
    path = Path(path)
    check_suffix(path, layout)
    state = state_of_upernet(collections, layout)
    if path.suffix in PICKLES:
        write_pickle(path, state, LAYOUTS[layout].container)
    else:
        write_safetensors(path, state, {"format": "pt"})


def upernet_of_state(state: State, source: str) -> Collections:
    """A state dict as `{"params": path -> array, "batch_stats": path -> array}`.

    The backbone is a Swin in any dense layout, or absent (heads alone).

    Args:
      state: name -> array.
      source: for messages.

    Raises:
      ValueError: the heads are no UperNet's, a name has no place, or the backbone is no Swin.
    """
    inside = {name: value for name, value in state.items() if name.startswith("backbone.")}
    heads = {name: value for name, value in state.items() if name not in inside}
    layout = next((layout for layout in HEADS.values() if layout.prefix_of(heads) is not None), None)
    if layout is None:
        raise ValueError(f"{source} has the heads of no UperNet: {listed(heads, most=4) or 'no names'}")
    reading = read_state(heads, layout, "")
    if reading.unknown or reading.problems:
        raise ValueError(f"{source} ({layout.name}): {listed([*reading.problems, *reading.unknown])}")
    found: Collections = {"params": {}, "batch_stats": {}}
    for path, value in reading.params.items():
        found["batch_stats" if path.endswith(("/mean", "/var")) else "params"][path] = value
    if inside:
        backbone = sort_state(inside, source).params
        found["params"] |= {BACKBONE + path: value for path, value in backbone.items()}
    return found


def state_of_upernet(collections: Mapping[str, State], layout: str) -> dict[str, np.ndarray]:
    """The inverse of `upernet_of_state`, in one of `HEADS_BESIDE`.

    Raises:
      ValueError: there is no such layout, or it has no place for a parameter.
    """
    if layout not in HEADS_BESIDE:
        raise ValueError(f"UperNet is not written as {layout!r}; formats: {', '.join(HEADS_BESIDE)}")
    params = {**collections["params"], **collections["batch_stats"]}
    backbone = {path: value for path, value in params.items() if path.startswith(BACKBONE)}
    heads = {path: value for path, value in params.items() if path not in backbone}
    state = write_state(heads, HEADS[HEADS_BESIDE[layout]])
    if backbone:
        inside = {path.removeprefix(BACKBONE): value for path, value in backbone.items()}
        names = state_of(inside, layout)
        # Files of transformers have no "swin." in the backbone of a larger model; version 5 in memory has.
        if layout == "transformers":
            names = {name.removeprefix("swin."): value for name, value in names.items()}
        state |= {"backbone." + name.removeprefix("backbone."): value for name, value in names.items()}
    return state
