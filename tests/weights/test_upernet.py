"""UperNet's names in other code bases: everything has a place, and comes back bit for bit."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swin_jax
from swin_jax import pretrained
from swin_jax.models.segmenters import create_segmenter
from swin_jax.weights import OURS, Weights, flatten, unflatten
from swin_jax.weights.upernet import HEADS_BESIDE, state_of_upernet, upernet_of_state

MICRO = {
    "embed_dim": 8,
    "depths": (1, 2, 1, 1),
    "num_heads": (1, 1, 1, 1),
    "window_size": 2,
    "channels": 6,
    "auxiliary_channels": 4,
}


@pytest.fixture(name="ours", scope="module")
def fixture_ours() -> dict[str, dict[str, np.ndarray]]:
    """Drawn parameters and statistics of a micro UperNet by path."""
    model = create_segmenter("upernet_swin_tiny", 5, **MICRO)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    generator = np.random.RandomState(0)
    return {
        collection: {
            path: generator.standard_normal(leaf.shape).astype(np.float32)
            for path, leaf in flatten(tree).items()
        }
        for collection, tree in shapes.items()
    }


@pytest.mark.parametrize("layout", HEADS_BESIDE)
def test_every_parameter_and_statistic_goes_out_and_comes_back(layout: str, ours: dict):
    state = state_of_upernet(ours, layout)
    assert len(state) >= sum(map(len, ours.values()))
    back = upernet_of_state(state, "file")
    assert back.keys() == ours.keys()
    for collection, values in ours.items():
        assert back[collection].keys() == values.keys()
        for path, value in values.items():
            np.testing.assert_array_equal(back[collection][path], value)


def test_the_names_are_those_of_the_code_bases(ours: dict):
    openmmlab, transformers = (state_of_upernet(ours, layout) for layout in ("openmmlab", "transformers"))
    assert openmmlab["decode_head.psp_modules.3.1.conv.weight"].shape == (6, 64, 1, 1)
    assert openmmlab["decode_head.fpn_bottleneck.bn.running_var"].shape == (6,)
    assert openmmlab["auxiliary_head.convs.0.conv.weight"].shape == (4, 32, 3, 3)
    assert openmmlab["backbone.stages.1.blocks.1.attn.w_msa.qkv.weight"].shape == (48, 16)
    assert transformers["decode_head.lateral_convs.2.batch_norm.running_mean"].shape == (6,)
    assert transformers["auxiliary_head.classifier.bias"].shape == (5,)
    assert transformers["backbone.hidden_states_norms.stage4.weight"].shape == (64,)


def test_a_name_without_a_place_is_named(ours: dict):
    state = state_of_upernet(ours, "openmmlab")
    with pytest.raises(ValueError, match=r"file \(openmmlab\): decode_head\.extra\.weight"):
        upernet_of_state(state | {"decode_head.extra.weight": np.zeros(1)}, "file")
    with pytest.raises(ValueError, match="file has the heads of no UperNet: roi_head"):
        upernet_of_state({"roi_head.weight": np.zeros(1)}, "file")
    with pytest.raises(ValueError, match="UperNet is not written as 'timm'"):
        state_of_upernet(ours, "timm")


def test_a_file_becomes_a_model_with_its_statistics(ours: dict, tmp_path: Path):
    file = str(tmp_path / "upernet.safetensors")
    trees = {collection: unflatten(values) for collection, values in ours.items()}
    swin_jax.save_segmenter(file, trees["params"], {"batch_stats": trees["batch_stats"]})
    model, variables = swin_jax.load_segmenter("upernet_swin_tiny", file, num_classes=5, **MICRO)
    assert model.num_classes == 5
    assert jax.tree.structure(variables) == jax.tree.structure(trees)
    jax.tree.map(np.testing.assert_array_equal, variables, trees)
    with pytest.raises(ValueError, match=r"surplus backbone/stage1/block1/attn/proj/bias"):
        swin_jax.load_segmenter("upernet_swin_tiny", file, num_classes=5, **MICRO | {"depths": (1, 1, 1, 1)})


def test_a_segmenter_begins_with_the_backbone_of_another(ours: dict, monkeypatch: pytest.MonkeyPatch):
    params = ours["params"]
    names = {path: (path,) for path in params}
    monkeypatch.setattr(pretrained, "read", lambda *_: Weights("runs/a", OURS, params, names))
    begin = pretrained.beginning("runs/a", unflatten(params))
    inside = {path for path in params if path.startswith("backbone/")}
    assert set(begin.params) == inside
    assert set(begin.fresh) == set(params) - inside
    assert any("what stands beside the backbone left out" in note for note in begin.notes)
