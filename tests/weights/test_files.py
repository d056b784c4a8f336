"""Weight files that are wrong, damaged or hostile: each has its sentence. No test here needs PyTorch.

The same for PyTorch's own files is in tests/parity/test_pickles.py.
"""

import dataclasses
import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from swin_jax.weights import fit, read_weights, sort_state, write_weights
from tests.weights import micro

CLASSES_22K = {"num_classes": 21841, "embed_dim": 2, "num_heads": (1, 1)}


def saved(path: Path, state: dict[str, np.ndarray]) -> Path:
    save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, path)
    return path


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_halves_are_widened_exactly(tmp_path: Path, dtype: Any) -> None:
    state = {name: value.astype(dtype) for name, value in micro.state("timm").items()}
    found = read_weights(saved(tmp_path / "half.safetensors", state))
    expected = {path: value.astype(dtype).astype(np.float32) for path, value in micro.params().items()}
    assert micro.same(dict(found.params), expected)


def test_our_own_file_describes_itself(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    write_weights(path, micro.params(), description={"class_names": ["a", "b"]})
    found = read_weights(path)
    assert micro.same(dict(found.params), micro.params())
    assert found.layout == "swin_jax"
    assert found.description == {"class_names": ["a", "b"], "format": 1}


Change = Callable[[dict[str, np.ndarray]], None]


def edited(**changes: Any) -> Change:
    def change(state: dict[str, np.ndarray]) -> None:
        for name, value in changes.items():
            name = name.replace("__", ".")
            state.pop(name)
            if value is not None:
                state[name] = value

    return change


def renamed(old: str, new: str) -> Change:
    def change(state: dict[str, np.ndarray]) -> None:
        for name in [name for name in state if old in name]:
            state[name.replace(old, new)] = state.pop(name)

    return change


def added(**values: np.ndarray) -> Change:
    return lambda state: state.update({name.replace("__", "."): value for name, value in values.items()})


ZERO = np.zeros(16, np.float32)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (edited(norm__bias=np.full(32, np.nan, np.float32)), r"not finite \(NaN or infinity\) in norm.bias"),
        (edited(norm__bias=np.full(32, np.inf, np.float32)), r"not finite \(NaN or infinity\) in norm.bias"),
        (edited(norm__bias=np.zeros(32, np.int8)), r"must be floats, these are not: norm.bias \(int8\)"),
        (edited(norm__bias=np.zeros(32, np.complex64)), "norm.bias is of type complex64, expected float32"),
        (edited(norm__bias=None), r"does not fit the model: missing norm/bias \(32,\)"),
        (
            edited(norm__bias=np.zeros(31, np.float32)),
            r"norm/bias \(from norm.bias\) is \(31,\), expected \(32,\)",
        ),
        (
            edited(norm__bias=np.zeros((32, 1, 1), np.float32)),
            r"norm.bias has shape \(32, 1, 1\), expected 1 or 2",
        ),
        (added(adapter__weight=ZERO), "surplus adapter.weight"),
        (added(module__norm__bias=ZERO), "surplus module.norm.bias"),
        (
            renamed("layers.1.blocks.1.norm1.weight", "layers.1.blocks.1.norm1.gamma"),
            r"missing .*surplus .*gamma",
        ),
        (renamed("attn.qkv.bias", "attn.q_bias"), "they differ in qkv_bias"),
        (added(layers__0__blocks__0__attn__logit_scale=ZERO), "is a Swin V2; only Swin V1 is read"),
        (renamed("attn.qkv", "spatial_mlp"), "is a Swin-MLP; only Swin V1 is read"),
        (
            lambda state: [state.pop(name) for name in list(state)] and state.update(cls_token=ZERO),
            "is a plain vision",
        ),
        (renamed("layers.", "wagons."), r"has the names of no Swin \(.*\); formats: swin_jax"),
        (lambda state: state.clear(), r"has the names of no Swin"),
    ],
)
def test_wrong_tensors(tmp_path: Path, change: Change, sentence: str) -> None:
    state = micro.state("official")
    change(state)
    path = saved(tmp_path / "file.safetensors", state)
    with pytest.raises(ValueError, match=sentence) as caught:
        fit(read_weights(path), micro.shapes())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_one_error(tmp_path: Path) -> None:
    state = micro.state("timm") | {"extra.weight": ZERO}
    del state["layers.0.blocks.0.norm1.weight"]
    state["norm.bias"] = ZERO
    with pytest.raises(ValueError, match="does not fit the model") as caught:
        fit(read_weights(saved(tmp_path / "file.safetensors", state)), micro.shapes())
    for part in (
        "missing stage0/block0/norm1/scale",
        "surplus extra.weight",
        "norm/bias (from norm.bias) is (16,)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "has", "wants", "sentence"),
    [
        ("timm", {"depths": (2, 4)}, {}, r"another model: a Swin .*depths \(2, 4\).*they differ in depths"),
        ("official", {"embed_dim": 32}, {}, "they differ in embed_dim"),
        ("official", {"num_heads": (2, 4)}, {}, "they differ in num_heads"),
        ("official", {"patch_size": 2}, {}, "they differ in patch_size"),
        ("official", {"mlp_ratio": 2.0}, {}, "they differ in mlp_ratio"),
        ("official", {"window_size": 12}, {}, "windows of 12, the model of 7; .*resampled"),
        (
            "official-dense",
            {"features_only": True, "num_classes": 0},
            {},
            "is a dense backbone, not a classifier: it has no classification head",
        ),
        ("timm", CLASSES_22K, CLASSES_22K | {"num_classes": 1000}, "name the file of the published map"),
        ("official", {"num_classes": 0}, {}, r"missing head/kernel \(32, 5\)"),
    ],
)
def test_weights_of_another_model(layout: str, has: dict, wants: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fit(micro.weights(layout, **has), micro.shapes(**wants))


def test_published_sizes_are_named() -> None:
    ours = micro.weights().architecture
    assert ours is not None
    small = dataclasses.replace(ours, embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24))
    assert str(small) == (
        "Swin-S (embed_dim 96, depths (2, 2, 18, 2), num_heads (3, 6, 12, 24), window 7, 5 classes)"
    )


def test_a_detector_is_no_classifier(tmp_path: Path) -> None:
    fields = {"features_only": True, "num_classes": 0}
    state = micro.state("openmmlab", **fields) | {"roi_head.bbox_head.fc_cls.weight": ZERO, "neck.x": ZERO}
    with pytest.raises(ValueError, match=r"dense backbone with .*detection head.*not a classifier"):
        fit(read_weights(saved(tmp_path / "detector.safetensors", state)), micro.shapes())


def test_a_third_of_qkv_is_missing() -> None:
    state = micro.state("transformers")
    del state["swin.encoder.layers.0.blocks.1.attention.self.key.bias"]
    with pytest.raises(ValueError, match=r"stage0/block1/attn/qkv/bias needs also .*self.key.bias"):
        sort_state(state, "file.bin")


class Runs:
    """What a hostile pickle does when it is read carelessly."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.witness), "w"))


def header(length: int) -> bytes:
    return struct.pack("<Q", length)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page, not weights"),
        (b"hello", "is no complete safetensors file"),
        (header(1 << 40) + b"{}", "is no complete safetensors file"),
        (header(30) + b'{"x": {"dtype": "F32"}}       ', "is no complete safetensors file"),
        (
            header(64) + b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}         ',
            "no complete safetensors",
        ),
    ],
)
def test_files_that_are_no_safetensors(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


def test_a_truncated_file_and_a_pickle_under_a_safe_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "file.safetensors", micro.state("timm"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_weights(path)
    witness = tmp_path / "witness"
    path.write_bytes(pickle.dumps({"model": Runs(witness)}))
    with pytest.raises(ValueError, match="is no complete safetensors file"):
        read_weights(path)
    assert not witness.exists()


def test_places_that_are_no_weight_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_weights(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="is a directory, expected a weight file"):
        read_weights(tmp_path)
    (tmp_path / "weights.h5").write_bytes(b"HDF")
    with pytest.raises(ValueError, match=r"does not end in one of .safetensors, .pth"):
        read_weights(tmp_path / "weights.h5")
    with pytest.raises(ValueError, match=r"must end in .safetensors to hold the format 'swin_jax'"):
        write_weights(tmp_path / "own.pth", micro.params())


def test_a_damaged_description(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file(micro.params(), path, {"swin_jax": json.dumps([1])})
    with pytest.raises(ValueError, match="has a damaged description"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pth", ".bin"])
def test_pytorch_files_without_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / f"file{suffix}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Runs(tmp_path / "witness")))
    with pytest.raises(ValueError, match=r"install PyTorch to read or write it \(pip install torch\)"):
        read_weights(path)
    with pytest.raises(ValueError, match="pip install torch"):
        write_weights(tmp_path / "out.pth", micro.params(), "official")
    assert not (tmp_path / "witness").exists()
