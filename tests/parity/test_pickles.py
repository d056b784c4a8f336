"""PyTorch's own files: what they may hold, what they may not, and that nothing in them is executed."""

import collections
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from swin_jax.weights import read_weights, write_weights
from tests.weights import micro


class Runs:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.witness}",))


def tensors(layout: str = "official") -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value.copy()) for name, value in micro.state(layout).items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
        lambda state: {"meta": {"CLASSES": ("a", "b")}, "state_dict": collections.OrderedDict(state)},
        lambda state: {"model": {"state_dict": state}},
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_containers(tmp_path: Path, wrap: Any, legacy: bool) -> None:
    path = tmp_path / "file.pth"
    torch.save(wrap(tensors()), path, _use_new_zipfile_serialization=not legacy)
    assert micro.same(dict(read_weights(path).params), micro.params())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors().items()
    }
    torch.save({"model": state}, tmp_path / "file.bin")
    found = read_weights(tmp_path / "file.bin").params
    expected = {
        path: torch.from_numpy(value).to(dtype).float().numpy() for path, value in micro.params().items()
    }
    assert micro.same(dict(found), expected)


@pytest.mark.parametrize("layout", micro.CLASSIFIER_LAYOUTS)
def test_written_files_come_back(tmp_path: Path, layout: str) -> None:
    write_weights(tmp_path / "file.pth", micro.params(), layout, image_size=(112, 112))
    content = torch.load(tmp_path / "file.pth", weights_only=True)
    assert ("model" in content) == (layout == "official")
    assert ("state_dict" in content) == (layout == "openmmlab")
    assert micro.same(dict(read_weights(tmp_path / "file.pth").params), micro.params())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            {"optimizer": {"state": {}, "param_groups": []}, "epoch": 1},
            "the state of an optimizer and no weights",
        ),
        ({"state": {}, "param_groups": []}, "the state of an optimizer and no weights"),
        ({"epoch": 1, "loss": 0.5}, "holds no tensors; at its top are: epoch, loss"),
        ({}, "holds no tensors; at its top are: nothing"),
        ([1, 2], "holds a list, expected a dictionary of tensors"),
        (torch.zeros(3), "holds a Tensor, expected a dictionary of tensors"),
        ({"model": {"x": torch.zeros(2, 2).to_sparse()}}, "is a sparse or quantised tensor"),
        ({"layer1.0.conv1.weight": torch.zeros(1)}, "is a ResNet; only Swin V1"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: Any, sentence: str) -> None:
    path = tmp_path / "file.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True, None])
def test_pickled_code_is_named_and_not_run(tmp_path: Path, legacy: bool | None) -> None:
    path, witness = tmp_path / "file.pth", tmp_path / "witness"
    content = {"model": tensors(), "config": Runs(witness)}
    if legacy is None:
        path.write_bytes(pickle.dumps({"config": Runs(witness)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        ValueError, match=r"(holds Python objects \(posix.system\)|is no PyTorch file)"
    ) as caught:
        read_weights(path)
    assert "execute" in str(caught.value)
    assert not witness.exists()


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({"model": tensors()}, path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:50], b"not a pickle at all", os.urandom(4096)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is no (complete )?PyTorch file"):
            read_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.jpg", b"\xff\xd8")
    with pytest.raises(ValueError, match=r"is no (complete )?PyTorch file"):
        read_weights(path)


def test_values_are_looked_at(tmp_path: Path) -> None:
    state = tensors()
    state["norm.weight"] = torch.full_like(state["norm.weight"], np.nan)
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"not finite \(NaN or infinity\) in norm.weight"):
        read_weights(tmp_path / "file.pth")
