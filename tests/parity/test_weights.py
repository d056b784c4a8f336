"""Checkpoints of timm, torchvision and transformers: in, the same logits; out, a strict load and the same bits.

Every weight of theirs is drawn, tables and norms included. The official layout is loaded by timm's own filter for
files of the official code.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch

import swin_jax
from swin_jax.models.registry import preprocessing
from swin_jax.weights import peers, read_weights, state_of, write_weights
from tests.parity import drawn

TINY, WIDE, SMALL = (
    "swin_tiny_patch4_window7_224",
    "swin_tiny_patch4_window12_384",
    "swin_small_patch4_window7_224",
)
LAYOUTS = ("timm", "torchvision", "transformers", "transformers-5", "official")
CLASSES = 10


@functools.cache
def apply(model: Any) -> Any:
    return jax.jit(model.apply)


@functools.cache
def architecture(name: str) -> Any:
    from swin_jax.pretrained import init_shapes, shapes_of
    from swin_jax.weights.architecture import architecture

    model = swin_jax.create_model(name, num_classes=CLASSES)
    return architecture(shapes_of(init_shapes(model)))


def their_model(layout: str, name: str) -> torch.nn.Module:
    """The owner's classifier with drawn parameters."""
    peer = peers.make_peer(layout, architecture(name), preprocessing(name).size)
    values = drawn.weights({key: tuple(value.shape) for key, value in peer.named_parameters()})
    peer.load_state_dict({key: torch.from_numpy(value) for key, value in values.items()}, strict=False)
    return peer


def save_as_its_owner(peer: Any, layout: str, directory: Path) -> Path:
    if layout == "transformers":
        peer.save_pretrained(directory)
        return directory / "model.safetensors"
    if layout == "official":  # what timm writes, under official names
        state = {key: value.numpy() for key, value in peer.state_dict().items()}
        path = directory / "timm.safetensors"
        peers.write_safetensors(path, state, {"format": "pt"})
        params = read_weights(path).params
        size = (224, 224)
        write_weights(directory / "official.pth", dict(params), "official", image_size=size)
        return directory / "official.pth"
    torch.save(peer.state_dict(), directory / "file.pth")
    return directory / "file.pth"


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *((TINY, layout) for layout in LAYOUTS),
        *((WIDE, layout) for layout in ("timm", "torchvision", "transformers")),
        *((SMALL, layout) for layout in ("torchvision", "transformers-5")),
    ],
)
def test_in_and_out(name: str, layout: str, tmp_path: Path) -> None:
    peer = their_model(layout, name)
    size = preprocessing(name).size
    images = drawn.pictures(*size, batch=1)
    theirs = peers.run_peer(peer, images)
    path = save_as_its_owner(peer, layout, tmp_path)
    model, variables = swin_jax.load(name, str(path), num_classes=CLASSES)
    found = read_weights(path)
    assert found.layout == layout
    ours = np.asarray(apply(model)(variables, images))
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    back, _ = peers.peer_logits(
        layout, state_of(found.params, layout, image_size=size), architecture(name), images
    )
    assert back.tobytes() == theirs.tobytes()


def test_a_strict_load_refuses_what_is_missing() -> None:
    state = their_model("timm", TINY).state_dict()
    arrays = {key: value.numpy() for key, value in state.items() if key != "norm.bias"}
    with pytest.raises(ValueError, match=r"timm refuses the weights: .*norm\.bias"):
        peers.load_peer("timm", arrays, architecture(TINY), (224, 224))
