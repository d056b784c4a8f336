"""`predict --attention`: a picture for each picture, of the blocks and the query that are asked for."""

import copy
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

from swin_jax.attention_pictures import Shown, attention_step, choose_attention, draw_attention
from swin_jax.config import Config
from swin_jax.restore import Run, open_run
from swin_jax.tasks.pictures import AttentionMaps, attention_sheet, png
from swin_jax.training.sharding import local_rows, put_batch
from tests.runs.conftest import run
from tests.runs.test_pretrained import begun_run

Micro = Callable[..., Config]
PANELS = (3 * 234 + 10, 267 + 10)  # width and height of a sheet with one block
BLOCKS = "stage0/block0, stage0/block1"


@pytest.fixture
def begun(micro: Micro, tmp_path: Path) -> Path:
    """A run directory with a checkpoint: 16 x 16 pixels, 4 x 4 tokens, windows of 2."""
    config = micro(evaluate_batch_size=16)
    begun_run(config, tmp_path / "run")
    return tmp_path / "run"


def test_the_command_draws_each_picture(begun: Path, folder: Path, tmp_path: Path) -> None:
    red = folder / "val" / "red"
    pictures = [str(red / "0.png"), str(folder / "val" / "green" / "0.png")]
    done = run("predict", f"--workdir={begun}", "--attention", "--json", *pictures)
    assert done.returncode == 0, done.stderr
    files = [Path(json.loads(line)["attention"]) for line in done.stdout.splitlines()]
    assert files == [begun / "pictures" / "attention" / f"000{index}_0.png" for index in (0, 1)]
    drawn = [np.asarray(Image.open(file)) for file in files]
    assert {picture.shape[1::-1] for picture in drawn} == {PANELS}
    assert (drawn[0] != drawn[1]).any()
    done = run("predict", f"--workdir={begun}", "--attention_blocks=stage0/block1", *pictures)
    assert done.returncode == 1
    assert "error: --attention_blocks belongs to --attention, which is missing" in done.stderr


def maps_of(opened: Run, shown: Shown) -> tuple[np.ndarray, dict[str, Any]]:
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    params, state = opened.load()
    maps = attention_step(opened, shown)(params, state, put_batch({"image": images}, opened.mesh))
    return images, jax.tree.map(local_rows, maps)


def test_blocks_and_query_are_those_asked_for(begun: Path) -> None:
    opened = open_run(str(begun))
    shown = choose_attention(opened, ["stage0/block0", "stage0/block1"], "0.99,0.3")
    assert shown.query == (15, 4)
    assert [(of.window, of.shift) for of in shown.blocks.values()] == [(2, 0), (2, 1)]
    images, maps = maps_of(opened, shown)
    plain, shifted = (maps[block] for block in shown.blocks)
    # The token (3, 1): of the lower left window, or of one that the shift made of the lower and the upper edge.
    assert [tuple(at) for at in np.argwhere(plain["window"][0])] == [(2, 0), (2, 1), (3, 0), (3, 1)]
    assert [tuple(at) for at in np.argwhere(shifted["window"][0])] == [(0, 1), (0, 2), (3, 1), (3, 2)]
    for of in (plain, shifted):
        np.testing.assert_allclose(of["attended"].sum(axis=(1, 2)), 1.0, atol=1e-6)
        np.testing.assert_allclose(of["received"].sum(axis=(1, 2)), 16.0, atol=1e-4)
    assert (shifted["attended"][:, 0] == 0).all()  # in its window, but no neighbours
    assert (shifted["attended"][:, 3, 1:3] > 0).all()
    assert draw_attention(shown, images[0], maps, 0).shape == (2 * 267 + 10, PANELS[0], 3)
    assert tuple(choose_attention(opened, [], "0,1").blocks) == ("stage0/block1",)  # the last of each stage


class Plain(nn.Module):
    @nn.compact
    def __call__(self, images: Any, train: bool = False) -> Any:
        return nn.Dense(3)(images.mean(axis=(1, 2)))


def test_what_is_wrong_is_said_before_anything_is_read(begun: Path) -> None:
    opened = open_run(str(begun))
    with pytest.raises(ValueError, match=f"no window attention in 'stage2/block5'; known: {BLOCKS}$"):
        choose_attention(opened, ["stage2/block5"], "0.5,0.5")
    for query in ("1.5,0.5", "-0.1,0", "nan,0", "0.5", "a,b", "0,0,0", ""):
        with pytest.raises(ValueError, match=f"--attention_query is '{query}'; give y,x from 0,0"):
            choose_attention(opened, [], query)
    task = copy.copy(opened.task)
    task.model = Plain()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="Plain has no window attention"):
        choose_attention(dataclasses.replace(opened, task=task), [], "0.5,0.5")


def test_the_sheet_puts_heat_on_the_token_s_own_pixels() -> None:
    """24 x 16 pixels of tokens of 8: the picture is enlarged, and the lower right token alone is bright."""
    attended = np.zeros((3, 2), np.float32)
    attended[2, 1] = 0.5
    window = np.zeros((3, 2), bool)
    window[1:, 1] = True
    maps = AttentionMaps("stage0/block0", attended, attended, window, np.zeros((3, 2), bool), 8)
    sheet = attention_sheet(np.full((24, 16, 3), 90, np.uint8), [maps])
    assert Image.open(io.BytesIO(png(sheet))).size == (3 * 159 + 10, 277)
    panels = [sheet[10:234, 10 + 159 * column :][:, :149].astype(int) for column in range(3)]
    outlined = (panels[0] == (79, 209, 255)).all(axis=-1)
    rows, columns = np.nonzero(outlined)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (75, 223, 74, 148)
    bright = panels[2].sum(axis=-1) > panels[2].sum(axis=-1).mean()
    rows, columns = np.nonzero(bright)
    assert bright.sum() == (224 - 149) * (149 - 74)
    assert (rows.min(), columns.min()) == (149, 74)
    with pytest.raises(ValueError, match="got no blocks"):
        attention_sheet(np.zeros((8, 8, 3), np.uint8), [])
