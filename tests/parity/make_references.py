"""Writes tests/goldens/transformers.npz: what transformers' Swin computes with a narrow model.

    python -m tests.parity.make_references

Needs torch and transformers (requirements-parity.txt). The tests that read the file need neither: they draw
the same weights and pictures from `drawn`.
"""

import json
from pathlib import Path

import numpy as np

from tests.parity import drawn, torch_swin
from tests.parity.naming import flatten

FIELDS = {
    "embed_dim": 16,
    "depths": [2, 2, 2, 2],
    "num_heads": [1, 2, 4, 8],
    "window_size": 7,
}
CLASSES = 5
GRADIENT_SIZE_CLASSIFIER = (256, 320)
GRADIENT_SIZE_DENSE = (97, 131)
FILE = Path(__file__).parents[1] / "goldens" / "transformers.npz"


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for height, width in drawn.CLASSIFICATION_SIZES:
        model = torch_swin.classifier((height, width), num_labels=CLASSES, **FIELDS)
        images = drawn.pictures(height, width)
        arrays[f"logits/{height}x{width}"] = torch_swin.logits(model, images)
        if (height, width) == GRADIENT_SIZE_CLASSIFIER:
            gradients = torch_swin.classifier_gradients(model, images, drawn.labels(len(images), CLASSES))
            arrays |= {f"gradient/classifier/{path}": value for path, value in _sampled(gradients)}
    classifier_shapes = torch_swin.shapes(model)
    model = torch_swin.backbone(**FIELDS)
    for height, width in drawn.DENSE_SIZES:
        images = drawn.pictures(height, width, batch=1)
        for stage, value in enumerate(torch_swin.maps(model, images)):
            arrays[f"map/{height}x{width}/{stage}"] = drawn.grid(value)
    gradients = torch_swin.dense_gradients(model, drawn.pictures(*GRADIENT_SIZE_DENSE, batch=1))
    arrays |= {f"gradient/dense/{path}": value for path, value in _sampled(gradients)}
    meta = {
        "fields": FIELDS,
        "classes": CLASSES,
        "gradient_size": {"classifier": GRADIENT_SIZE_CLASSIFIER, "dense": GRADIENT_SIZE_DENSE},
        "shapes": {"classifier": classifier_shapes, "dense": torch_swin.shapes(model)},
    }
    np.savez_compressed(FILE, meta=np.array(json.dumps(meta)), **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size / 1e3:.0f} kB")


def _sampled(gradients: dict) -> list[tuple[str, np.ndarray]]:
    # The largest entry goes along: it is the scale that errors are measured in.
    return [
        (path, np.append(drawn.sample(value), np.abs(value).max()))
        for path, value in flatten(gradients).items()
    ]


if __name__ == "__main__":
    main()
