"""Compiled programs are kept for the next run, and a run goes on where they cannot be."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from swin_jax import cli


@pytest.fixture
def no_cache() -> Iterator[None]:
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def kept_in() -> str | None:
    return jax.config.values["jax_compilation_cache_dir"]


def test_by_default_in_the_users_cache(no_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cli.keep_compiled()
    directory = Path(kept_in() or "")
    assert directory.is_dir()
    assert directory.parent == tmp_path / "swin_jax"
    cli.keep_compiled()
    assert Path(kept_in() or "") == directory


def test_another_directory_stays(no_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    cli.keep_compiled()
    assert kept_in() == "elsewhere"
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_made_is_said_and_no_error(
    no_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cli.keep_compiled()
    assert kept_in() is None
    assert "compiled programs are not kept for the next run: " in capsys.readouterr().err
