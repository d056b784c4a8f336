"""A table of the paper as a set of experiments: rows that change one base config each, and their published figures."""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from swin_jax.config import Config, config_fields
from swin_jax.training.preflight import nearest

MEASURES = {
    "classification": ("top1", "top5"),
    "segmentation": ("miou",),
    "detection": ("box_ap", "mask_ap"),
}
"""What is reported of the runs of a task, by its name among the evaluation's values."""
TITLES = {"top1": "top-1", "top5": "top-5", "miou": "mIoU", "box_ap": "box AP", "mask_ap": "mask AP"}
SCALES = ("paper", "small", "micro")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
      title: as printed.
      changes: config field -> value; None is a published figure that nothing here trains.
      published: measure -> percent.
      at: scale -> further changes.
      scales: at which it can be trained.
      begins_with: a row of this table whose run of the same seed this one begins with (`init_from`).
      note: where the row is not what its title says at every scale.
    """

    title: str
    changes: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)
    published: Mapping[str, float | int] = dataclasses.field(default_factory=dict)
    at: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    scales: tuple[str, ...] = SCALES
    begins_with: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      title: what it compares.
      base_row: the row that differences are taken to.
      rows: by the names that `--row` takes.
      bases: (scale, task) -> the config that rows change.
    """

    title: str
    base_row: str
    rows: Mapping[str, Row]
    bases: Mapping[tuple[str, str], Callable[[], Config]]

    def config(self, variant: str) -> Config:
        """The config of "row,scale,task"; scale "paper" and task "classification" may be left out.

        Raises:
          ValueError: row, scale or task are unknown, or there is nothing to train.
        """
        name, scale, task = [*variant.split(","), "", ""][:3]
        scale, task = scale or "paper", task or "classification"
        self.check(scale, task, name)
        config = self.bases[scale, task]()
        row = self.rows[name]
        changes = {**(row.changes or {}), **row.at.get(scale, {})}
        if unknown := [field for field in changes if field not in (known := config_fields())]:
            raise ValueError(
                f"row {name!r} changes {unknown[0]!r}, which no config has; {nearest(unknown[0], known)}"
            )
        config.update_from_flattened_dict(changes)
        return config

    def check(self, scale: str, task: str, *names: str) -> None:
        """Raises ValueError unless the table has this scale and task, and rows of these names that can be trained."""
        if scale not in SCALES:
            raise ValueError(f"there is no scale {scale!r}; {nearest(scale, SCALES)}")
        if task not in MEASURES:
            raise ValueError(f"there is no task {task!r}; {nearest(task, tuple(MEASURES))}")
        if (scale, task) not in self.bases:
            known = ", ".join(f"{scale} {task}" for scale, task in self.bases)
            raise ValueError(f"this table has no {task} at scale {scale}; it has {known}")
        for name in names:
            if name not in self.rows:
                raise ValueError(f"the table has no row {name!r}; {nearest(name, tuple(self.rows))}")
            if self.rows[name].changes is None:
                raise ValueError(f"row {name!r} is a published figure alone: nothing here trains it")
            if scale not in self.rows[name].scales:
                raise ValueError(
                    f"row {name!r} is not there at scale {scale}, only at {', '.join(self.rows[name].scales)}"
                )

    def trained(self, scale: str) -> tuple[str, ...]:
        """The rows that can be trained at a scale, each after the one that it begins with."""
        names = [name for name, row in self.rows.items() if row.changes is not None and scale in row.scales]
        return tuple(sorted(names, key=lambda name: bool(self.rows[name].begins_with)))

    def varying(self) -> tuple[str, ...]:
        """The fields that some row changes."""
        found = {"seed", "init_from"}
        for row in self.rows.values():
            found |= set(row.changes or {}).union(*row.at.values())
        return tuple(sorted(found))


def load_module(path: Path) -> ModuleType:
    """The experiment file of a table.

    Raises:
      ValueError: there is no such file, or it does not run.
    """
    if not path.is_file():
        tables = sorted(
            file.stem.removeprefix("table") for file in path.parent.glob("*.py") if file.stem != "bases"
        )
        raise ValueError(f"there is no {path}; --table is one of {', '.join(tables)}, or a file of your own")
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} does not run: {type(error).__name__}: {error}") from error
    return module
