"""A small picture with what photographs have: smooth shades, edges, texture, noise, and values at both ends."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """uint8 [52, 64, 3]; not square, so that exchanged axes show."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:52, 0:64] / 52.0
    sky = np.stack([90 + 60 * y, 130 + 50 * y, 235 - 30 * y], axis=-1)
    hill = y > 0.55 + 0.12 * np.sin(5 * x)
    ground = np.stack([70 + 80 * x, 110 + 30 * np.sin(40 * x * y), 40 + 20 * y], axis=-1)
    picture = np.where(hill[..., None], ground, sky)
    sun = np.exp(-60 * ((x - 0.9) ** 2 + (y - 0.2) ** 2))[..., None]
    picture = picture + 200 * sun + generator.normal(0, 6, picture.shape)
    picture[30:46, 8:20] = (24, 16, 18)  # a dark door with a sharp edge
    picture[33:37, 12:16] = 255.0
    return np.clip(picture, 0, 255).astype(np.uint8)
