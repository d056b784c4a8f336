"""UperNet's names in other code bases: everything has a place, and comes back bit for bit."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swin_jax
from swin_jax import convert, pretrained
from swin_jax.models.segmenters import create_segmenter
from swin_jax.origin import open_origin
from swin_jax.weights import OURS, Fitted, Weights, flatten, unflatten
from swin_jax.weights.backbones import RESNET
from swin_jax.weights.composed import composed_of_state, state_of_composed, write_composed
from swin_jax.weights.layouts import write_state
from swin_jax.weights.upernet import UPERNET
from tests.weights import micro

MICRO = {
    "embed_dim": 8,
    "depths": (1, 2, 1, 1),
    "num_heads": (1, 1, 1, 1),
    "window_size": 2,
    "channels": 6,
    "auxiliary_channels": 4,
}


@cache
def shapes(name: str = "upernet_swin_tiny", classes: int = 5, **fields: Any) -> dict[str, Any]:
    """Parameters and statistics of a micro UperNet, not computed."""
    model = create_segmenter(name, classes, **fields)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def drawn(tree: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """Random values by path, apart as in `tree`."""
    generator = np.random.RandomState(0)
    return {
        collection: {
            path: generator.standard_normal(leaf.shape).astype(np.float32)
            for path, leaf in flatten(inside).items()
        }
        for collection, inside in tree.items()
    }


def together(collections: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return collections["params"] | collections["batch_stats"]


def begun(file: str, tree: dict[str, Any], **options: Any) -> Fitted:
    return pretrained.beginning(file, tree["params"], {"batch_stats": tree["batch_stats"]}, **options)


@pytest.fixture(name="ours", scope="module")
def fixture_ours() -> dict[str, dict[str, np.ndarray]]:
    """Drawn parameters and statistics of a micro UperNet by path."""
    return drawn(shapes(**MICRO))


@pytest.fixture(name="file", scope="module")
def fixture_file(ours: dict, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same as OpenMMLab has them."""
    path = tmp_path_factory.mktemp("files") / "upernet.safetensors"
    write_composed(path, together(ours), "openmmlab")
    return str(path)


@pytest.mark.parametrize("layout", UPERNET.beside)
def test_every_parameter_and_statistic_goes_out_and_comes_back(layout: str, ours: dict):
    state = state_of_composed(together(ours), layout)
    assert len(state) >= sum(map(len, ours.values()))
    back = composed_of_state(state, "file")
    assert micro.same(dict(back.params), ours["params"])
    assert micro.same(dict(back.statistics), ours["batch_stats"])


def test_the_names_are_those_of_the_code_bases(ours: dict):
    openmmlab, transformers = (
        state_of_composed(together(ours), layout) for layout in ("openmmlab", "transformers")
    )
    assert openmmlab["decode_head.psp_modules.3.1.conv.weight"].shape == (6, 64, 1, 1)
    assert openmmlab["decode_head.fpn_bottleneck.bn.running_var"].shape == (6,)
    assert openmmlab["auxiliary_head.convs.0.conv.weight"].shape == (4, 32, 3, 3)
    assert openmmlab["backbone.stages.1.blocks.1.attn.w_msa.qkv.weight"].shape == (48, 16)
    assert transformers["decode_head.lateral_convs.2.batch_norm.running_mean"].shape == (6,)
    assert transformers["auxiliary_head.classifier.bias"].shape == (5,)
    assert transformers["backbone.hidden_states_norms.stage4.weight"].shape == (64,)


def test_a_name_without_a_place_is_named(ours: dict):
    state = state_of_composed(together(ours), "openmmlab")
    with pytest.raises(ValueError, match=r"file \(openmmlab\): decode_head\.extra\.weight"):
        composed_of_state(state | {"decode_head.extra.weight": np.zeros(1)}, "file")
    with pytest.raises(ValueError, match=r"file has the heads of no known model .*: roi_head"):
        composed_of_state({"roi_head.weight": np.zeros(1)}, "file")
    with pytest.raises(ValueError, match="UperNet is not written as 'timm'"):
        state_of_composed(together(ours), "timm")


def test_a_file_becomes_a_model_with_its_statistics(ours: dict, tmp_path: Path):
    file = str(tmp_path / "upernet.safetensors")
    trees = {collection: unflatten(values) for collection, values in ours.items()}
    swin_jax.save_composed(file, trees["params"], {"batch_stats": trees["batch_stats"]})
    model, variables = swin_jax.load_segmenter("upernet_swin_tiny", file, num_classes=5, **MICRO)
    assert model.num_classes == 5
    assert jax.tree.structure(variables) == jax.tree.structure(trees)
    jax.tree.map(np.testing.assert_array_equal, variables, trees)
    with pytest.raises(ValueError, match=r"surplus backbone/stage1/block1/attn/proj/bias"):
        swin_jax.load_segmenter("upernet_swin_tiny", file, num_classes=5, **MICRO | {"depths": (1, 1, 1, 1)})


@pytest.mark.parametrize("layout", ["swin_jax", "openmmlab", "transformers"])
def test_a_run_begins_with_a_whole_segmenter(layout: str, ours: dict, tmp_path: Path):
    path = tmp_path / "upernet.safetensors"
    write_composed(path, together(ours), layout)
    found = begun(str(path), shapes(**MICRO))
    assert micro.same(found.params, ours["params"])
    assert micro.same(found.statistics, ours["batch_stats"])
    assert found.fresh == ()
    assert "a whole segmenter" in found.notes[0]


@pytest.mark.parametrize(("classes", "head"), [(3, ""), (5, "fresh")])
def test_classifiers_of_other_classes_are_fresh(classes: int, head: str, file: str, ours: dict):
    found = begun(file, shapes(classes=classes, **MICRO), head=head)
    fresh = {
        f"{part}_head/classifier/{leaf}" for part in ("decode", "auxiliary") for leaf in ("kernel", "bias")
    }
    assert set(found.fresh) == fresh
    assert micro.same(found.params, {path: ours["params"][path] for path in ours["params"].keys() - fresh})
    assert micro.same(found.statistics, ours["batch_stats"])
    note = f"decode_head/classifier and auxiliary_head/classifier fresh: {classes} classes, the file has 5"
    assert note in found.notes


def test_tables_of_another_window_are_resampled(file: str):
    found = begun(file, shapes(**MICRO | {"window_size": 4}))
    assert found.fresh == ()
    assert found.params["backbone/stage1/block1/attn/relative_position_bias_table"].shape == (49, 1)


@pytest.mark.parametrize(
    ("fields", "head", "message"),
    [
        (
            {"channels": 8},
            "",
            r"does not fit the model: decode_head/bottleneck/bn/bias is \(6,\), expected \(8,\)",
        ),
        ({"depths": (1, 1, 1, 1)}, "", "is another model: .* they differ in depths"),
        ({}, "map.txt", "init_head is 'map.txt'; a segmenter's or detector's is 'fresh', or empty"),
    ],
)
def test_another_model_is_one_sentence(fields: dict, head: str, message: str, file: str):
    with pytest.raises(ValueError, match=message):
        begun(file, shapes(**MICRO | fields), head=head)


def test_a_resnet_comes_whole(ours: dict, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    fields = {"depths": (1, 1, 1, 1), "channels": 6, "auxiliary_channels": 4}
    tree = shapes("upernet_resnet50", **fields)
    values = drawn(tree)
    path = tmp_path / "resnet.safetensors"
    write_composed(path, together(values), "swin_jax")
    found = begun(str(path), tree)
    assert micro.same(found.params, values["params"])
    assert micro.same(found.statistics, values["batch_stats"])
    inside = {name[9:]: value for name, value in together(values).items() if name.startswith("backbone/")}
    heads = {name: value for name, value in together(values).items() if not name.startswith("backbone/")}
    backbone = {f"backbone.{name}": value for name, value in write_state(inside, RESNET).items()}
    theirs = composed_of_state(write_state(heads, UPERNET.heads["openmmlab"]) | backbone, "file")
    assert micro.same(dict(theirs.params), values["params"])
    assert micro.same(dict(theirs.statistics), values["batch_stats"])
    with pytest.raises(ValueError, match=r"upernet.safetensors does not fit the model: missing backbone/"):
        begun(file, tree)
    swin = Weights("runs/swin", OURS, {"head/bias": np.zeros(2)}, {})
    monkeypatch.setattr(pretrained, "read", lambda *_: swin)
    with pytest.raises(ValueError, match="is no run of such a model; a ResNet or ViT begins with one"):
        begun(str(tmp_path), tree)


def test_a_file_is_converted_whole_and_described_no_further_than_it_describes_itself(
    file: str, ours: dict, tmp_path: Path
):
    report = convert.convert_composed(
        pretrained.read(file, whole=True), tmp_path / "ours.safetensors", "swin_jax"
    )
    assert (report["format"], report["cards"]) == ("openmmlab", [])
    assert report["mapped"]["decode_head/fuse/bn/mean"] == ["decode_head.fpn_bottleneck.bn.running_mean"]
    assert report["tensors"] == len(together(ours))
    assert "read back bit for bit" in convert.table(report)
    back = pretrained.read(str(tmp_path / "ours.safetensors"), whole=True)
    assert micro.same({**back.params, **back.statistics}, together(ours))
    with pytest.raises(
        ValueError, match=r"ours.safetensors is an UperNet, this is for classifiers and backbones"
    ):
        open_origin(str(tmp_path / "ours.safetensors"))
    with pytest.raises(ValueError, match="UperNet is not written as 'timm'; formats: swin_jax, openmmlab"):
        convert.convert_composed(back, tmp_path / "timm.safetensors", "timm")
