"""The comparison's classifiers trained, evaluated and loaded as Swins are; what only Swins can names them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swin_jax
from swin_jax import experiment, summary, train
from swin_jax.attention_pictures import choose_attention
from swin_jax.config import Config
from swin_jax.models.registry import create_model
from swin_jax.origin import open_origin
from swin_jax.restore import open_run
from swin_jax.training.run_directory import read_metrics
from swin_jax.weights import flatten, unflatten
from swin_jax.weights.backbones import RESNET, VIT
from swin_jax.weights.files import write_safetensors
from swin_jax.weights.layouts import write_state
from tests.runs.test_pretrained import begun_run, first_parameters

Micro = Callable[..., Config]
OF_A_SWIN = ("embed_dim", "depths", "num_heads", "window_size", "patch_size", "drop_path_rate")
FIELDS: dict[str, dict[str, Any]] = {
    "resnet50": {"depths": (1, 1, 1, 1), "width_per_group": 2, "drop_path_rate": 0.1},
    "deit_small_patch16_224": {
        "embed_dim": 12,
        "depth": 1,
        "patch_size": 4,
        "absolute_position_size": (16, 16),
    },
    "mixer_base_patch16_224": {"embed_dim": 8, "depth": 1, "patch_size": 4, "image_size": (16, 16)},
    "resmlp_small_24_224": {"embed_dim": 8, "depth": 2, "patch_size": 4, "image_size": (16, 16)},
}
IMAGES = np.random.RandomState(0).standard_normal((2, 16, 16, 3)).astype(np.float32)


def config_of(micro: Micro, name: str, **fields: Any) -> Config:
    """The micro experiment with another model."""
    model = dict.fromkeys(OF_A_SWIN) | FIELDS[name] | {"name": name}
    return micro(**{f"model__{field}": value for field, value in model.items()}, **fields)


def held(tree: Any) -> dict[str, np.ndarray]:
    return {path: np.asarray(value) for path, value in flatten(jax.device_get(tree)).items()}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name.startswith(("resnet", "deit")) else ())
        for name in FIELDS
    ],
)
def test_a_baseline_trains_and_is_loaded_from_its_run(name: str, micro: Micro, tmp_path: Path) -> None:
    config = config_of(micro, name, total="4 steps", evaluate_every="4 steps", ema__decay=0.5)
    train.train(train.prepare(config, str(tmp_path)))
    (scored,) = (line for line in read_metrics(tmp_path) if "eval/loss" in line)
    assert scored["eval/examples"] == scored["eval/ema/examples"] == 21
    params, model_state = open_run(str(tmp_path)).load()
    assert ("batch_stats" in model_state) == (name == "resnet50")
    model, variables = swin_jax.load(name, str(tmp_path), num_classes=3, **FIELDS[name])
    expected = model.apply({"params": params, **model_state}, IMAGES)
    np.testing.assert_allclose(model.apply(variables, IMAGES), expected, rtol=1e-6)
    # The model card says so, too.
    card = (tmp_path / "README.md").read_text()
    assert re.search(rf'swin_jax.load\("{name}", "{tmp_path.name}", .*num_classes=3', card)


def test_running_statistics_move_in_training_and_are_what_evaluation_takes(micro: Micro) -> None:
    task = experiment.make_task(config_of(micro, "resnet50"), ("a", "b", "c"))
    params, state = task.init(jax.random.key(0))
    batch = {
        "image": jnp.asarray(np.random.RandomState(0).randint(0, 256, (8, 16, 16, 3)), jnp.uint8),
        "label": jnp.arange(8) % 3,
        "valid": jnp.ones(8, bool),
    }
    key = jax.random.key(1)
    _, aux = jax.jit(lambda: task.loss(params, state, task.augment(batch, key), key))()
    before, after = held(state), held(aux.model_state)
    assert before.keys() == after.keys()
    assert all((before[path] != after[path]).any() for path in before)
    predict = jax.jit(lambda state: task.predict(params, state, batch)["log_probabilities"])
    assert (predict(state) != predict(aux.model_state)).any()


def test_another_picture_size_is_refused_before_anything_is_computed(micro: Micro, tmp_path: Path) -> None:
    config = config_of(micro, "mixer_base_patch16_224", data__size=(24, 24), data__resize=(24, 24))
    with pytest.raises(ValueError, match=r"image_size \(16, 16\) alone, got \(24, 24\)"):
        train.prepare(config, str(tmp_path / "run"))


@pytest.mark.parametrize(("name", "layout"), [("resnet50", RESNET), ("deit_small_patch16_224", VIT)])
def test_published_files_of_resnets_and_vits(name: str, layout: Any, micro: Micro, tmp_path: Path) -> None:
    """Loaded as they are; a run begins with them, its head fresh where the classes differ."""
    model = create_model(name, num_classes=5, **FIELDS[name])
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    generator = np.random.default_rng(0)
    values = {
        path: generator.uniform(0.1, 1, leaf.shape).astype(np.float32)
        for tree in variables.values()
        for path, leaf in flatten(tree).items()
    }
    state = write_state(values, layout)
    if layout is VIT:
        places = [state.pop("class_pos_embed")[None, None], state.pop("absolute_pos_embed")]
        state |= {"pos_embed": np.concatenate(places, axis=1), "cls_token": state["cls_token"][None, None]}
    file = str(tmp_path / "published.safetensors")
    write_safetensors(Path(file), state, {"format": "pt"})
    loaded = swin_jax.load(name, file, num_classes=5, **FIELDS[name])[1]
    assert loaded.keys() == variables.keys()
    trees = {
        collection: unflatten({path: jnp.asarray(values[path]) for path in flatten(tree)})
        for collection, tree in variables.items()
    }
    np.testing.assert_array_equal(model.apply(loaded, IMAGES), model.apply(trees, IMAGES))
    begun = first_parameters(config_of(micro, name, init_from=file), tmp_path / "run")
    for path, value in begun.items():
        assert np.array_equal(value, values[path]) != path.startswith("head/"), path
    other = {"depth": 2} if layout is VIT else {"depths": (1, 2, 1, 1)}
    message = r"published.safetensors \(of a ResNet or ViT\) does not fit the model"
    with pytest.raises(ValueError, match=message):
        swin_jax.load(name, file, num_classes=5, **FIELDS[name] | other)


def test_what_is_for_swins_alone_names_the_model(micro: Micro, tmp_path: Path) -> None:
    name, run = "resnet50", str(tmp_path / "run")
    begun_run(config_of(micro, name), Path(run))
    alone = rf"is for Swins alone, not for '{name}' \(ResNet\)"
    with pytest.raises(ValueError, match=f"writing files for other places {alone}"):
        open_origin(run)
    with pytest.raises(ValueError, match=f"swin_jax.features {alone}"):
        swin_jax.features(name, run)
    with pytest.raises(ValueError, match="--attention cannot show resnet50: ResNet has no window attention"):
        choose_attention(open_run(run), (), "0.5,0.5")
    mixer, file = "mixer_base_patch16_224", tmp_path / "mixer.safetensors"
    write_safetensors(file, {"stem.proj.bias": np.zeros(8, np.float32)}, {"format": "pt"})
    with pytest.raises(ValueError, match="an MLP-Mixer or ResMLP is read from a run directory alone"):
        swin_jax.load(mixer, str(file))


@pytest.mark.parametrize("name", ["resnet50", "deit_base_patch16_384", "resmlp_small_24_224"])
def test_a_published_recipe_takes_a_baseline_by_its_name_alone(name: str) -> None:
    """`--config=experiments/imagenet1k.py:swin_tiny --config.model.name=...`, described."""
    from experiments import imagenet1k

    config = imagenet1k.get_config("swin_tiny")
    config.model.name = name
    found = summary.recipe(config)
    row = summary.summarize(name)
    assert (found["macs"], found["params"], found["drop_path_rate"]) == (row.macs, row.params, 0.2)
    assert found["size"] == [row.image_size] * 2
