"""Checkpoints of a run: asynchronous, atomic, the newest and the best kept, each verified when read.

The only module that knows Orbax. A checkpoint holds the trees of a state (what there is of `ITEMS`) as separate
items, so that evaluation reads what it needs, and a fingerprint of the bits of each, so that
a damaged file is found even where the storage format carries no checksum.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from swin_jax.training import hosts, run_directory
from swin_jax.training.run_directory import RunDirectoryError
from swin_jax.training.sharding import path_name
from swin_jax.training.state import TrainState

log = logging.getLogger(__name__)

ITEMS = ("params", "model_state", "opt_state", "ema_params", "ema_model_state")


class DamagedCheckpoint(ValueError):
    """No checkpoint of the run could be read back as it was written."""


class Checkpoints:
    """The checkpoints under `directory`.

    Args:
        directory: local path or URL; made when missing, unless `read_only`.
        every: a checkpoint each so many steps; further ones by `save(force=True)`.
        keep: how many of the newest to keep.
        metric: the evaluation metric that ranks checkpoints; the best one is kept besides the newest.
        higher_is_better: how to read `metric`.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        every: int = 1,
        keep: int = 2,
        metric: str = "",
        higher_is_better: bool = True,
        read_only: bool = False,
    ) -> None:
        self.directory = run_directory.absolute(directory)  # Orbax refuses relative paths
        self._every = every
        self._metric = metric
        self._sign = 1.0 if higher_is_better else -1.0
        self._scores: dict[int, float] = {}
        self._options = ocp.CheckpointManagerOptions(
            save_decision_policy=policies.FixedIntervalPolicy(every),
            preservation_policy=_NewestAndBest(keep, self.best_step),
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = self._open()
        self._scores = self._read_scores()

    def _open(self) -> ocp.CheckpointManager:
        handlers = {name: ocp.StandardCheckpointHandler() for name in ITEMS}
        return ocp.CheckpointManager(
            self.directory,
            options=self._options,
            item_handlers=handlers | {"about": ocp.JsonCheckpointHandler()},
        )

    def steps(self) -> list[int]:
        """The steps with a complete checkpoint, ascending."""
        return sorted(self._manager.all_steps()) if self.directory.exists() else []

    def due(self, step: int) -> bool:
        return step % self._every == 0

    def save(
        self, step: int, state: TrainState, metrics: Mapping[str, float] | None = None, *, force: bool = False
    ) -> None:
        """Starts writing `state`, reached after `step` steps, unless that step is there. Returns before it is done.

        Called after every step; it saves when `every` asks for it.
        """
        if not (force or self.due(step)) or step in self.steps():
            return
        trees = {name: tree for name in ITEMS if jax.tree.leaves(tree := getattr(state, name))}
        about = {
            "fingerprints": {name: int(value) for name, value in fingerprints(trees).items()},
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
            "skipped_steps": int(state.skipped),
        }
        if self._metric in about["metrics"]:
            self._scores[step] = self._sign * about["metrics"][self._metric]
        self._manager.save(
            step,
            args=ocp.args.Composite(
                **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
                about=ocp.args.JsonSave(about),
            ),
            force=True,
        )

    def wait(self) -> None:
        """Returns when everything handed to `save` is on disk.

        Raises:
            RunDirectoryError: the disk refused; checkpoints that were complete before stay readable.
        """
        with _writing(self.directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being written and lets go. Raises as `wait`."""
        with _writing(self.directory):
            self._manager.close()

    def best_step(self) -> int | None:
        """The step whose `metric` is best (of equals the latest), None when none was evaluated."""
        return max(self._scores, key=lambda step: (self._scores[step], step), default=None)

    def _read_scores(self) -> dict[int, float]:
        scores = {}
        for step in self.steps() if self._metric else ():
            try:
                metrics = self._about(step).get("metrics", {})
            except Exception as error:  # a broken file; restoring that step says so and sets it aside
                log.warning("%s", _damaged(self.directory, step, error))
                continue
            if self._metric in metrics:
                scores[step] = self._sign * metrics[self._metric]
        return scores

    def _about(self, step: int) -> dict[str, Any]:
        """What is written beside the arrays: fingerprints, metrics, skipped steps."""
        return self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]

    def restore_newest(self, abstract: TrainState, shardings: TrainState) -> TrainState | None:
        """The newest readable state, each array where `shardings` says; None when there is no checkpoint.

        A damaged checkpoint is reported, moved aside into `damaged/`, and the one before it is used.

        Raises:
            ValueError: the newest checkpoint is of another model (every difference is listed).
            DamagedCheckpoint: there are checkpoints and none is readable.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(step, abstract, shardings)
            except DamagedCheckpoint as error:
                # The text, not the error: whoever keeps the record would keep all that the failed read left behind.
                log.warning("%s; moving it aside and taking the one before", str(error))
                self._set_aside(step)
        if steps:
            raise DamagedCheckpoint(
                f"none of the checkpoints {steps} in {self.directory} is readable; "
                f"they were moved to {self.directory.parent / 'damaged'}: start with an empty --workdir"
            )
        return None

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> TrainState:
        """The state at `step`.

        Raises:
            ValueError: the checkpoint is of another model.
            DamagedCheckpoint: it cannot be read, or reads as other bits than were written.
        """
        wanted = {name: (getattr(abstract, name), getattr(shardings, name)) for name in ITEMS}
        found = self.restore_items(step, wanted)
        counts = {"step": step, "skipped": self._about(step).get("skipped_steps", 0)}
        return TrainState(
            **found, **{name: _count(value, getattr(shardings, name)) for name, value in counts.items()}
        )

    def restore_items(self, step: int, wanted: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
        """Some items of the checkpoint at `step`, by name: `{"params": (abstract tree, shardings)}`."""
        held = {name: pair for name, pair in wanted.items() if jax.tree.leaves(pair[0])}
        restored: Mapping[str, Any] = {}
        problem: DamagedCheckpoint | None = None
        try:
            restored = self._read(step, held)
        except DamagedCheckpoint as error:
            problem = error
        # What one host cannot read is damaged for all: they go back to the same step.
        if said := [text for text in hosts.exchange(str(problem or "")) if text]:
            raise DamagedCheckpoint(said[0]) from problem
        trees = {name: restored[name] for name in held}
        written = restored["about"].get("fingerprints", {})
        for name, value in fingerprints(trees).items():
            if int(value) != written.get(name):
                raise _damaged(self.directory, step, f"{name} reads as other bits than were written")
        return {name: trees.get(name, pair[0]) for name, pair in wanted.items()}

    def _read(self, step: int, held: Mapping[str, tuple[Any, Any]]) -> Mapping[str, Any]:
        """The named items and what was noted about them, as they are on disk."""
        self.check(step, {name: abstract for name, (abstract, _) in held.items()})
        targets = {
            name: jax.tree.map(
                lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), *pair
            )
            for name, pair in held.items()
        }
        try:
            return self._manager.restore(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardRestore(tree) for name, tree in targets.items()},
                    about=ocp.args.JsonRestore(),
                ),
            )
        except Exception as error:  # likewise: damaged arrays surface as a bare Exception
            raise _damaged(self.directory, step, error) from error

    def check(self, step: int, expected: Mapping[str, Any]) -> None:
        """Compares names and shapes of some items with what is expected, without reading an array.

        Raises:
            ValueError: there is no such checkpoint, or it is of another model (every difference is listed).
            DamagedCheckpoint: its description cannot be read.
        """
        if step not in self.steps():
            raise ValueError(
                f"there is no checkpoint of step {step} in {self.directory}; present: {self.steps()}"
            )
        try:
            metadata = {name: self._manager.item_metadata(step)[name] for name in expected}
        except Exception as error:  # what a broken file raises inside Orbax is not documented
            raise _damaged(self.directory, step, error) from error
        for name, abstract in expected.items():
            if metadata[name] is None:
                raise _damaged(self.directory, step, f"the description of {name} cannot be read")
            check_same_tree(abstract, metadata[name], f"{name} of step {step} in {self.directory}")

    def _set_aside(self, step: int) -> None:
        aside = self.directory.parent / "damaged"

        def move() -> None:
            aside.mkdir(parents=True, exist_ok=True)
            (self.directory / str(step)).rename(aside / str(step))

        hosts.first(move)
        self._scores.pop(step, None)
        self._manager.close()
        self._manager = self._open()


def _count(value: int, sharding: Any) -> jax.Array:
    """An int32 scalar where `sharding` says, on any number of hosts."""
    return jax.make_array_from_callback((), sharding, lambda _: np.asarray(value, np.int32))


@dataclasses.dataclass(frozen=True)
class _NewestAndBest:
    """Orbax's preservation policy: the newest `keep` checkpoints and the best one."""

    keep: int
    best_step: Callable[[], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        newest = {info.step for info in checkpoints[-self.keep :]}
        return [info.step in newest or info.step == self.best_step() for info in checkpoints]


@contextlib.contextmanager
def _writing(directory: epath.Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # storage errors reach us as whatever the layer below raised
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise RunDirectoryError(
            f"cannot write a checkpoint to {directory}: {reason}; free or repair that place and run the same "
            "command again: it resumes from the last complete checkpoint"
        ) from error


def _damaged(directory: epath.Path, step: int, cause: Exception | str) -> DamagedCheckpoint:
    reason = str(cause).strip().splitlines()[0][:200] if str(cause).strip() else type(cause).__name__
    return DamagedCheckpoint(f"the checkpoint of step {step} in {directory} is damaged ({reason})")


def check_same_tree(expected: Any, found: Any, what: str) -> None:
    """Compares paths and shapes of two trees.

    Raises:
        ValueError: they differ; missing, surplus and misshapen leaves are all listed.
    """
    want = _shapes(expected)
    have = _shapes(found)
    problems = [f"missing {name} {want[name]}" for name in want if name not in have]
    problems += [f"surplus {name} {have[name]}" for name in have if name not in want]
    problems += [
        f"{name} is {have[name]}, expected {want[name]}"
        for name in want
        if name in have and want[name] != have[name]
    ]
    if problems:
        shown = "; ".join(problems[:12]) + (f"; and {len(problems) - 12} more" if len(problems) > 12 else "")
        raise ValueError(f"{what} are of another model: {shown}")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    # Metadata comes back with named tuples as plain dictionaries and lists, so only names and order are compared.
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): tuple(leaf.shape) for path, leaf in leaves if hasattr(leaf, "shape")}


@jax.jit
def fingerprints(trees: Mapping[str, Any]) -> dict[str, jax.Array]:
    """One uint32 for each tree, from the bits of all its values in order; independent of sharding.

    Integer sums wrap and commute, so the order in which devices add does not matter.
    """
    return {name: _fingerprint(tree) for name, tree in trees.items()}


def _fingerprint(tree: Any) -> jax.Array:
    value = jnp.zeros((), jnp.uint32)
    for leaf in jax.tree.leaves(tree):
        bits = _bits(leaf).ravel()
        place = jax.lax.iota(jnp.uint32, bits.size) * jnp.uint32(2654435761) | jnp.uint32(1)
        value = value * jnp.uint32(16777619) + jnp.sum(bits * place, dtype=jnp.uint32)
    return value


def _bits(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    return jax.lax.bitcast_convert_type(leaf, width).astype(jnp.uint32)
