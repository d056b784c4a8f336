"""A run directory opened for use: its config, its task and the parameters of one of its checkpoints."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from swin_jax.config import Config, base_config, from_dict
from swin_jax.data.labels import LabelCoding
from swin_jax.experiment import make_task, pictures_of, ranking
from swin_jax.exports.run_facts import run_facts
from swin_jax.tasks.task import Task
from swin_jax.training import ema
from swin_jax.training.checkpoint import Checkpoints
from swin_jax.training.determinism import make_deterministic
from swin_jax.training.run_directory import read_config, write_atomically
from swin_jax.training.sharding import make_mesh, select_devices, state_shardings

CLASSES = "classes.json"
PARAMETERS = ("ema", "plain")
LABELS = "labels.json"
CATEGORIES = "categories.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run at the checkpoint of `step`. `load` reads the parameters, `kind` says which ("plain" or "ema");
    nothing is read before."""

    directory: epath.Path
    config: Config
    class_names: tuple[str, ...]
    coding: LabelCoding | None  # of label maps, where the run's data have them
    task: Task
    mesh: Mesh
    step: int
    checkpoints: Checkpoints
    kind: str

    def load(self) -> tuple[Any, Any]:
        """`(params, model_state)`, replicated over the devices.

        Raises:
            ValueError: the checkpoint is of another model, or damaged.
        """
        params, model_state = jax.eval_shape(self.task.init, jax.random.key(0))
        names = ("params", "model_state")
        if self.kind == "ema":
            params, model_state = jax.eval_shape(ema.begin, (params, model_state))
            names = ("ema_params", "ema_model_state")
        trees = dict(zip(names, (params, model_state), strict=True))
        found = self.checkpoints.restore_items(
            self.step, {name: (tree, state_shardings(tree, self.mesh)) for name, tree in trees.items()}
        )
        return found[names[0]], found[names[1]]


def describe_run(
    directory: epath.Path, config: Config, class_names: tuple[str, ...], step: int, kind: str
) -> dict[str, Any]:
    """What goes with the parameters of a run wherever they go: JSON values.

    Raises:
        ValueError, RunDirectoryError: a file of the run is damaged or cannot be read.
    """
    execution = ("dtype", "scan", "remat", "implementation")  # how it computed, and not what
    model = {
        name: value for name, value in config.model.items() if value is not None and name not in execution
    }
    described = {"model": {**model, "num_classes": len(class_names)}}
    if config.task == "detection":
        published = base_config().detection
        described["detection"] = {
            name: value for name, value in config.detection.items() if value != published[name]
        }
    return {
        **described,
        "preprocessing": vars(pictures_of(config)),
        "class_names": list(class_names),
        "run": run_facts(directory, step, kind),
    }


def open_run(
    workdir: str,
    *,
    checkpoint: str = "best",
    platform: str = "",
    parameters: str = "",
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """Opens `workdir` at "best", "newest" or a given step, without its data.

    Args:
        workdir: the run directory.
        checkpoint: which one.
        platform: of the devices.
        parameters: "plain", or "ema" for their average; "" is the average where the run keeps one.
        overrides: dotted config field -> value that this use of the run takes instead.

    Raises:
        ValueError: it is no run directory, or has no such checkpoint or parameters.
    """
    if not workdir:
        raise ValueError("--workdir is missing: name the directory of a run")
    directory = epath.Path(workdir)
    config = _config_of(directory)
    with config.unlocked():
        config.update_from_flattened_dict(overrides or {})
    kind = choose_parameters(config, parameters)
    checkpoints = Checkpoints(directory / "checkpoints", metric=ranking(config), read_only=True)
    step = choose_step(checkpoints, checkpoint)
    class_names = read_classes(directory)
    if config.deterministic:
        make_deterministic()
    mesh = make_mesh(devices=select_devices(platform or None))
    coding = read_coding(directory)
    task = make_task(config, class_names, coding=coding)
    return Run(directory, config, class_names, coding, task, mesh, step, checkpoints, kind)


def choose_parameters(config: Config, wanted: str) -> str:
    """ "ema" or "plain"."""
    if wanted not in ("", *PARAMETERS):
        raise ValueError(f"--parameters is {wanted!r}; choose {' or '.join(PARAMETERS)}")
    if wanted == "ema" and not config.ema.decay:
        raise ValueError(
            "--parameters is 'ema', but the run keeps no average (its ema.decay is 0); leave it out"
        )
    return wanted or ("ema" if config.ema.decay else "plain")


def _config_of(directory: epath.Path) -> Config:
    written = read_config(directory)
    if written is None:
        raise ValueError(f"{directory} is not a run directory: it has no config.json")
    return from_dict({name: value for name, value in written.items() if not name.startswith("data_")})


def write_classes(directory: epath.Path, class_names: tuple[str, ...]) -> None:
    """Keeps the class names beside the config, so that a run predicts where its data are not."""
    write_atomically(directory / CLASSES, json.dumps(class_names, indent=0).encode() + b"\n")


def write_coding(directory: epath.Path, coding: LabelCoding | None) -> None:
    """Keeps the coding of label maps, if there is one, for the same reason."""
    if coding is not None:
        write_atomically(directory / LABELS, json.dumps(coding.to_json()).encode() + b"\n")


def read_coding(directory: epath.Path) -> LabelCoding | None:
    path = directory / LABELS
    return LabelCoding.from_json(json.loads(path.read_text())) if path.exists() else None


def write_categories(directory: epath.Path, category_ids: Sequence[int] | None) -> None:
    """Keeps the numbers by which the data set's files call the classes, where it has them: result files need them."""
    if category_ids is not None:
        write_atomically(directory / CATEGORIES, json.dumps(list(category_ids)).encode() + b"\n")


def read_categories(directory: epath.Path, classes: int) -> tuple[int, ...]:
    """As written; from 1 on where the run has none."""
    path = directory / CATEGORIES
    return tuple(json.loads(path.read_text())) if path.exists() else tuple(range(1, classes + 1))


def read_classes(directory: epath.Path) -> tuple[str, ...]:
    path = directory / CLASSES
    if not path.exists():
        raise ValueError(
            f"{path} is missing: it names the classes of the run; restore it from a copy of the run"
        )
    return tuple(json.loads(path.read_text()))


def choose_step(checkpoints: Checkpoints, wanted: str) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise ValueError(f"there is no checkpoint in {checkpoints.directory}; train the run first")
    if wanted == "newest":
        return steps[-1]
    if wanted == "best":
        best = checkpoints.best_step()
        return steps[-1] if best is None else best
    if not wanted.isdigit() or int(wanted) not in steps:
        raise ValueError(f"--checkpoint is {wanted!r}; choose best, newest or one of {steps}")
    return int(wanted)
