"""Runs that begin with weights from elsewhere, conversion of run directories, and the library's own door."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import swin_jax
from swin_jax import origin, pretrained, train
from swin_jax.config import Config
from swin_jax.training.checkpoint import Checkpoints
from swin_jax.training.state import create_state
from swin_jax.weights import flatten, read_weights, state_of, write_weights
from tests.runs.conftest import run
from tests.weights import micro as small

Micro = Callable[..., Config]
MODEL = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "patch_size": 4, "num_classes": 3}


def begun_run(config: Config, directory: Path) -> dict[str, np.ndarray]:
    """A run directory with a checkpoint of its first state, and that state's parameters."""
    plan = train.prepare(config, str(directory))
    state = create_state(plan.task, plan.optimizer, config.seed, plan.shardings)
    checkpoints = Checkpoints(directory / "checkpoints", metric="top1")
    checkpoints.save(1, dataclasses.replace(state, step=jnp.asarray(1)), force=True)
    checkpoints.close()
    return {path: np.asarray(value) for path, value in flatten(jax.device_get(state.params)).items()}


def timm_file(path: Path, **fields: Any) -> dict[str, np.ndarray]:
    """A checkpoint under timm's names; returns what it holds in ours."""
    params = small.params(**(MODEL | fields))
    save_file(state_of(params, "timm"), path)
    return params


def first_parameters(config: Config, directory: Path) -> dict[str, np.ndarray]:
    plan = train.prepare(config, str(directory))
    checkpoints = Checkpoints(directory / "checkpoints", metric="top1")
    state = train.first_state(plan, checkpoints)
    checkpoints.close()
    return {path: np.asarray(value) for path, value in flatten(jax.device_get(state.params)).items()}


def test_run_directories_of_any_type_and_sharding_convert_alike(micro: Micro, tmp_path: Path) -> None:
    """Whole in float32, and split over eight devices with bfloat16 activations; read on one device and on eight."""
    config = {"init_from": "", "evaluate_batch_size": 16}
    params = begun_run(micro(**config), tmp_path / "whole")
    split = micro(model__dtype="bfloat16", mesh__fsdp=8, mesh__rules=((r"qkv/kernel$", (None, "fsdp")),))
    assert small.same(begun_run(split, tmp_path / "split"), params)
    for name, devices in (("whole", 8), ("split", 1)):
        assert small.same(
            dict(pretrained.read(str(tmp_path / name)).params), params
        )  # here: on eight devices
        file = tmp_path / f"{name}.safetensors"
        arguments = [f"--weights={tmp_path / name}", f"--output={file}", "--json"]
        done = run("convert", *arguments, devices=devices)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["format"] == "swin_jax"
        found = read_weights(file)
        assert small.same(dict(found.params), params)
        assert found.description["class_names"] == ["blue", "green", "red"]
        card = json.loads((tmp_path / f"{name}.card.json").read_text())
        assert card["parameters"] == sum(value.size for value in params.values())
        assert card["run"]["evaluations"] == []  # none was made, and none is made up
        assert "No evaluation" in (tmp_path / f"{name}.README.md").read_text()


def test_a_run_begins_with_a_file_of_another_code_base(micro: Micro, tmp_path: Path) -> None:
    expected = timm_file(tmp_path / "timm.safetensors", window_size=2)
    config = micro(init_from=str(tmp_path / "timm.safetensors"))
    assert small.same(first_parameters(config, tmp_path / "run"), expected)


def test_another_window_and_head_are_made_to_fit(micro: Micro, tmp_path: Path) -> None:
    expected = timm_file(tmp_path / "timm.safetensors", window_size=3, num_classes=7)
    file = str(tmp_path / "timm.safetensors")
    found = first_parameters(micro(init_from=file, mesh__fsdp=8), tmp_path / "run")
    fresh = first_parameters(micro(), tmp_path / "fresh")
    for path, value in found.items():
        if path.startswith("head/"):
            assert np.array_equal(value, fresh[path])
        elif path.endswith("table"):
            assert value.shape == (9, 2)
            assert not np.array_equal(value, fresh[path])
        else:
            assert np.array_equal(value, expected[path])


def test_a_run_that_has_checkpoints_does_not_need_the_file_again(micro: Micro, tmp_path: Path) -> None:
    timm_file(tmp_path / "timm.safetensors", window_size=2)
    config = micro(init_from=str(tmp_path / "timm.safetensors"))
    begun_run(config, tmp_path / "run")
    (tmp_path / "timm.safetensors").unlink()
    assert train.prepare(config, str(tmp_path / "run")).begin is None


def test_a_map_without_weights(micro: Micro, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"init_head is 'map.txt', but there is no init_from"):
        train.prepare(micro(init_head="map.txt"), str(tmp_path / "run"))


def test_a_recipe_that_fine_tunes_may_begin_with_nothing(micro: Micro, tmp_path: Path) -> None:
    assert train.prepare(micro(init_from="none"), str(tmp_path / "run")).begin is None


def test_a_swin_under_another_task_gets_its_backbone(tmp_path: Path) -> None:
    expected = timm_file(tmp_path / "timm.safetensors", window_size=2)
    inside = small.shapes(**(MODEL | {"window_size": 2, "features_only": True, "num_classes": 0}))
    shapes = {f"backbone/{path}": shape for path, shape in inside.items()} | {"decode_head/kernel": (1, 2)}
    tree = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in shapes.items()}
    found = pretrained.beginning(str(tmp_path / "timm.safetensors"), tree)
    assert set(found.fresh) == {"backbone/norm0/scale", "backbone/norm0/bias", "decode_head/kernel"}
    path = "stage0/block1/attn/qkv/kernel"
    assert np.array_equal(found.params[f"backbone/{path}"], expected[path])


def test_load_and_features_from_the_package(tmp_path: Path) -> None:
    expected = timm_file(tmp_path / "timm.safetensors", window_size=2)
    fields = {name: value for name, value in MODEL.items() if name != "num_classes"} | {"window_size": 2}
    file = str(tmp_path / "timm.safetensors")
    model, variables = swin_jax.load("swin", file, num_classes=3, **fields)
    images = np.random.RandomState(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
    assert model.apply(variables, images).shape == (2, 3)
    assert small.same(
        {path: np.asarray(value) for path, value in flatten(variables["params"]).items()}, expected
    )
    other = swin_jax.load("swin", file, num_classes=5, **fields)[1]["params"]
    assert other["head"]["kernel"].shape == (16, 5)
    assert 0.005 < float(jnp.std(other["head"]["kernel"])) < 0.05
    model, variables = swin_jax.features("swin", file, **fields)
    (out,) = model.apply(variables, images)
    assert out.shape == (2, 4, 4, 16)
    assert np.allclose(np.asarray(out).mean(-1), 0.0, atol=1e-5)  # through a norm at its start
    with pytest.raises(ValueError, match="name the model of that window, or ask for the bias tables"):
        swin_jax.load("swin", file, num_classes=3, **(fields | {"window_size": 4}))
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        swin_jax.laod  # noqa: B018


def test_convert_says_what_is_wrong(tmp_path: Path) -> None:
    done = run("convert", f"--weights={tmp_path / 'none.pth'}", f"--output={tmp_path / 'x.safetensors'}")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == f"error: {tmp_path / 'none.pth'} does not exist"


def test_a_row_of_an_ablation_is_not_handed_on_as_another_model(tmp_path: Path) -> None:
    for fields in ({"shift": "none"}, {"mixer": "sliding"}):
        path = tmp_path / f"{next(iter(fields))}.safetensors"
        write_weights(path, small.params(**MODEL), description={"model": {"name": "swin", **fields}})
    done = run(
        "convert",
        f"--weights={tmp_path / 'shift.safetensors'}",
        f"--output={tmp_path / 'x.pth'}",
        "--to=timm",
    )
    assert done.stderr.strip().endswith(
        "has shift=none, which no other code base has: only --to=swin_jax keeps that"
    )
    assert not (tmp_path / "x.pth").exists()
    assert origin.open_origin(str(tmp_path / "shift.safetensors")).module.shift == "none"
    with pytest.raises(ValueError, match=r"is for Swins with window attention, .* has mixer 'sliding'"):
        origin.open_origin(str(tmp_path / "mixer.safetensors"))
