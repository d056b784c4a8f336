"""The training step: exact over devices and micro-batches, one all-reduce, unharmed by a loss that is not finite."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.registry import create_model
from swin_jax.ops.augment import FLIP_ONLY, Augmentation, Erasing, Mixing, parse_policy
from swin_jax.tasks.classification import Classification
from swin_jax.training.optimizer import make_optimizer
from swin_jax.training.schedules import make_schedule
from swin_jax.training.sharding import constrain_rows, make_mesh, path_name, put_batch, state_shardings
from swin_jax.training.state import abstract_state, create_state, make_train_step, tensor_norms

SIZE = (16, 16)
BATCH = 16
CLASSES = tuple("abcde")


PAPER = Augmentation(
    policy=parse_policy("rand-m9-mstd0.5-inc1"), erasing=Erasing(), mixing=Mixing(mixup=0.8, cutmix=1.0)
)


def micro_task(
    mesh: jax.sharding.Mesh, augmentation: Augmentation = FLIP_ONLY, **fields: Any
) -> Classification:
    options = {"drop_path_rate": 0.2, "embed_dim": 32, "depths": (2,), "num_heads": (2,), "window_size": 2}
    model = create_model("swin", num_classes=5, constrain=constrain_rows(mesh), **(options | fields))
    return Classification(
        model=model,
        image_size=SIZE,
        class_names=CLASSES,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        label_smoothing=0.1,
        augmentation=augmentation,
    )


def batch_at(step: int, size: int = BATCH) -> dict[str, np.ndarray]:
    """Pictures whose brightness tells the class."""
    generator = np.random.default_rng(step)
    label = generator.integers(0, 5, size).astype(np.int32)
    image = generator.integers(0, 56, (size, *SIZE, 3)) + 48 * label[:, None, None, None]
    return {
        "image": image.astype(np.uint8),
        "label": label,
        "example_index": np.arange(size, dtype=np.uint32),
        "valid": np.ones(size, bool),
    }


def losses(devices: int, fsdp: int = 1, accumulation: int = 1, steps: int = 20) -> list[float]:
    mesh = make_mesh(fsdp=fsdp, devices=jax.devices()[:devices])
    task = micro_task(mesh)
    schedule = make_schedule("constant", peak=1e-3, total_steps=100)
    optimizer = make_optimizer(
        jax.eval_shape(task.init, jax.random.key(0))[0], schedule=schedule, clip_norm=5.0
    )
    shardings = state_shardings(abstract_state(task, optimizer, 0), mesh)
    state = create_state(task, optimizer, 0, shardings)
    step = make_train_step(
        task,
        optimizer,
        mesh=mesh,
        shardings=shardings,
        seed=0,
        learning_rate=schedule,
        accumulation=accumulation,
    )
    found = []
    for index in range(steps):
        state, report = step(state, put_batch(batch_at(index), mesh))
        found.append(float(report["loss"]))
    return found


@pytest.fixture(scope="module")
def one_device() -> list[float]:
    found = losses(1)
    assert found[-1] < found[0] - 0.3  # it learns: the curves below are not flat lines
    return found


@pytest.mark.parametrize(("devices", "fsdp"), [(2, 1), (8, 1), (8, 4)])
def test_devices_and_fsdp_give_the_same_curve(one_device: list[float], devices: int, fsdp: int) -> None:
    np.testing.assert_allclose(losses(devices, fsdp), one_device, rtol=1e-4)


def test_runs_of_all_seeds_share_one_program() -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    task = micro_task(mesh)
    schedule = make_schedule("constant", peak=1e-3, total_steps=100)
    optimizer = make_optimizer(jax.eval_shape(task.init, jax.random.key(0))[0], schedule=schedule)
    abstract = abstract_state(task, optimizer, 0)
    shardings = state_shardings(abstract, mesh)
    texts = set()
    for seed in (0, 1):
        step = make_train_step(
            task, optimizer, mesh=mesh, shardings=shardings, seed=seed, learning_rate=schedule
        )
        texts.add(step.trace(abstract, batch_at(0)).lower().as_text())
    assert len(texts) == 1


def step_of(task: Classification, mesh: jax.sharding.Mesh, accumulation: int = 1) -> tuple[Any, Any]:
    schedule = make_schedule("constant", peak=1e-3, total_steps=100)
    optimizer = make_optimizer(jax.eval_shape(task.init, jax.random.key(0))[0], schedule=schedule)
    shardings = state_shardings(abstract_state(task, optimizer, 0), mesh)
    state = create_state(task, optimizer, 0, shardings)
    step = make_train_step(
        task,
        optimizer,
        mesh=mesh,
        shardings=shardings,
        seed=0,
        learning_rate=schedule,
        accumulation=accumulation,
    )
    return step, state


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_is_exact_with_uneven_valid_rows(accumulation: int) -> None:
    """Micro-batches with different counts of valid rows: means of means would differ."""
    mesh = make_mesh(devices=jax.devices()[:2])
    batch = batch_at(0)
    batch["valid"][[0, 2, 4, 6, 8, 10, 1]] = False
    norms = {}
    for count in (1, accumulation):
        step, state = step_of(micro_task(mesh, drop_path_rate=0.0), mesh, count)
        _, report = step(state, put_batch(batch, mesh))
        norms[count] = (float(report["loss"]), np.asarray(report["grad_norms"]))
    np.testing.assert_allclose(norms[accumulation][0], norms[1][0], rtol=1e-5)
    # The gradient of the key bias is zero in theory: rounding, measured against the whole.
    scale = np.linalg.norm(norms[1][1])
    np.testing.assert_allclose(norms[accumulation][1], norms[1][1], rtol=1e-4, atol=1e-6 * scale)


def test_invalid_rows_do_not_count() -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    task = micro_task(mesh, drop_path_rate=0.0)
    task.augmentation = Augmentation(flip=0.0)  # drawn by row, and the rows move
    batch = batch_at(0)
    batch["valid"][8:] = False
    half = {name: rows[:8] for name, rows in batch.items()}
    reports = []
    for rows in (batch, half):
        step, state = step_of(task, mesh)
        reports.append(step(state, put_batch(rows, mesh))[1])
    np.testing.assert_allclose(reports[0]["loss"], reports[1]["loss"], rtol=1e-5)
    np.testing.assert_allclose(reports[0]["grad_norm"], reports[1]["grad_norm"], rtol=1e-4)


def collectives(text: str) -> dict[str, int]:
    names = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
    return {name: len(re.findall(rf"= .*? {name}(?:-start)?\(", text)) for name in names}


@pytest.mark.parametrize("augmentation", [FLIP_ONLY, PAPER], ids=["flip", "paper"])
def test_plain_data_parallelism_is_one_all_reduce(augmentation: Augmentation) -> None:
    mesh = make_mesh(devices=jax.devices()[:8])
    step, state = step_of(micro_task(mesh, augmentation), mesh)
    text = step.trace(state, put_batch(batch_at(0), mesh)).lower().compile().as_text()
    assert collectives(text) == {
        "all-reduce": 1,
        "all-gather": 0,
        "reduce-scatter": 0,
        "all-to-all": 0,
        "collective-permute": 0,
    }


def test_fsdp_splits_the_large_leaves_and_keeps_the_batch_split() -> None:
    mesh = make_mesh(fsdp=4, devices=jax.devices()[:4])
    step, state = step_of(micro_task(mesh, embed_dim=64), mesh)
    placed = {
        path_name(path): leaf.sharding.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
        if any(leaf.sharding.spec)
    }
    assert placed["stage0/block0/mlp/fc1/kernel"] == jax.sharding.PartitionSpec(None, "fsdp")
    assert not any(path.endswith("bias") for path in placed)
    assert (
        collectives(step.trace(state, put_batch(batch_at(0), mesh)).lower().compile().as_text())["all-gather"]
        > 0
    )


def test_tensor_norms_are_float32_whatever_the_leaves_are() -> None:
    """2^16 ones: bf16 would stop counting at 256."""
    norms = tensor_norms({"a": jnp.ones(2**16, jnp.bfloat16), "b": jnp.asarray([3.0, 4.0])})
    assert norms.dtype == jnp.float32
    np.testing.assert_allclose(norms, [256.0, 5.0], rtol=1e-6)


def test_state_is_donated() -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    step, state = step_of(micro_task(mesh), mesh)
    step(state, put_batch(batch_at(0), mesh))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_a_step_that_is_not_finite_changes_nothing_but_the_count() -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    task = micro_task(mesh)
    task.mean = (math.nan, 0.5, 0.5)
    step, state = step_of(task, mesh)
    before = jax.tree.map(np.asarray, (state.params, state.opt_state))
    after, report = step(state, put_batch(batch_at(0), mesh))
    assert not report["finite"]
    assert int(after.step) == 1
    jax.tree.map(np.testing.assert_array_equal, before, (after.params, after.opt_state))


def test_learning_rate_follows_the_step_over_skipped_updates() -> None:
    """After a skipped step the optimizer uses the rate of the step, not that of its own count of updates."""
    mesh = make_mesh(devices=jax.devices()[:1])
    task = micro_task(mesh, drop_path_rate=0.0)
    schedule = make_schedule("multistep", peak=1e-3, total_steps=9, milestones=[1], decay_rate=0.0)
    optimizer = make_optimizer(jax.eval_shape(task.init, jax.random.key(0))[0], schedule=schedule)
    shardings = state_shardings(abstract_state(task, optimizer, 0), mesh)
    state = create_state(task, optimizer, 0, shardings)
    step = make_train_step(
        task, optimizer, mesh=mesh, shardings=shardings, seed=0, learning_rate=schedule, accumulation=1
    )
    kernel = np.asarray(state.params["head"]["kernel"])
    task.mean = (math.nan, 0.5, 0.5)
    state, report = step(state, put_batch(batch_at(0), mesh))
    assert not report["finite"]
    task.mean = (0.5, 0.5, 0.5)
    step = make_train_step(
        task, optimizer, mesh=mesh, shardings=shardings, seed=0, learning_rate=schedule, accumulation=1
    )
    state, report = step(state, put_batch(batch_at(0), mesh))
    assert report["finite"]
    assert float(report["learning_rate"]) == 0.0
    np.testing.assert_array_equal(np.asarray(state.params["head"]["kernel"]), kernel)


def test_draws_do_not_depend_on_the_devices() -> None:
    """Rows under the paper's augmentation on 1, 2 and 8 devices are the same bytes."""
    key = jax.random.key(7)
    rows = []
    for devices in (1, 2, 8):
        mesh = make_mesh(devices=jax.devices()[:devices])
        task = micro_task(mesh, PAPER)
        rows.append(jax.tree.map(np.asarray, dict(jax.jit(task.augment)(put_batch(batch_at(3), mesh), key))))
    assert set(rows[0]) == {*batch_at(3), "partner", "share"}
    jax.tree.map(np.testing.assert_array_equal, rows[0], rows[1])
    jax.tree.map(np.testing.assert_array_equal, rows[0], rows[2])
