"""Weights for a model of another window, size or head."""

from pathlib import Path

import numpy as np
import pytest

from swin_jax.weights import fit, sort_state
from swin_jax.weights.heads import check_map_22k_to_1k, head_rows
from tests.weights import micro

TABLE = "stage0/block1/attn/relative_position_bias_table"


@pytest.fixture(scope="module")
def bicubic() -> dict[str, np.ndarray]:
    """What torch's bicubic interpolation (half-pixel, no antialias) makes of drawn tables."""
    with np.load(Path(__file__).parents[1] / "goldens" / "bicubic.npz") as file:
        return dict(file)


@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 7), (7, 8), (16, 12)])
def test_bias_tables_are_resampled_as_torch_does(bicubic: dict, old: int, new: int) -> None:
    params = micro.params(window_size=old)
    params[TABLE] = bicubic[f"table_{old}"]
    weights = micro.weights(window_size=old)
    weights.params.update(params)  # type: ignore[attr-defined]
    fitted = fit(weights, micro.shapes(window_size=new), resample=True)
    expected = bicubic[f"table_{old}_to_{new}"]
    assert np.abs(fitted.params[TABLE] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert f"4 bias tables resampled from window {old} to {new}" in fitted.notes
    for path, value in params.items():
        if not path.endswith("table"):
            assert np.array_equal(fitted.params[path], value)


def test_position_embeddings_are_resampled_as_torch_does(bicubic: dict) -> None:
    old = {"absolute_position_embedding": True, "absolute_position_size": (56, 56)}
    new = old | {"absolute_position_size": (96, 64)}
    weights = micro.weights(**old)
    weights.params["absolute_pos_embed"] = bicubic["position"]  # type: ignore[index]
    fitted = fit(weights, micro.shapes(**new), resample=True)
    expected = bicubic["position_to_24x16"]
    assert np.abs(fitted.params["absolute_pos_embed"] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert "position embedding resampled from (14, 14) to (24, 16)" in fitted.notes
    with pytest.raises(ValueError, match=r"absolute_pos_embed .*is \(14, 14, 16\), expected \(24, 16, 16\)"):
        fit(weights, micro.shapes(**new))


def test_a_position_embedding_that_is_no_square() -> None:
    fields = {"absolute_position_embedding": True, "absolute_position_size": (48, 32)}
    state = micro.state("official", **fields)
    with pytest.raises(ValueError, match="96 positions are no square grid"):
        sort_state(state, "file.pth")
    found = sort_state(state, "file.pth", micro.shapes(**fields))
    assert micro.same(dict(found.params), micro.params(**fields))


def test_heads() -> None:
    weights, shapes = micro.weights(), micro.shapes()
    assert fit(weights, shapes).fresh == ()
    head = ("head/kernel", "head/bias")
    assert fit(weights, shapes, head="fresh").fresh == head
    other = fit(weights, micro.shapes(num_classes=3))
    assert other.fresh == head
    assert "head fresh: 3 classes, the file has 5" in other.notes
    assert not set(head) & other.params.keys()
    none = fit(weights, micro.shapes(num_classes=0))
    assert none.fresh == ()
    assert "head dropped: the model has none" in none.notes


def test_a_classifier_begins_a_backbone() -> None:
    fields = {"features_only": True, "num_classes": 0}
    fitted = fit(micro.weights(), micro.shapes(**fields))
    assert set(fitted.fresh) == {f"norm{i}/{leaf}" for i in range(2) for leaf in ("scale", "bias")}
    assert fitted.params.keys() | set(fitted.fresh) == micro.shapes(**fields).keys()
    assert any("dropped, as a backbone has none: head/kernel" in note for note in fitted.notes)
    fewer = fit(micro.weights("official-dense", **fields), micro.shapes(out_indices=(1,), **fields))
    assert "dropped, as their maps are not asked for: norm0/bias, norm0/scale" in fewer.notes


def published_like_map() -> np.ndarray:
    """Rows with every known fact of the published map, the rest invented."""
    rows = np.array(
        [359, 368, 460, 475, 486, *range(500, 1345), 5564, *range(5565, 5711), 21200, 21369, 21817]
    )
    assert len(rows) == 1000
    rows[849] = 11137
    free = np.arange(851, 997)
    rows[free] = np.arange(5565, 5565 + len(free))
    missing = 6_373_512 - rows.sum()
    for index in free[::-1]:  # the last ones move up as far as they may
        room = (rows[index + 1] - 1) - rows[index]
        step = min(room, missing)
        rows[index] += step
        missing -= step
    low = np.arange(5, 849)
    for index in low[::-1]:
        room = (rows[index + 1] - 1) - rows[index]
        step = min(room, missing)
        rows[index] += step
        missing -= step
    assert missing == 0
    return rows


def test_the_map_of_22k_to_1k_is_known_by_its_facts(tmp_path: Path) -> None:
    rows = published_like_map()
    check_map_22k_to_1k(rows)
    path = tmp_path / "map22kto1k.txt"
    path.write_text("\n".join(map(str, rows)))
    names = [str(index) for index in range(1000)]
    assert np.array_equal(head_rows(path, 21841, names), rows)
    for change in (slice(0, 1), slice(400, 401), slice(999, 1000)):
        wrong = rows.copy()
        wrong[change] -= 1
        with pytest.raises(ValueError, match=r"not the published map .*sum 6373512"):
            check_map_22k_to_1k(wrong)
    with pytest.raises(ValueError, match="ascending but for position 850"):
        check_map_22k_to_1k(np.sort(rows))


def test_a_map_of_rows_picks_them(tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    path.write_text("4\n0\n2\n")
    fitted = fit(micro.weights(), micro.shapes(num_classes=3), head=str(path))
    assert np.array_equal(fitted.params["head/kernel"], micro.params()["head/kernel"][:, [4, 0, 2]])
    assert np.array_equal(fitted.params["head/bias"], micro.params()["head/bias"][[4, 0, 2]])
    assert fitted.fresh == ()


def test_wordnet_ids_pick_rows_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    ids = [f"n0000000{index}" for index in range(5)]
    path.write_text("\n".join(ids))
    assert head_rows(path, 5, [ids[3], ids[1]]).tolist() == [3, 1]
    with pytest.raises(ValueError, match="does not have 1 of the model's classes, such as 'cat'"):
        head_rows(path, 5, [ids[0], "cat"])
    with pytest.raises(ValueError, match="names 5 classes, the checkpoint has 6"):
        head_rows(path, 6, ids)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1\ntwo\n", "must hold a row number or a WordNet id"),
        ("", "must hold a row number or a WordNet id"),
        ("1\n2\n", "has 2 rows, the model 3 classes"),
        ("1\n2\n5\n", "names row 5, the checkpoint has 5"),
    ],
)
def test_maps_that_are_none(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "map.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        fit(micro.weights(), micro.shapes(num_classes=3), head=str(path))


def test_a_map_that_is_missing() -> None:
    with pytest.raises(ValueError, match=r"the class map /none.txt cannot be read"):
        fit(micro.weights(), micro.shapes(num_classes=3), head="/none.txt")
