"""What computed a run: revisions are told apart by what the code is, and a change between lives is said."""

import json
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from swin_jax.training.provenance import changes, code_digest, code_revision, describe, provenance
from swin_jax.training.run_directory import claim, read_config

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
CONFIG = {"seed": 0, "ema": {"decay": 0.0}}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    package = tmp_path / "checkout" / "package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "model.py").write_text("depth = 2\n")
    return package


def git(directory: Path, *arguments: str) -> str:
    name = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
    return subprocess.run(
        ["git", *name, *arguments], cwd=directory, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_digest_is_of_names_and_contents(package: Path) -> None:
    first = code_digest(package)
    (package / "notes.txt").write_text("no code")
    assert code_digest(package) == first
    (package / "inner" / "model.py").write_text("depth = 3\n")
    changed = code_digest(package)
    (package / "inner" / "model.py").rename(package / "inner" / "models.py")
    assert len({first, changed, code_digest(package)}) == 3


@needs_git
def test_a_checkout_has_a_commit_and_says_whether_it_was_modified(package: Path) -> None:
    checkout = package.parent
    git(checkout, "init", "-q")
    (checkout / ".gitignore").write_text("*.pyc\n")
    assert "commit" not in code_revision(package)  # not tracked: it lies there by chance
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    clean = code_revision(package)
    assert clean == {
        "digest": code_digest(package),
        "commit": git(checkout, "rev-parse", "HEAD"),
        "modified": False,
    }
    (package / "a.pyc").write_text("")
    (checkout / "README").write_text("beside the package")
    assert code_revision(package) == clean
    (package / "new.py").write_text("imported, and in no commit\n")
    assert code_revision(package)["modified"] is True
    assert describe(code_revision(package)) == f"commit {clean['commit'][:12]}, modified"


def test_without_git_there_is_the_digest(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert code_revision(package) == {"digest": code_digest(package)}
    assert describe(code_revision(package)) == f"files {code_digest(package)}"


def test_ours_is_recorded() -> None:
    found = provenance()
    assert found["code"] == code_revision()
    assert {"python", "jax", "flax", "optax", "numpy"} <= set(found["versions"])


def test_changes_are_named_and_a_new_commit_of_the_same_code_is_none() -> None:
    one = {"code": {"digest": "aa", "commit": "1" * 40, "modified": False}, "versions": {"jax": "0.10.2"}}
    same = {"code": {"digest": "aa", "commit": "2" * 40, "modified": False}, "versions": {"jax": "0.10.2"}}
    other = {"code": {"digest": "bb", "commit": "1" * 40, "modified": True}, "versions": {"jax": "0.12.0"}}
    assert changes(one, same) == []
    assert changes(one, other) == [
        f"code: commit {'1' * 12} -> commit {'1' * 12}, modified",
        "jax: 0.10.2 -> 0.12.0",
    ]
    assert changes({}, other) == []  # a record without them, of an older version


def test_going_on_with_other_code_is_said_and_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lives: list[dict[str, Any]] = [
        {"code": {"digest": name}, "versions": {"jax": "0.10.2"}} for name in ("aa", "aa", "bb", "cc")
    ]
    for life, warnings in zip(lives, (0, 0, 1, 1), strict=True):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            claim(tmp_path, CONFIG, life)
        assert len(caplog.records) == warnings
    assert "code: files bb -> files cc" in caplog.text
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["code"] == {"digest": "cc"}
    assert [life["code"]["digest"] for life in document["before"]] == ["aa", "bb"]
    assert read_config(tmp_path) == CONFIG


def test_a_run_of_a_version_with_other_fields_is_not_resumed_but_says_whose_it_is(tmp_path: Path) -> None:
    old = {"seed": 0, "gone": 1}
    claim(tmp_path, old, {"code": {"digest": "aa"}})
    kept = (tmp_path / "config.json").read_bytes()
    sentence = (
        r"holds a run of another version of swin_jax \(files aa\), with other fields: "
        r"ema.decay: absent -> 0.0; gone: 1 -> absent \(there -> here\); evaluate and predict read it"
    )
    with pytest.raises(ValueError, match=sentence):
        claim(tmp_path, CONFIG, {"code": {"digest": "bb"}})
    assert (tmp_path / "config.json").read_bytes() == kept
    # New fields that may change between the lives of a run are no hindrance.
    assert claim(tmp_path, {**old, "profile_steps": ""}, {"code": {"digest": "aa"}}, free=("profile_steps",))
