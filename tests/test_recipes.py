"""The recipes of ImageNet-1K and -22K as `summary --config` prints them, against the published values in closed form.

Values for the total batch: 300 epochs of 1024 at 1e-3 from scratch, 90 of 4096 at 1e-3 on ImageNet-22K, 30 of 1024 at
4e-5 to fine-tune (released configs, which give them for 512 examples); the paper's own where it differs (A2.1).
"""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from experiments import imagenet1k, imagenet22k, shapes
from swin_jax import summary
from swin_jax.experiment import make_augmentation, pictures_of
from swin_jax.ops.augment import Augmentation, Erasing, Mixing, Policy

ROOT = Path(__file__).resolve().parents[1]


class Expected(NamedTuple):
    """Durations in epochs; rates for the whole batch. `kind` gives the shape after the warm-up."""

    model: str
    drop_path: float
    epochs: int
    batch: int
    peak: float
    warmup: int
    start: float
    end: float
    decay: float
    clip: float = 5.0
    kind: str = "cosine"


def scratch(model: str, drop: float, **other: Any) -> Expected:
    return Expected(model, drop, 300, 1024, 1e-3, 20, 1e-6, 1e-5, 0.05, **other)


def fine_tune(model: str, drop: float) -> Expected:
    return Expected(model, drop, 30, 1024, 4e-5, 5, 4e-8, 4e-7, 1e-8)


def fine_tune_paper(model: str) -> Expected:
    return Expected(model, 0.1, 30, 1024, 1e-5, 0, 0.0, 0.0, 1e-8, clip=1.0, kind="constant")


def pretrain(size: str, drop: float, **other: Any) -> Expected:
    fields = {"decay": 0.05} | other
    return Expected(f"swin_{size}_patch4_window7_224_22k", drop, 90, 4096, 1e-3, 5, 1e-6, 1e-5, **fields)


T, S, B, L = (f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large"))
B384, L384 = (f"swin_{size}_patch4_window12_384" for size in ("base", "large"))
PAPER_22K = {"decay": 0.01, "clip": 1.0, "kind": "linear"}
ON_1K = {
    "swin_tiny": scratch(T, 0.2),
    "swin_small": scratch(S, 0.3),
    "swin_base": scratch(B, 0.5),
    "swin_tiny_c24": scratch("swin_tiny_c24_patch4_window8_256", 0.2),
    "swin_base_384": fine_tune(B384, 0.5),
    "swin_tiny_from_22k": fine_tune(T, 0.1),
    "swin_small_from_22k": fine_tune(S, 0.2),
    "swin_base_from_22k": fine_tune(B, 0.2),
    "swin_large_from_22k": fine_tune(L, 0.2),
    "swin_base_from_22k_384": fine_tune(B384, 0.2),
    "swin_large_from_22k_384": fine_tune(L384, 0.2),
    "swin_tiny_paper": scratch(T, 0.2, clip=1.0),
    "swin_small_paper": scratch(S, 0.3, clip=1.0),
    "swin_base_paper": scratch(B, 0.5, clip=1.0),
    "swin_base_384_paper": fine_tune_paper(B384),
    "swin_tiny_from_22k_paper": fine_tune_paper(T),
    "swin_small_from_22k_paper": fine_tune_paper(S),
    "swin_base_from_22k_paper": fine_tune_paper(B),
    "swin_large_from_22k_paper": fine_tune_paper(L),
    "swin_base_from_22k_384_paper": fine_tune_paper(B384),
    "swin_large_from_22k_384_paper": fine_tune_paper(L384),
}
ON_22K = {
    "swin_tiny": pretrain("tiny", 0.1),
    "swin_small": pretrain("small", 0.2),
    "swin_base": pretrain("base", 0.2),
    "swin_large": pretrain("large", 0.2),
    "swin_tiny_paper": pretrain("tiny", 0.1, **PAPER_22K),
    "swin_small_paper": pretrain("small", 0.2, **PAPER_22K),
    "swin_base_paper": pretrain("base", 0.2, **PAPER_22K),
    "swin_large_paper": pretrain("large", 0.2, **PAPER_22K),
}
# Whole batches an epoch, as the reference, which drops the rest, counts them; there 1,281,167 // 1,024 and so on.
STEPS_AN_EPOCH = {imagenet1k: 1251, imagenet22k: 3466}
RECIPES = [(imagenet1k, *item) for item in ON_1K.items()] + [(imagenet22k, *item) for item in ON_22K.items()]


def rate(expected: Expected, step: int, an_epoch: int, *, after_warmup: bool) -> float:
    total, warmup = expected.epochs * an_epoch, expected.warmup * an_epoch
    if step < warmup:
        return expected.start + (expected.peak - expected.start) * step / warmup
    done = (step - warmup) / (total - warmup) if after_warmup else step / total
    if expected.kind == "cosine":
        return expected.end + (expected.peak - expected.end) * (1 + math.cos(math.pi * done)) / 2
    if expected.kind == "linear":
        return expected.peak - (expected.peak - 0.01 * expected.peak) * done  # the reference ends at 1%
    return expected.peak


def test_every_variant_is_in_the_table() -> None:
    assert set(ON_1K) == set(imagenet1k.VARIANTS)
    assert set(ON_22K) == set(imagenet22k.VARIANTS)


@pytest.mark.parametrize(
    ("module", "variant", "expected"), RECIPES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_figures_are_the_published_ones(module: Any, variant: str, expected: Expected) -> None:
    an_epoch = STEPS_AN_EPOCH[module]
    found = summary.figures(module.get_config(variant), examples=an_epoch * expected.batch)
    assert (found["model"], found["drop_path_rate"]) == (expected.model, expected.drop_path)
    assert found["batch_size"] == expected.batch
    assert found["steps"] == expected.epochs * an_epoch
    assert found["warmup_steps"] == expected.warmup * an_epoch
    assert found["schedule"] == expected.kind
    for name, value in (("peak", expected.peak), ("warmup_start", expected.start), ("end", expected.end)):
        assert found[name] == pytest.approx(value, rel=1e-12)
    assert found["lr_scale"] == (1 if expected.kind == "constant" else expected.batch / 512)
    optimizer = found["optimizer"]
    assert optimizer["name"] == "adamw"
    assert (optimizer["weight_decay"], optimizer["clip_norm"]) == (expected.decay, expected.clip)
    assert (optimizer["b1"], optimizer["b2"], optimizer["eps"]) == (0.9, 0.999, 1e-8)
    assert found["label_smoothing"] == 0.1
    assert len(found["rates"]) == 10
    for row in found["rates"]:
        used = rate(expected, row["step"], an_epoch, after_warmup=True)
        assert row["rate"] == pytest.approx(used, rel=1e-5)
        if expected.kind != "constant":
            other = rate(expected, row["step"], an_epoch, after_warmup=False)
            assert (row["after_warmup"], row["from_step_0"]) == pytest.approx((used, other), rel=1e-5)


def test_the_two_conventions_part_after_the_warmup() -> None:
    """Where the warm-up of 20 of 300 epochs ends, the older cosine has already fallen to .989 (without its end)."""
    config = imagenet1k.get_config("swin_tiny")
    config.schedule.warmup_prefix = False
    found = summary.figures(config, examples=1251 * 1024, steps=(25_019, 25_020))
    below, at = found["rates"]
    assert below["rate"] == pytest.approx(1e-3, rel=1e-4)
    assert (at["rate"] - 1e-5) / (1e-3 - 1e-5) == pytest.approx((1 + math.cos(math.pi / 15)) / 2, rel=1e-6)
    assert at["rate"] == at["from_step_0"] != at["after_warmup"]


@pytest.mark.parametrize("variant", ["swin_tiny", "swin_tiny_c24", "swin_large_from_22k_384"])
def test_decay_groups(variant: str) -> None:
    """Decayed: every matrix and the patch convolution. Not: biases, norms, bias tables."""
    found = summary.recipe(imagenet1k.get_config(variant))
    width, depth, window = {
        "swin_tiny": (96, (2, 2, 6, 2), 7),
        "swin_tiny_c24": (96, (2, 2, 6, 2), 8),
        "swin_large_from_22k_384": (192, (2, 2, 18, 2), 12),
    }[variant]
    widths = [width * 2**stage for stage in range(4)]
    decayed = sum(blocks * 12 * w**2 for blocks, w in zip(depth, widths, strict=True))
    decayed += sum(4 * w * 2 * w for w in widths[:3]) + 48 * width + 8 * width * 1000
    groups = {group["name"]: group for group in found["groups"]}
    blocks = sum(depth)
    # A block: four matrices; their four biases, two norms of two, one table. A merging: a matrix and a norm.
    assert groups["decay"]["tensors"] == 4 * blocks + 3 + 1 + 1
    assert groups["no decay"]["tensors"] == 9 * blocks + 3 * 2 + 3 + 2 + 1
    assert groups["decay"]["values"] == decayed
    assert groups["decay"]["values"] + groups["no decay"]["values"] == found["params"]
    heads = (4, 8, 16, 32) if variant == "swin_tiny_c24" else [w // 32 for w in widths]
    tables = sum(b * h * (2 * window - 1) ** 2 for b, h in zip(depth, heads, strict=True))
    vectors = sum(
        b * 13 * w for b, w in zip(depth, widths, strict=True)
    )  # 3 + 1 + 4 + 1 biases, 2 x 2 of norms
    vectors += sum(8 * w for w in widths[:3]) + 3 * width + 2 * 8 * width + 1000
    assert groups["no decay"]["values"] == tables + vectors


@pytest.mark.parametrize(
    ("variant", "size", "resize"),
    [
        ("swin_base", (224, 224), 256),
        ("swin_tiny_c24", (256, 256), 292),
        ("swin_base_384", (384, 384), (384, 384)),
        ("swin_large_from_22k_384", (384, 384), (384, 384)),
        ("swin_large_from_22k", (224, 224), 256),
    ],
)
def test_evaluation_pictures(variant: str, size: tuple[int, int], resize: Any) -> None:
    """Of 384 the whole picture, squashed (the released configs set CROP to False); else the centre."""
    pictures = pictures_of(imagenet1k.get_config(variant))
    assert (pictures.size, pictures.resize, pictures.interpolation) == (size, resize, "bicubic")


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "swin_jax.summary", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_command() -> None:
    done = command(
        "--config=experiments/imagenet22k.py:swin_tiny_paper", "--config.batch_size=2048", "--steps=0,17330"
    )
    assert done.returncode == 0, done.stderr
    assert "swin_tiny_patch4_window7_224_22k: 44,315,083 parameters" in done.stdout
    assert "14,197,122 an epoch; batch 2,048" in done.stdout
    assert "linear, peak 0.0005, warm-up from 5e-07, end 5e-06 (the config's values x 4)" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["0", "0.000", "5.000000e-07", "5.000000e-07"] in rows
    assert ["decay", "53"] in [row[:2] for row in rows]


def test_the_command_in_json_equals_the_function() -> None:
    done = command("--config=experiments/imagenet1k.py:swin_tiny", "--json")
    found = summary.recipe(imagenet1k.get_config("swin_tiny"))
    (line,) = done.stdout.splitlines()
    del found["groups_table"]
    assert json.loads(line) == json.loads(json.dumps(found))
    assert found["examples"] == 1_281_167


def test_what_is_wrong_is_said_in_a_sentence() -> None:
    done = command("--steps=1")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: --examples and --steps belong to --config")
    with pytest.raises(ValueError, match=r"data\.source=shapes/easy has is not known; give --examples"):
        summary.recipe(shapes.get_config())
    with pytest.raises(ValueError, match=r"--steps are \[100\]; the run's go from 0 to 99"):
        summary.recipe(shapes.get_config(), examples=1280, steps=[100])


@pytest.mark.parametrize("module", [imagenet1k, imagenet22k], ids=["1k", "22k"])
def test_all_augment_alike(module: ModuleType) -> None:
    """Pre-training and fine-tuning too, by the released code."""
    for variant in module.VARIANTS:
        found = make_augmentation(module.get_config(variant))
        assert found == Augmentation(
            flip=0.5,
            policy=Policy(magnitude=9.0, std=0.5, operations=2, increasing=True),
            erasing=Erasing(probability=0.25, area=(0.02, 1 / 3), aspect=0.3),
            mixing=Mixing(mixup=0.8, cutmix=1.0, probability=1.0, switch=0.5),
        ), variant
