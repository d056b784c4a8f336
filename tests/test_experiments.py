"""Every experiment, shrunk by the same overrides, takes a step: no config is an untested promise.

Variants that differ in nothing but numbers compile to the same step, and one of them takes it for all.
"""

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from experiments import own_detection, own_images, own_segmentation
from swin_jax import cli, experiment, inputs
from swin_jax import config as configs
from swin_jax.data.instances import Instances
from swin_jax.data.labels import LabelCoding, LabelMap, default_palette
from swin_jax.training.optimizer import make_optimizer
from swin_jax.training.sharding import make_mesh, put_batch, state_shardings
from swin_jax.training.state import abstract_state, create_state, make_train_step

CODING = LabelCoding(("a", "b", "c"), default_palette(3), (0, 1, 2))
OBJECT = Instances(
    boxes=np.array([[4, 4, 20, 16]], np.float32),
    labels=np.array([1]),
    areas=np.array([192], np.float32),
    crowd=np.array([False]),
    ids=np.array([1]),
    outlines=((np.array([[4, 4], [20, 4], [20, 16], [4, 16]], np.float32),),),
)
EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
FILES = sorted(path for path in EXPERIMENTS.rglob("*.py") if path.parent.name != "ablations")
# The same for all: as small as each architecture goes.
SHRUNK = {
    "batch_size": 2,
    "model.embed_dim": 8,
    "model.depths": (1, 1),
    "model.num_heads": (1, 2),
    "model.window_size": 2,
    "data.size": (16, 16),
    "data.resize": (16, 16),
    "schedule.warmup": "0 steps",  # else the first rate may be 0
}
SHRUNK_SEGMENTER = {
    "model.channels": 4,
    "model.auxiliary_channels": 4,
    "model.pool_scales": (1, 2),
    "data.size": (16, 16),
    "data.scale": (64, 16),
    "batch_size": 2,
    "schedule.warmup": "0 steps",
}
SHRUNK_DETECTOR = {
    "model.channels": 4,
    "model.fc_channels": 4,
    "model.mask_channels": 4,
    "model.mask_convs": 1,
    "data.scale": (64, 64),
    "data.short_sides": (64,),
    "data.long_side": 64,
    "data.crop_short_sides": (64,),
    "data.crop_range": (40, 64),
    "data.max_boxes": 2,
    "data.mask_size": 8,
    "detection.anchor_scales": (2.0,),
    "detection.anchor_sample": 8,
    "detection.anchor_positives": 4,
    "detection.train_proposals_per_level": 8,
    "detection.train_proposals": 8,
    "detection.roi_sample": 8,
    "detection.roi_positives": 4,
    "detection.roi_points": 1,
    "batch_size": 2,
    "schedule.warmup": "0 steps",
}
SHRUNK_BACKBONE = {
    "swin": {
        "model.embed_dim": 8,
        "model.depths": (1, 1, 1, 1),
        "model.num_heads": (1, 1, 1, 1),
        "model.window_size": 2,
    },
    "deit": {"model.depth": 1},
    "resn": {"model.depths": (1, 1, 1, 1)},  # and ResNeXt
}
# What pictures undergo is slow to compile: the first of each task does, and it is compiled piece by piece in
# ops/augment and as a whole in training/test_state.
AUGMENTED = (("imagenet1k", "swin_tiny"), ("ade20k", "upernet_swin_tiny"))
PLAIN = {
    "augment.rand_augment": "",
    "augment.erase_probability": 0.0,
    "augment.mixup_alpha": 0.0,
    "augment.cutmix_alpha": 0.0,
    "augment.photometric": False,
}
# Names and durations, which no program depends on; nor does one on where its pictures come from. A schedule is a line
# of a program and evaluated in the test of its sense; micro-batches are in training/test_state, both means of a
# segmenter's loss in tasks/test_segmentation.
NO_STRUCTURE = (
    "model.name",
    "init_from",
    "total",
    "evaluate_every",
    "evaluate_batch_size",
    "checkpoint_every",
    "log_every",
    "accumulation",
    "loss.mean",
)
NO_STRUCTURE_OF = ("data.", "augment.", "evaluation.", "schedule.", "detection.")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variants() -> list[tuple[Path, str]]:
    return [(path, variant) for path in FILES for variant in load(path).VARIANTS]


def shrunk(path: Path, variant: str) -> configs.Config:
    config = load(path).get_config(variant)
    if config.task == "classification":
        config.update_from_flattened_dict(SHRUNK)
    else:
        heads = {"segmentation": SHRUNK_SEGMENTER, "detection": SHRUNK_DETECTOR}[config.task]
        config.update_from_flattened_dict(heads | SHRUNK_BACKBONE[backbone_of(config)])
    if (path.stem, variant) not in AUGMENTED:
        config.update_from_flattened_dict(PLAIN)
    return config.lock()


def backbone_of(config: configs.Config) -> str:
    return next(name for name in SHRUNK_BACKBONE if name in config.model.name)


def family_of(config: configs.Config) -> str:
    """What stands before the backbone: "upernet", "cascade_mask_rcnn"."""
    return config.model.name.partition(f"_{backbone_of(config)}")[0]


# The loss at first: of a classifier, of a segmenter with the auxiliary head; a detector adds what halves of its two
# binary decisions cost, a cascade those of its stages by their weights, an HTC the semantic branch of 183 classes.
FIRST_LOSS = {
    "upernet": 1.4 * np.log(3),
    "mask_rcnn": np.log(4) + 2 * np.log(2),
    "cascade_mask_rcnn": 1.75 * np.log(4) + 2.75 * np.log(2),
    "htc": 1.75 * np.log(4) + 2.75 * np.log(2) + 0.2 * np.log(9),
    "htcpp": 1.75 * np.log(4) + 2.75 * np.log(2) + 0.2 * np.log(183),
}


def structure(config: configs.Config) -> str:
    """What decides which program a step is: all fields, of the numbers with a fraction only whether they are 0."""

    def kept(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {field: kept(f"{name}.{field}".strip("."), inner) for field, inner in value.items()}
        if name == "model.name" and config.task != "classification":
            return family_of(config), backbone_of(config)
        if name in NO_STRUCTURE or name.startswith(NO_STRUCTURE_OF):
            return None
        return bool(value) if isinstance(value, float) else value

    return json.dumps(kept("", config.to_dict()), sort_keys=True)


def one_of_each_structure() -> list[tuple[Path, str]]:
    """The first variant of each structure: the same choice in every test process."""
    found: dict[str, tuple[Path, str]] = {}
    for path, variant in variants():
        found.setdefault(structure(shrunk(path, variant)), (path, variant))
    return list(found.values())


def name_of(value: Any) -> str:
    return getattr(value, "stem", value)


@pytest.mark.parametrize(("path", "variant"), variants(), ids=name_of)
def test_every_experiment_makes_sense(path: Path, variant: str) -> None:
    config = load(path).get_config(variant).lock()
    full = configs.from_dict(configs.to_dict(config))
    assert full.to_json() == config.to_json()  # a run directory reads back the same config
    schedule = experiment.learning_rate(config, 1_000_000)
    assert 0 < float(schedule(schedule.warmup_steps)) <= schedule.peak
    task = experiment.make_task(config, ("a", "b", "c"))
    if config.task == "classification":
        assert task.image_size == inputs.train_example(config).size == inputs.eval_example(config).size
    elif config.task == "segmentation":
        assert task.image_size == inputs.train_example(config).crop
    else:
        assert task.canvases == inputs.train_example(config).canvases


def test_structures_see_what_a_step_compiles_to() -> None:
    base = own_images.get_config("micro_32")
    same, other = base.copy_and_resolve_references(), base.copy_and_resolve_references()
    same.optimizer.weight_decay, same.schedule.peak, same.total = 0.3, 0.1, "1 epoch"
    assert structure(same) == structure(base)
    for field, value in {
        "optimizer.clip_norm": 0.0,
        "optimizer.name": "sgd",
        "model.drop_path_rate": 0.1,
        "model.depths": (1,),
    }.items():
        changed = other.copy_and_resolve_references()
        changed.update_from_flattened_dict({field: value})
        assert structure(changed) != structure(base), field


def steps() -> list[Any]:
    """One of each structure; of segmenters and detectors, which compile for half a minute, all but the first are long
    tests. Cascades, which compile for two, step on one backbone: UperNet and Mask R-CNN step on all."""
    first, cascades, found = AUGMENTED[1], set(), []
    for path, variant in one_of_each_structure():
        config = shrunk(path, variant)
        dense = config.task != "classification"
        family = family_of(config) if dense else ""
        if family.startswith(("cascade", "htc")):
            if family in cascades:
                continue
            cascades.add(family)
        is_long = dense and (path.stem, variant) != first
        found.append(pytest.param(path, variant, marks=pytest.mark.long if is_long else ()))
    return found


@pytest.mark.parametrize(("path", "variant"), steps(), ids=name_of)
def test_every_experiment_steps_once(path: Path, variant: str) -> None:
    config, examples = shrunk(path, variant), 1000
    schedule = experiment.learning_rate(config, examples)
    task = experiment.make_task(config, ("a", "b", "c"))
    params = jax.eval_shape(task.init, jax.random.key(0))[0]
    optimizer = make_optimizer(
        params,
        schedule=schedule,
        **experiment.optimizer_numbers(config),
        **experiment.optimizer_rules(config, task, params),
    )
    mesh = make_mesh(devices=jax.devices()[:1])
    shardings = state_shardings(abstract_state(task, optimizer, config.seed), mesh)
    state = create_state(task, optimizer, config.seed, shardings)
    step = make_train_step(
        task, optimizer, mesh=mesh, shardings=shardings, seed=config.seed, learning_rate=schedule
    )
    labels = LabelMap(np.arange(480, dtype=np.uint8).reshape(20, 24) % 3, CODING, "labels")
    record = {
        "image": np.zeros((20, 24, 3), np.uint8),
        "label": 1,
        "name": "grey",
        "semantic": labels,
        "instances": OBJECT,
    }
    example = inputs.train_example(config)(record, np.random.default_rng(0))
    batch = {name: np.stack([values] * 2) for name, values in example.items()} | {
        "example_index": np.arange(2, dtype=np.uint32),
        "valid": np.ones(2, bool),
    }
    before = jax.tree.map(np.asarray, state.params)
    after, report = step(state, put_batch(batch, mesh))
    assert report["finite"]
    expected = np.log(3) if config.task == "classification" else FIRST_LOSS[family_of(config)]
    assert float(report["loss"]) == pytest.approx(expected, abs=0.7)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after.params)
    heads = {
        "classification": lambda: [moved["head"]],
        "segmentation": lambda: [moved["decode_head"]["classifier"]],
        "detection": lambda: [
            moved["rpn"]["objectness"],
            *(head["classes"] for name, head in moved.items() if name.startswith("box_head")),
        ],
    }
    assert all(head["bias"] for head in heads[config.task]())


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (own_images.get_config(), "augment.photometric", True),
        (own_images.get_config(), "evaluation.window", (64, 64)),
        (own_segmentation.get_config(), "augment.mixup_alpha", 0.8),
        (own_segmentation.get_config(), "data.crop_scale", (0.5, 1.0)),
        (own_segmentation.get_config(), "detection.nms", 0.6),
        (own_detection.get_config(), "loss.mean", "valid"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fields_of_another_task_are_refused(config: configs.Config, field: str, value: Any) -> None:
    config.update_from_flattened_dict({field: value})
    sentence = f"{field} is {value!r}, but the task {config.task} has no use for it; leave it at "
    with pytest.raises(ValueError, match=re.escape(sentence)):
        experiment.make_task(config, ("a", "b"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_unknown_variant_names_the_nearest(path: Path) -> None:
    module = load(path)
    wrong = module.VARIANTS[0] + "x"
    with pytest.raises(
        ValueError, match=f"{path.name} has no variant '{wrong}'; did you mean '{module.VARIANTS[0]}'"
    ):
        module.get_config(wrong)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_docstring_says_how_to_run_it(path: Path) -> None:
    text = load(path).__doc__ or ""
    assert f"python -m swin_jax.train --config=experiments/{path.relative_to(EXPERIMENTS)}" in text


LAUNCHERS = sorted((EXPERIMENTS / "launch").iterdir())


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.name)
def test_launchers_parse_and_name_what_there_is(path: Path) -> None:
    """Shell by bash, YAML by a parser where there is one; the experiments and flags they name exist."""
    text = path.read_text()
    if path.suffix == ".yaml":
        yaml = pytest.importorskip("yaml")
        assert all(document["kind"] for document in yaml.safe_load_all(text))
    else:
        done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    named = re.findall(r"experiments/(\w+\.py):(\w+)", text)
    assert named
    for file, variant in named:
        assert variant in load(EXPERIMENTS / file).VARIANTS
    known = (
        {f"config.{field}" for field in configs.config_fields()}
        | {"config", "workdir"}
        | set(cli.hosts_flags())
    )
    command = text.split("swin_jax.train", 1)[1]
    asked = re.findall(r"(?<=\s)--([\w.]+)=", command.split("SCRIPT", 1)[0])
    assert set(asked) - {"metadata"} <= known
