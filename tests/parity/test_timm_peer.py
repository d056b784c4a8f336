"""What `benchmark` measures beside ours is timm's model of the same name and timm's loader with the whole recipe."""

import itertools

import numpy as np
import pytest

from swin_jax.data.photographs import write_photographs
from swin_jax.data.sources import open_source
from swin_jax.measure import torch_peer

# timm and torch speak of their own deprecations when imported and compiled.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def peer() -> torch_peer.Peer:
    name = "swin_tiny_patch4_window7_224"
    assert torch_peer.lacking(name) == ""
    return torch_peer.Peer(
        name,
        batch_size=2,
        size=(224, 224),
        num_classes=1000,
        drop_path_rate=0.2,
        platform="cpu",
        bfloat16=False,
    )


def test_the_peer_is_the_same_model(peer: torch_peer.Peer):
    assert sum(value.numel() for value in peer.model.parameters()) == 28_288_354
    assert "timm has no model 'swin'" in torch_peer.lacking("swin")
    assert torch_peer.timm_name("swin_base_patch4_window7_224_22k") == "swin_base_patch4_window7_224"


def test_its_training_step_trains_and_its_inference_does_not(peer: torch_peer.Peer):
    def weights() -> np.ndarray:
        return peer.model.head.fc.weight.detach().numpy().copy()

    before = weights()
    peer.inference(compiled=False)()
    np.testing.assert_array_equal(weights(), before)
    peer.training_step(compiled=False)()
    assert np.isfinite(weights()).all()
    assert (weights() != before).mean() > 0.99


def test_its_loader_mixes_uint8_pictures(tmp_path):
    write_photographs(tmp_path, 4)
    source = open_source("folder", "train", root=str(tmp_path))
    batches = torch_peer.training_batches(source, size=(224, 224), batch_size=4, workers=0, num_classes=10)
    for images, targets in itertools.islice(batches, 2):
        assert images.shape == (4, 3, 224, 224)
        assert images.numpy().dtype == np.uint8
        np.testing.assert_allclose(targets.numpy().sum(axis=1), 1, atol=1e-5)
        assert (targets.numpy() > 0.02).sum() >= 4  # above the smoothing: the classes that were mixed
