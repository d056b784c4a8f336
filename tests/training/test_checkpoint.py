"""Checkpoints: the newest and the best are kept, damage is found and stepped over, other models are refused."""

import dataclasses
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swin_jax.training.checkpoint import Checkpoints, DamagedCheckpoint, fingerprints
from swin_jax.training.sharding import make_mesh, state_shardings
from swin_jax.training.state import TrainState

OPTIMIZER = optax.adamw(1e-3)


def state_at(step: int, width: int = 160) -> TrainState:
    kernel = jax.random.normal(jax.random.key(step), (128, width))
    params = {"dense": {"kernel": kernel, "bias": jnp.full((7,), float(step))}}
    return TrainState(jnp.asarray(step, jnp.int32), params, {}, OPTIMIZER.init(params))


def places(state: TrainState, fsdp: int = 1, devices: int = 1) -> TrainState:
    return state_shardings(state, make_mesh(fsdp=fsdp, devices=jax.devices()[:devices]))


def abstract(state: TrainState) -> TrainState:
    return jax.eval_shape(lambda: state)


def assert_same(found: TrainState | None, expected: TrainState) -> None:
    assert found is not None
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Steps 1 to 6, every second one, with a metric; step 2 is the best."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", every=2, keep=2, metric="top1")
    for step in range(1, 7):
        score = {"top1": 0.9 if step == 2 else 0.1 * step} if step % 2 == 0 else None
        checkpoints.save(step, state_at(step), score)
    checkpoints.wait()
    checkpoints.close()
    return tmp_path / "checkpoints"


def test_newest_and_best_are_kept(saved: Path) -> None:
    checkpoints = Checkpoints(saved, keep=2, metric="top1", read_only=True)
    assert checkpoints.steps() == [2, 4, 6]
    assert checkpoints.best_step() == 2
    assert_same(checkpoints.restore_newest(abstract(state_at(6)), places(state_at(6))), state_at(6))


def test_best_survives_a_restart_and_further_saves(saved: Path) -> None:
    checkpoints = Checkpoints(saved, every=2, keep=1, metric="top1")
    for step in (8, 10):
        checkpoints.save(step, state_at(step), {"top1": 0.5})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 10]
    checkpoints.close()


def test_the_average_and_the_count_of_skipped_steps_come_back(tmp_path: Path) -> None:
    plain = state_at(3)
    average = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) / 3, plain.params)
    state = dataclasses.replace(
        plain, ema_params=average, ema_model_state={}, skipped=jnp.asarray(2, jnp.int32)
    )
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, state)
    checkpoints.wait()
    assert_same(checkpoints.restore_newest(abstract(state), places(state)), state)
    # Evaluation reads the average alone.
    wanted = {"ema_params": (abstract(state).ema_params, places(state).ema_params)}
    jax.tree.map(np.testing.assert_array_equal, checkpoints.restore_items(3, wanted)["ema_params"], average)
    checkpoints.close()


def test_a_checkpoint_from_before_steps_were_counted_has_skipped_none(saved: Path) -> None:
    (about,) = (path for path in (saved / "6" / "about").iterdir() if "skipped_steps" in path.read_text())
    written = json.loads(about.read_text())
    del written["skipped_steps"]
    about.write_text(json.dumps(written))
    found = Checkpoints(saved, read_only=True).restore(6, abstract(state_at(6)), places(state_at(6)))
    assert int(found.skipped) == 0


def test_a_step_is_not_written_twice(saved: Path) -> None:
    checkpoints = Checkpoints(saved, every=2, keep=2, metric="top1")
    checkpoints.save(6, state_at(99), force=True)
    checkpoints.wait()
    assert_same(checkpoints.restore_newest(abstract(state_at(6)), places(state_at(6))), state_at(6))
    checkpoints.close()


def test_restored_onto_another_mesh(saved: Path) -> None:
    checkpoints = Checkpoints(saved, read_only=True)
    shardings = places(state_at(6), fsdp=4, devices=8)
    found = checkpoints.restore_newest(abstract(state_at(6)), shardings)
    assert_same(found, state_at(6))
    assert found is not None
    assert found.params["dense"]["kernel"].sharding.spec == jax.sharding.PartitionSpec(None, "fsdp")


# After a failed read Orbax leaves a coroutine behind whose clean-up complains when it is collected.
leaves_a_coroutine = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def collected() -> Iterator[None]:
    """Collects what a test leaves behind while that test's filters hold."""
    yield
    gc.collect()


def largest_file(directory: Path) -> Path:
    return max(
        (path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


@leaves_a_coroutine
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("damage", ["truncated", "one bit", "removed"])
def test_damaged_newest_is_reported_and_the_one_before_used(
    saved: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    victim = largest_file(saved / "6" / "params")
    data = bytearray(victim.read_bytes())
    if damage == "removed":
        victim.unlink()
    elif damage == "truncated":
        victim.write_bytes(data[: len(data) // 3])
    else:
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    checkpoints = Checkpoints(saved, every=2, keep=2, metric="top1")
    found = checkpoints.restore_newest(abstract(state_at(6)), places(state_at(6)))
    assert_same(found, state_at(4))
    assert "step 6" in caplog.text
    assert "damaged" in caplog.text
    assert (saved.parent / "damaged" / "6").is_dir()
    checkpoints.save(6, state_at(6), force=True)  # the place is free again
    checkpoints.wait()
    assert checkpoints.steps()[-1] == 6
    checkpoints.close()


@leaves_a_coroutine
@pytest.mark.usefixtures("collected")
def test_all_damaged_is_an_error_and_nothing_is_deleted(saved: Path) -> None:
    for step in (2, 4, 6):
        largest_file(saved / str(step) / "params").write_bytes(b"")
    checkpoints = Checkpoints(saved, every=2, metric="top1")
    with pytest.raises(DamagedCheckpoint, match=r"none of the checkpoints \[2, 4, 6\] .* is readable"):
        checkpoints.restore_newest(abstract(state_at(6)), places(state_at(6)))
    assert sorted(path.name for path in (saved.parent / "damaged").iterdir()) == ["2", "4", "6"]
    checkpoints.close()


def test_another_model_is_refused_with_every_difference(saved: Path) -> None:
    other: dict[str, Any] = {"dense": {"kernel": jnp.zeros((128, 3)), "scale": jnp.zeros(7)}}
    wanted = TrainState(jnp.zeros((), jnp.int32), other, {}, OPTIMIZER.init(other))
    checkpoints = Checkpoints(saved, read_only=True)
    with pytest.raises(ValueError, match="of another model") as caught:
        checkpoints.restore(6, abstract(wanted), places(wanted))
    for part in (
        "missing dense/scale",
        "surplus dense/bias",
        "dense/kernel is (128, 160), expected (128, 3)",
    ):
        assert part in str(caught.value)
    assert (saved / "6").is_dir()  # not mistaken for damage


def test_no_checkpoint_and_unknown_step(tmp_path: Path, saved: Path) -> None:
    empty = Checkpoints(tmp_path / "none", read_only=True)
    assert empty.restore_newest(abstract(state_at(1)), places(state_at(1))) is None
    with pytest.raises(ValueError, match=r"no checkpoint of step 5 in .*; present: \[2, 4, 6\]"):
        Checkpoints(saved, read_only=True).restore(5, abstract(state_at(5)), places(state_at(5)))


def test_fingerprint_sees_a_bit_and_a_swap_but_no_sharding() -> None:
    tree = {"a": jnp.arange(64.0).reshape(8, 8), "b": jnp.ones((3,), jnp.bfloat16), "c": jnp.asarray(5)}
    value = int(fingerprints({"x": tree})["x"])
    swapped = tree | {"a": tree["a"].at[0, 1].set(2.0).at[0, 2].set(1.0)}
    assert int(fingerprints({"x": swapped})["x"]) != value
    nudged = tree | {"a": tree["a"].at[7, 7].set(np.nextafter(np.float32(63), np.float32(64)))}
    assert int(fingerprints({"x": nudged})["x"]) != value
    mesh = make_mesh(fsdp=8)
    split = jax.device_put(tree["a"], jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp")))
    assert int(fingerprints({"x": tree | {"a": split}})["x"]) == value
