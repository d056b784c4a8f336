"""What each augmentation does to the learning curve: CIFAR-10 as an image folder, the same short budget for all.

One variant is an experiment like any other:

    python -m swin_jax.train --config=experiments/studies/augmentation.py:mixup \\
        --config.data.root=cifar10.zip --workdir=runs/augmentation/mixup

All of them one after the other, then the picture and the table (experiments/results/augmentation_cifar10.*):

    python -m experiments.studies.augmentation --root=cifar10.zip --runs=runs/augmentation

The folder or zip has train/<class>/* and test/<class>/*. The model is that of own_images.py:micro_32 with patches of
4 x 4 and two stages.
"""

import argparse
import datetime
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from etils import epath

from experiments.own_images import get_config as own_images
from swin_jax.config import Config, base_config, use_paper_augmentation
from swin_jax.tasks import pictures
from swin_jax.training.preflight import nearest
from swin_jax.training.run_directory import read_metrics

Record: TypeAlias = Mapping[str, Any]
"""A line of metrics.jsonl."""
TITLES = {
    "flip": "flip alone",
    "rand_augment": "RandAugment",
    "erasing": "random erasing",
    "mixup": "mixup",
    "cutmix": "cutmix",
    "all": "the full recipe",
}
FIELDS = {
    "flip": (),
    "rand_augment": ("rand_augment",),
    "erasing": ("erase_probability",),
    "mixup": ("mixup_alpha",),
    "cutmix": ("cutmix_alpha",),
    "all": ("rand_augment", "erase_probability", "mixup_alpha", "cutmix_alpha"),
}
VARIANTS = tuple(TITLES)
RESULTS = Path(__file__).resolve().parents[1] / "results"


def get_config(variant: str = "all") -> Config:
    if variant not in VARIANTS:
        raise ValueError(f"augmentation.py has no variant {variant!r}; {nearest(variant, VARIANTS)}")
    config = own_images("micro_32")
    config.model.depths = (2, 2)
    config.model.num_heads = (2, 4)
    config.model.patch_size = 4
    config.data.eval_split = "test"
    config.evaluate_batch_size = 1000
    config.total = "100 steps"
    config.evaluate_every = "25 steps"
    config.checkpoint_every = "100 steps"
    config.log_every = 5
    config.schedule.warmup = "10 steps"
    recipe = base_config()
    use_paper_augmentation(recipe)
    for field in FIELDS[variant]:
        config.augment[field] = recipe.augment[field]
    return config


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="the data: a folder or zip")
    parser.add_argument(
        "--runs", type=Path, required=True, help="where the runs are kept; finished ones are not repeated"
    )
    parser.add_argument("--total", default="100 steps", help="length of each run")
    parser.add_argument("--evaluate_every", default="25 steps", help="a point of the curves")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where picture and table go")
    options = parser.parse_args()
    for variant in VARIANTS:
        train(variant, options)
    records = {variant: read_metrics(epath.Path(options.runs / variant)) for variant in VARIANTS}
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "augmentation_cifar10.png").write_bytes(pictures.png(drawn(records)))
    (options.results / "augmentation_cifar10.md").write_text(table(records, options.total))


def train(variant: str, options: argparse.Namespace) -> None:
    """One run, in a process of its own."""
    command = [sys.executable, "-m", "swin_jax.train", f"--config={Path(__file__)}:{variant}"]
    flags = [
        f"--config.data.root={options.root}",
        f"--config.total={options.total}",
        f"--config.evaluate_every={options.evaluate_every}",
        f"--workdir={options.runs / variant}",
    ]
    subprocess.run([*command, *flags], check=True)


def drawn(records: Mapping[str, Sequence[Record]]) -> np.ndarray:
    """Held-out accuracy with each augmentation beside that without."""
    key = "eval/{}/top1"
    together = [
        {"step": line["step"], key.format(variant): line["eval/top1"]}
        for variant, lines in records.items()
        for line in lines
        if "eval/top1" in line
    ]
    baseline = {key.format("flip"): TITLES["flip"]}
    panels = [
        pictures.Panel(
            f"with {TITLES[variant]}", baseline | {key.format(variant): TITLES[variant]}, "percent"
        )
        for variant in VARIANTS[1:]
    ]
    return pictures.curves(together, title="CIFAR-10, held-out top-1", panels=panels)


def table(records: Mapping[str, Sequence[Record]], total: str) -> str:
    """Markdown: accuracy and losses at the end, and how much of its time a run waited for its batches."""
    lines = [
        f"CIFAR-10 with and without each augmentation, {total} of 128 pictures, one seed.",
        "",
        f'`python -m experiments.studies.augmentation --root=... --runs=... --total="{total}"`, '
        f"{os.cpu_count()} CPU cores, {datetime.date.today()}.",
        "",
        "| training pictures | held-out top-1 | held-out loss | training loss | time waiting for data |",
        "|---|---|---|---|---|",
    ]
    for variant, found in records.items():
        training = [line for line in found if "loss" in line]
        scored = [line for line in found if "eval/top1" in line][-1]
        loss = float(np.mean([line["loss"] for line in training[-4:]]))
        wait = float(np.median([line["data_wait"] for line in training[1:]]))
        title = TITLES[variant] if variant == "flip" else f"with {TITLES[variant]}"
        top1, held_out = scored["eval/top1"], scored["eval/loss"]
        lines.append(f"| {title} | {top1:.1%} | {held_out:.3f} | {loss:.3f} | {wait:.1%} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
