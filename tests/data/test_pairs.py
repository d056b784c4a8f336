"""Pictures whose class no single window knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.ablations.bases import micro_classification
from swin_jax.data.sources import open_source
from swin_jax.data.sources.pairs import COLOURS, MARGIN, MOST_BY_PARTS, SIDE, TILE
from swin_jax.models.swin import SwinTransformer


def tiles(image: np.ndarray) -> np.ndarray:
    """Where the tiles are: pixels that are no grey."""
    return np.ptp(image.astype(int), axis=2) > 40


def test_a_record_is_the_same_every_time_and_its_tiles_meet_at_a_line():
    source = open_source("pairs", "train")
    assert len(source) == 4000
    for index in range(40):
        record = source[index]
        np.testing.assert_array_equal(record["image"], open_source("pairs", "train")[index]["image"])
        assert record["image"].shape == (SIDE, SIDE, 3)
        rows, columns = (np.flatnonzero(tiles(record["image"]).any(axis=axis)) for axis in (1, 0))
        sides = sorted([(len(rows), rows[0]), (len(columns), columns[0])])
        assert [side for side, _ in sides] == [TILE, 2 * TILE]
        assert sides[1][1] == SIDE // 2 - TILE  # half of the pair on each side of the line
        along = sides[0][1] % (SIDE // 2)  # and all of it within one quarter across
        assert MARGIN <= along <= SIDE // 2 - TILE - MARGIN


def test_classes_are_as_frequent_and_colours_say_nothing_of_them():
    labels = [open_source("pairs", "val")[index]["label"] for index in range(200)]
    assert sum(labels) == 100
    kinds = len(COLOURS)
    best = max(
        0.5 + 0.5 * m / kinds - 0.5 * m * (m - 1) / 2 / (kinds * (kinds - 1)) for m in range(kinds + 1)
    )
    assert best == pytest.approx(MOST_BY_PARTS)


@pytest.mark.parametrize(("shift", "reaches"), [("none", False), ("cyclic", True)])
def test_only_a_shift_lets_a_quarter_know_of_the_next(shift, reaches):
    fields = micro_classification().model
    names = ("embed_dim", "depths", "num_heads", "window_size")
    model = SwinTransformer(**{name: fields[name] for name in names}, shift=shift, features_only=True)
    images = jnp.zeros((1, SIDE, SIDE, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)

    @jax.jit
    def left_half(images):
        return model.apply(variables, images)[-1][:, :, :4]

    other_side = images.at[:, :, SIDE // 2 :].set(1.0)
    changed = bool(jnp.any(jnp.abs(left_half(other_side) - left_half(images)) > 1e-6))
    assert changed is reaches


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="pairs has no split 'test'; it has train, val"):
        open_source("pairs", "test")
