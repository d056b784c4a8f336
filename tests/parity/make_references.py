"""Writes tests/goldens/transformers.npz, what transformers' Swin computes with a narrow model, and bicubic.npz, what
torch's interpolation makes of position tables.

    python -m tests.parity.make_references

Needs torch and transformers (requirements-parity.txt). The tests that read the file need neither: they draw
the same weights and pictures from `drawn`.
"""

import json
from pathlib import Path

import numpy as np
import torch

from swin_jax.weights import flatten
from tests.parity import drawn, torch_swin

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
BICUBIC = FILE.with_name("bicubic.npz")
WINDOWS = ((7, 12), (12, 7), (7, 8), (16, 12))


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
    write_bicubic()


def write_bicubic() -> None:
    """Bias tables of one head and a position embedding, and what the published loaders resample them to."""
    arrays: dict[str, np.ndarray] = {}
    for old, new in WINDOWS:
        before, after = 2 * old - 1, 2 * new - 1
        table = drawn.pictures(before, before, batch=1)[0, :, :, :1]
        arrays[f"table_{old}"] = table.reshape(-1, 1)
        arrays[f"table_{old}_to_{new}"] = bicubic(table, (after, after)).reshape(-1, 1)
    channels = drawn.pictures(14, 14, batch=6).transpose(1, 2, 0, 3)
    arrays["position"] = channels.reshape(14, 14, -1)[:, :, :16]
    arrays["position_to_24x16"] = bicubic(arrays["position"], (24, 16))
    np.savez_compressed(BICUBIC, **arrays)
    print(f"{BICUBIC}: {len(arrays)} arrays, {BICUBIC.stat().st_size / 1e3:.0f} kB")


def bicubic(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`[rows, columns, channels]` by torch: half-pixel centres, no antialiasing."""
    value = torch.from_numpy(np.ascontiguousarray(grid.transpose(2, 0, 1)))[None]
    resized = torch.nn.functional.interpolate(value, size, mode="bicubic", align_corners=False)
    return resized[0].numpy().transpose(1, 2, 0)


def _sampled(gradients: dict) -> list[tuple[str, np.ndarray]]:
    # The largest entry goes along: it is the scale that errors are measured in.
    return [
        (path, np.append(drawn.sample(value), np.abs(value).max()))
        for path, value in flatten(gradients).items()
    ]


if __name__ == "__main__":
    main()
