"""Pictures that cost what photographs cost: for measuring an input pipeline where no data set is at hand."""

from pathlib import Path

import cv2
import numpy as np

SIZE = (375, 500)
"""Height and width; the commonest of ImageNet."""
QUALITY = 90
CLASSES = 10
SLOPE = 1.2
"""Of the amplitude spectrum, 1 / frequency^SLOPE: the files get about 95 kB, near the mean of ImageNet at this size."""


def photograph(seed: int) -> np.ndarray:
    """uint8 [375,500,3]: noise with the falling spectrum and the related colour channels of photographs."""
    draw = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(SIZE[0])[:, None], np.fft.rfftfreq(SIZE[1])[None, :]
    amplitude = np.maximum(np.hypot(rows, columns), 1 / SIZE[1]) ** -SLOPE
    waves = draw.standard_normal((3, 2, *amplitude.shape))
    layers = np.fft.irfft2((waves[:, 0] + 1j * waves[:, 1]) * amplitude, SIZE)
    light, warmth, hue = layers / layers.std(axis=(1, 2), keepdims=True)
    channels = np.stack([light + 0.3 * warmth, light + 0.1 * hue, light - 0.3 * warmth], axis=-1)
    return np.clip(128 + 48 * channels, 0, 255).astype(np.uint8)


def write_photographs(root: Path, count: int) -> None:
    """`count` JPEGs of quality 90 as an image folder, `root/train/<class>/<number>.jpg`."""
    for number in range(count):
        folder = root / "train" / f"class{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        done, encoded = cv2.imencode(".jpg", photograph(number), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not done:
            raise ValueError("OpenCV cannot encode JPEG")
        (folder / f"{number}.jpg").write_bytes(encoded.tobytes())
