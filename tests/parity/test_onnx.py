"""ONNX programs, run by onnxruntime, against the model: through the verb's own functions."""

from pathlib import Path

import numpy as np
import pytest

from swin_jax import export
from swin_jax.exports import onnx
from swin_jax.exports.frozen import difference
from tests.exports.test_export import SIZE, origin_of

# jax2onnx speaks of what others deprecated.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("inside", [False, True], ids=["logits", "probabilities"])
def test_onnx_computes_what_the_model_computes(inside: bool, tmp_path: Path) -> None:
    origin = origin_of(tmp_path / "weights.safetensors")
    report = export.export(origin, tmp_path / "out", ("onnx",), inside=inside)
    assert [check["batch"] for check in report["files"][0]["checks"]] == [1, 3]
    frozen = export.freeze_origin(origin, inside=inside, size=None, dtype="float32", scan=False)
    images = frozen.noise(64)
    assert images.shape == (64, *SIZE, 3)
    found = onnx.run(tmp_path / "out" / "model.onnx", images)
    assert found is not None
    assert difference(frozen.reference(images), found) <= 1e-4
    assert np.isfinite(found[0]).all()
