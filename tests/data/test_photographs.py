"""Pictures for measuring cost what photographs of their size cost, and are read as an image folder."""

import numpy as np

from swin_jax.data import photographs
from swin_jax.data.decode import decode_picture
from swin_jax.data.sources import open_source


def test_they_have_the_size_of_photographs_and_form_an_image_folder(tmp_path):
    photographs.write_photographs(tmp_path, 3)
    source = open_source("folder", "train", root=str(tmp_path))
    assert len(source) == len(source.class_names) == 3
    for index in range(3):
        record = source[index]
        assert 70_000 < len(record["image"]) < 130_000
        assert decode_picture(record["image"], record["name"]).shape == (375, 500, 3)


def test_neighbouring_pixels_and_channels_are_alike_as_in_photographs():
    picture = photographs.photograph(0).astype(np.float64)
    assert np.corrcoef(picture[:, :-1, 1].ravel(), picture[:, 1:, 1].ravel())[0, 1] > 0.9
    assert np.corrcoef(picture[..., 0].ravel(), picture[..., 2].ravel())[0, 1] > 0.6
    assert not np.array_equal(photographs.photograph(0), photographs.photograph(1))
