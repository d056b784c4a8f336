"""Trains the rows of a table of the paper and prints it, our figures beside the published ones.

    python -m swin_jax.ablate --table=4 --scale=micro --workdir=runs/table4
    python -m swin_jax.ablate --table=6 --scale=small --override=data.root=cifar10.zip --workdir=runs/table6
    python -m swin_jax.ablate --table=4 --scale=paper --row=no_shift --seeds=0 --workdir=/shared/table4
    python -m swin_jax.ablate --table=4 --scale=paper --collect --workdir=/shared/table4
    python -m swin_jax.ablate --table=5 --workdir=runs/table5

Tables are those of experiments/ablations/ by number or name, or a file of your own (`--table=my_table.py`). Scale
"paper" is the published recipe on ImageNet, "small" a CPU's or one GPU's evening on CIFAR-10 as an image folder,
"micro" minutes on data that are drawn here. `--task` is "classification", "segmentation" or "detection", where the
table has it.

Rows are trained one after the other, each seed in a process of its own; the same command goes on where it stopped and
leaves finished runs alone. A row that fails is named, and the others go on; the exit status is then 1. With `--row` a
process trains that row alone, so that a scheduler can spread them; `--collect` trains nothing. Where a run needs
several hosts, train it on each as any experiment, in the directory that the study would give it:

    python -m swin_jax.train --config=experiments/ablations/table4.py:no_shift,paper \\
        --config.seed=0 --workdir=/shared/table4/no_shift/classification/seed0

The study directory gets table_<task>.md, .json and .png. Runs with different data, lengths, code or libraries are not
put into one table. Table 5 is a study of time: it trains nothing.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from swin_jax import cli
from swin_jax.studies import attention_time, report
from swin_jax.studies.runs import Study, check_alike, train
from swin_jax.studies.table import SCALES, Table, load_module

TABLE = flags.DEFINE_string("table", "", "Number or name of a table, or a file.")
SCALE = flags.DEFINE_string("scale", "small", f"One of {', '.join(SCALES)}.")
TASK = flags.DEFINE_string(
    "task", "classification", "Which columns: classification, segmentation or detection."
)
ROWS = flags.DEFINE_list("row", [], "Rows to train; all by default.")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of every row.")
OVERRIDES = flags.DEFINE_multi_string("override", [], "Config field=value for all rows; may be given often.")
COLLECT = flags.DEFINE_bool("collect", False, "Train nothing: write the table of what is finished.")
WORKDIR = cli.workdir_flag()

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT / "experiments" / "ablations"
log = logging.getLogger("swin_jax.ablate")


def main(_: Sequence[str]) -> None:
    sys.path.insert(0, str(ROOT))  # tables share their bases with other experiments, wherever this is called
    with cli.one_sentence():
        file = table_file(TABLE.value)
        module = load_module(file)
        if not WORKDIR.value:
            raise ValueError("--workdir is missing: name the directory of the study")
        if hasattr(module, "METHODS"):
            attention_time.study(module, SCALE.value, Path(WORKDIR.value))
            return
        study, rows, seeds = prepare(file, module.TABLE)
        failed = {} if COLLECT.value else train_all(study, rows, seeds)
        check_alike(study, study.table.trained(study.scale))
        found = report.collect(study, failed)
        paths = report.write(study, found)
    print(report.markdown(found))
    print(f"written: {', '.join(paths)}")
    if failed:
        cli.fail(f"{len(failed)} of {len(rows) * len(seeds)} runs are not finished: {', '.join(failed)}")


def table_file(name: str) -> Path:
    """The file of a table by its number or path. Raises ValueError where there is none."""
    if not name:
        raise ValueError("--table is missing: name a table, such as --table=4")
    if name.endswith(".py"):
        return Path(name).resolve()
    return TABLES / f"{'table' * name.isdigit()}{name}.py"


def prepare(file: Path, table: Table) -> tuple[Study, tuple[str, ...], tuple[int, ...]]:
    """The study that the flags ask for, its rows and seeds. Raises ValueError for what is wrong."""
    table.check(SCALE.value, TASK.value, *ROWS.value)
    rows = tuple(ROWS.value) or table.trained(SCALE.value)
    if not all(seed.isdigit() for seed in SEEDS.value) or not SEEDS.value:
        raise ValueError(f"--seeds is {','.join(SEEDS.value)!r}; expected numbers such as 0,1,2")
    if odd := [override for override in OVERRIDES.value if "=" not in override]:
        raise ValueError(f"--override is {odd[0]!r}; expected field=value, such as data.root=cifar10.zip")
    study = Study(table, file, Path(WORKDIR.value).resolve(), SCALE.value, TASK.value, tuple(OVERRIDES.value))
    study.claim()
    return study, rows, tuple(int(seed) for seed in SEEDS.value)


def train_all(study: Study, rows: Sequence[str], seeds: Sequence[int]) -> dict[str, str]:
    """Trains the runs one after the other; returns why those that did not finish did not."""
    failed = {}
    for seed in seeds:  # a whole table of one seed first: it can be looked at while the next is trained
        for row in rows:
            log.info(
                "row %s, seed %d: %s", row, seed, "finished" if study.finished(row, seed) else "training"
            )
            if why := train(study, row, seed):
                failed[f"{row}, seed {seed}"] = why
                cli.say(f"row {row}, seed {seed} is not finished: {why}")
    return failed


if __name__ == "__main__":
    cli.run(main)
