"""The engine: a layout is a table of names, read in both directions.

A table names modules (`patch_embed/proj` is `features.0.0`, a convolution); what leaves a module has, and how each
is laid out, is the module's kind. Another architecture or another library adds rows, not code.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from swin_jax.weights.kinds import (
    CONVOLUTION,
    DECONVOLUTION,
    JOINED_LINEAR,
    JOINED_VECTOR,
    LINEAR,
    POSITION_MAP,
    POSITION_TOKENS,
    ROI_LINEAR,
    SAME,
    UNFOLD_LINEAR,
    UNFOLD_VECTOR,
    Kind,
    Shape,
)
from swin_jax.weights.names import template

State = Mapping[str, np.ndarray]

# Leaves of a module: (ours, theirs, kind).
LEAVES: dict[str, tuple[tuple[str, str, Kind], ...]] = {
    "linear": (("/kernel", ".weight", LINEAR), ("/bias", ".bias", SAME)),
    "joined": (("/kernel", ".weight", JOINED_LINEAR), ("/bias", ".bias", JOINED_VECTOR)),
    "convolution": (("/kernel", ".weight", CONVOLUTION), ("/bias", ".bias", SAME)),
    "deconvolution": (("/kernel", ".weight", DECONVOLUTION), ("/bias", ".bias", SAME)),
    "roi_linear": (("/kernel", ".weight", ROI_LINEAR), ("/bias", ".bias", SAME)),
    "norm": (("/scale", ".weight", SAME), ("/bias", ".bias", SAME)),
    "batch_norm": (
        ("/scale", ".weight", SAME),
        ("/bias", ".bias", SAME),
        ("/mean", ".running_mean", SAME),
        ("/var", ".running_var", SAME),
    ),
    "unfold_linear": (("/kernel", ".weight", UNFOLD_LINEAR),),
    "unfold_norm": (("/scale", ".weight", UNFOLD_VECTOR), ("/bias", ".bias", UNFOLD_VECTOR)),
    "table": (("", "", SAME),),
    "position": (("", "", POSITION_TOKENS),),
    "position_map": (("", "", POSITION_MAP),),
}
# Recomputed from sizes: no file needs them.
BUFFERS = (r"relative_position_index$", r"attn_mask$", r"relative_coords_table$", r"num_batches_tracked$")


@dataclasses.dataclass(frozen=True)
class Row:
    """One parameter, for every stage and block: our path, their name or names, and the rearrangement."""

    ours: str
    theirs: tuple[str, ...]
    kind: Kind


def rows(*modules: tuple[str, str | tuple[str, ...], str]) -> tuple[Row, ...]:
    """The rows of `(our module, their module or modules, kind of module)`."""
    found = []
    for ours, theirs, kind in modules:
        names = (theirs,) if isinstance(theirs, str) else theirs
        for our_leaf, their_leaf, leaf_kind in LEAVES[kind]:
            found.append(Row(ours + our_leaf, tuple(name + their_leaf for name in names), leaf_kind))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one code base names the parameters of Swin.

    Attributes:
      name: of the layout, as commands take it.
      rows: its table; names are those inside the model, without what it is embedded in.
      marks: patterns that all occur among the names, one a line, in this layout and in none after it.
      anchor: a name every model of this layout has; what stands before it is the prefix of the model.
      buffers: patterns of tensors that are recomputed from sizes, not learned.
      prefix: of the model's names in a file that is written.
      outside: pattern of the names that stand without the prefix.
      container: the key of a written file under which the names are; none if they are the file.
      last_norm: a classifier's final norm is named as the last of a backbone's output norms.
      write_buffers: makes the buffers that a strict load expects, from depths, window and picture size.
    """

    name: str
    rows: tuple[Row, ...]
    marks: tuple[str, ...]
    anchor: str
    buffers: tuple[str, ...] = BUFFERS
    prefix: str = ""
    outside: str = "$."
    container: str = ""
    last_norm: bool = False
    write_buffers: Callable[..., dict[str, np.ndarray]] | None = None

    def prefix_of(self, names: Iterable[str]) -> str | None:
        """What stands before the names of the model; None if this is not its layout."""
        names = list(names)
        text = "\n".join(names)
        if not all(re.search(mark, text, re.MULTILINE) for mark in self.marks):
            return None
        found = (re.fullmatch(rf"(|.*\.){self.anchor}", name) for name in names)
        prefixes = [match[1] for match in found if match]
        return min(prefixes, key=len) if prefixes else None


@dataclasses.dataclass
class Reading:
    """A state dict in our paths.

    Attributes:
      layout: the name of the layout it was in.
      params: our path -> array.
      names: our path -> the names it came from.
      buffers: names of recomputed tensors.
      unknown: names the layout has no row for.
      problems: what could not be read, a clause each.
    """

    layout: str
    params: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    buffers: list[str] = dataclasses.field(default_factory=list)
    unknown: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)


def read_state(
    state: State, layout: Layout, prefix: str, wanted: Mapping[str, Shape] | None = None
) -> Reading:
    """Sorts the tensors of a state dict into our paths.

    Args:
      state: name -> array.
      layout: of the names.
      prefix: of the model's names, "backbone." say.
      wanted: our path -> shape, where known: tells how many rows of positions there are.
    """
    reading = Reading(layout.name)
    parts: dict[str, dict[int, str]] = {}
    kinds: dict[str, Row] = {}
    for name in state:
        inside = _without(prefix, name)
        if any(re.search(pattern, inside) for pattern in layout.buffers):
            reading.buffers.append(name)
            continue
        place = _place(layout, inside)
        if place is None:
            reading.unknown.append(name)
            continue
        path, part, row = place
        if part in parts.setdefault(path, {}):
            reading.problems.append(f"{name} and {parts[path][part]} are the same parameter")
            continue
        parts[path][part] = name
        kinds[path] = row
    for path, names in parts.items():
        _join(reading, state, path, names, kinds[path], (wanted or {}).get(path))
    if layout.last_norm:
        _name_last_norm(reading)
    return reading


def write_state(params: State, layout: Layout) -> dict[str, np.ndarray]:
    """Our parameters under the names and in the arrangement of a layout, buffers left out.

    Raises:
      ValueError: the layout has no place for a parameter; all such are listed.
    """
    dense = is_dense(params)
    last = max((int(path[5 : path.index("/")]) for path in params if path.startswith("stage")), default=0)
    state: dict[str, np.ndarray] = {}
    homeless = []
    for path, array in params.items():
        source = re.sub(r"^norm/", f"norm{last}/", path) if layout.last_norm and not dense else path
        for row in layout.rows:
            numbers = template(row.ours).match(source)
            if numbers is not None:
                names = [template(name).fill(numbers) for name in row.theirs]
                for name, value in zip(names, row.kind.to_theirs(array, len(names)), strict=True):
                    full = name if re.match(layout.outside, name) else layout.prefix + name
                    state[full] = np.ascontiguousarray(value)
                break
        else:
            homeless.append(path)
    if homeless:
        raise ValueError(f"the layout {layout.name!r} has no place for {listed(homeless)}")
    return state


def is_dense(params: Iterable[str]) -> bool:
    """Whether paths are those of a backbone with a norm for each output, not of a classifier."""
    return any(re.match(r"norm\d+/", path) for path in params)


def listed(items: Iterable[str], most: int = 12) -> str:
    """Items in one clause; many are counted."""
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _without(prefix: str, name: str) -> str:
    """`name` without the components it shares with `prefix`: what is embedded less deeply loses less."""
    head = prefix.split(".")[:-1]
    tail = name.split(".")
    while head and len(tail) > 1 and head[0] == tail[0]:
        head, tail = head[1:], tail[1:]
    return ".".join(tail)


def _place(layout: Layout, name: str) -> tuple[str, int, Row] | None:
    for row in layout.rows:
        for part, theirs in enumerate(row.theirs):
            numbers = template(theirs).match(name)
            if numbers is not None:
                return template(row.ours).fill(numbers), part, row
    return None


def _join(
    reading: Reading, state: State, path: str, names: dict[int, str], row: Row, wanted: Shape | None
) -> None:
    lacking = [row.theirs[part] for part in range(len(row.theirs)) if part not in names]
    if lacking:
        reading.problems.append(f"{path} needs also {listed(lacking)} beside {listed(names.values())}")
        return
    ordered = tuple(names[part] for part in range(len(row.theirs)))
    arrays = [state[name] for name in ordered]
    wrong = [name for name, array in zip(ordered, arrays, strict=True) if array.ndim not in row.kind.ndims]
    if wrong:
        axes = " or ".join(map(str, row.kind.ndims))
        reading.problems += [f"{name} has shape {state[name].shape}, expected {axes} axes" for name in wrong]
        return
    try:
        reading.params[path] = np.ascontiguousarray(row.kind.to_ours(arrays, wanted))
    except ValueError as error:
        shapes = ", ".join(f"{name} {state[name].shape}" for name in ordered)
        reading.problems.append(f"{shapes} does not fit {path} ({error})")
        return
    reading.names[path] = ordered


def _name_last_norm(reading: Reading) -> None:
    stages = {path.split("/")[0] for path in reading.params if path.startswith("stage")}
    norms = {path.split("/")[0] for path in reading.params if re.match(r"norm\d+/", path)}
    last = f"norm{len(stages) - 1}"
    if norms == {last}:
        for leaf in ("scale", "bias"):
            if f"{last}/{leaf}" in reading.params:
                reading.params[f"norm/{leaf}"] = reading.params.pop(f"{last}/{leaf}")
                reading.names[f"norm/{leaf}"] = reading.names.pop(f"{last}/{leaf}")
