"""Weights made to fit one model: position tables resampled, the head chosen, everything else equal or an error."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from swin_jax.ops.resize import resize_bias_table, resize_grid
from swin_jax.weights.architecture import BODY, TABLE, Architecture, architecture, window_of
from swin_jax.weights.exchange import Weights
from swin_jax.weights.heads import CLASSES_1K, CLASSES_22K, FRESH, head_rows
from swin_jax.weights.kinds import Shape
from swin_jax.weights.layouts import listed

HEAD = ("head/kernel", "head/bias")
POSITIONS = "absolute_pos_embed"


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Parameters for one model.

    Attributes:
      params: our path -> float32 array of the shape the model has.
      fresh: paths of the model that the weights have nothing for and may lack; they keep their first values.
      notes: what was done beside copying, a clause each.
      statistics: our path -> float32 array of the running statistics of batch norms, where the weights have them.
    """

    params: dict[str, np.ndarray]
    fresh: tuple[str, ...]
    notes: tuple[str, ...]
    statistics: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def fit(
    weights: Weights,
    wanted: Mapping[str, Shape],
    *,
    resample: bool = False,
    head: str = "",
    class_names: Sequence[str] = (),
) -> Fitted:
    """The weights as parameters of the model with the paths and shapes `wanted`.

    A dense backbone may begin with a classifier: final norm and head are dropped, its output norms are fresh, as
    in the published code.

    Args:
      weights: as read.
      wanted: our path -> shape.
      resample: interpolate bias tables and position embeddings of another size (bicubic, as published) instead
        of refusing them.
      head: "" takes the head where the number of classes agrees and a fresh one where not; "fresh" a fresh one
        always; else the file that `head_rows` reads.
      class_names: of the model, for `head`.

    Raises:
      ValueError: the weights are of another model; every missing, surplus and misshapen parameter is listed.
    """
    params = dict(weights.params)
    ours = architecture(wanted)
    theirs = weights.architecture
    if ours is not None and theirs is not None:
        _check_same_model(weights, theirs, ours, resample)
    notes = _accounted(weights)
    fresh: list[str] = []
    if ours is not None and ours.dense:
        notes += _without_classifier(params)
        if not any(re.match(r"norm\d+/", path) for path in params):
            fresh += [path for path in wanted if re.match(r"norm\d+/", path)]
            notes += ["output norms are fresh: a classifier has none"] if fresh else []
        else:
            notes += _without_unused_norms(params, wanted)
    else:
        found, heads = _head(weights, params, wanted, head, class_names)
        fresh += found
        notes += heads
    if resample:
        notes += _resample(params, wanted)
    _check_complete(weights, params, wanted, fresh)
    return Fitted(params, tuple(fresh), tuple(notes))


def _check_same_model(weights: Weights, theirs: Architecture, ours: Architecture, resample: bool) -> None:
    other = [field for field in BODY if getattr(theirs, field) != getattr(ours, field)]
    if other:
        raise ValueError(
            f"{weights.source} is another model: {theirs}, asked for is {ours}; they differ in {', '.join(other)}"
        )
    if theirs.dense and not ours.dense:
        more = [what for what in weights.parts if what]
        raise ValueError(
            f"{weights.source} is a dense backbone{f' with {listed(more)}' if more else ''}, not a classifier: it "
            "has no classification head; load it into a model with features_only=True, or name a classifier"
        )
    if theirs.window_size != ours.window_size and not resample:
        raise ValueError(
            f"{weights.source} has windows of {theirs.window_size}, the model of {ours.window_size}; name the model "
            "of that window, or ask for the bias tables to be resampled"
        )


def _accounted(weights: Weights) -> list[str]:
    """A clause for all that is in the file and not a parameter; names nobody knows are refused later."""
    notes = []
    if weights.buffers:
        notes.append(f"{len(weights.buffers)} recomputed buffers left out")
    for what, names in weights.parts.items():
        if what:
            notes.append(f"{what} left out ({len(names)} tensors, {names[0]} ...)")
    return notes


def _without_classifier(params: dict[str, np.ndarray]) -> list[str]:
    dropped = [path for path in (*HEAD, "norm/scale", "norm/bias") if params.pop(path, None) is not None]
    return [f"dropped, as a backbone has none: {', '.join(dropped)}"] if dropped else []


def _without_unused_norms(params: dict[str, np.ndarray], wanted: Mapping[str, Shape]) -> list[str]:
    """A backbone that returns fewer maps has fewer output norms."""
    norms = [path for path in params if re.match(r"norm\d+/", path) and path not in wanted]
    for path in norms:
        del params[path]
    return [f"dropped, as their maps are not asked for: {', '.join(norms)}"] if norms else []


def _head(
    weights: Weights,
    params: dict[str, np.ndarray],
    wanted: Mapping[str, Shape],
    head: str,
    class_names: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Chooses the head; returns the fresh paths and what is to be said about it."""
    old = params["head/bias"].shape[0] if "head/bias" in params else 0
    new = wanted["head/bias"][0] if "head/bias" in wanted else 0
    if not new:
        dropped = [path for path in HEAD if params.pop(path, None) is not None]
        return [], ["head dropped: the model has none"] if dropped else []
    if head not in ("", FRESH):
        if not old:
            raise ValueError(f"{weights.source} has no head that the class map {head} could pick from")
        rows = head_rows(head, old, class_names or [str(index) for index in range(new)])
        params["head/kernel"] = params["head/kernel"][:, rows]
        params["head/bias"] = params["head/bias"][rows]
        return [], [f"head: {len(rows)} of {old} rows, by {head}"]
    if head == "" and (old, new) == (CLASSES_22K, CLASSES_1K):
        raise ValueError(
            f"{weights.source} knows the {old} classes of ImageNet-22K, the model {new}: name the file of the "
            "published map, or of the WordNet ids of the 22K classes, to keep the matching rows "
            "(config.init_head=map22kto1k.txt), or ask for a new head (config.init_head=fresh)"
        )
    if head == FRESH or (old and old != new):
        for path in HEAD:
            params.pop(path, None)
        return [path for path in HEAD if path in wanted], [f"head fresh: {new} classes, the file has {old}"]
    return [], []


def _resample(params: dict[str, np.ndarray], wanted: Mapping[str, Shape]) -> list[str]:
    """Brings bias tables and positions to the wanted size; returns what was done."""
    notes: dict[str, int] = {}
    for path, value in params.items():
        shape = tuple(wanted.get(path, value.shape))
        if shape == value.shape or shape[-1] != value.shape[-1]:
            continue
        if path.endswith(TABLE):
            old, new = window_of(value.shape), window_of(shape)
            params[path] = np.asarray(resize_bias_table(jnp.asarray(value), new))
            note = f"bias tables resampled from window {old} to {new}"
        elif path == POSITIONS:
            params[path] = np.asarray(resize_grid(jnp.asarray(value), *shape[:2]))
            note = f"position embedding resampled from {value.shape[:2]} to {shape[:2]}"
        else:
            continue
        notes[note] = notes.get(note, 0) + 1
    return [note if note.startswith("position") else f"{count} {note}" for note, count in notes.items()]


def _check_complete(
    weights: Weights, params: Mapping[str, np.ndarray], wanted: Mapping[str, Shape], fresh: Sequence[str]
) -> None:
    def theirs(path: str) -> str:
        names = weights.names.get(path, ())
        return path if names in ((), (path,)) else f"{path} (from {listed(names)})"

    problems = [
        f"missing {path} {wanted[path]}" for path in wanted if path not in params and path not in fresh
    ]
    problems += [f"surplus {theirs(path)} {params[path].shape}" for path in params if path not in wanted]
    problems += [f"surplus {name}" for name in weights.parts.get("", ())]
    problems += [
        f"{theirs(path)} is {params[path].shape}, expected {wanted[path]}"
        for path in wanted
        if path in params and params[path].shape != tuple(wanted[path])
    ]
    if problems:
        raise ValueError(f"{weights.source} ({weights.layout}) does not fit the model: {'; '.join(problems)}")
