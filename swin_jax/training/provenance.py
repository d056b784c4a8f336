"""What computed a run: the code's revision and the versions of the libraries. Kept in `config.json`."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "swin_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "grain",
    "tensorflow-datasets",
)
GIT_SECONDS = 10  # a file server that answers no sooner gets no commit into the record


def provenance() -> dict[str, Any]:
    """`{"code", "versions"}`, as `code_revision` and `library_versions` have them."""
    return {"code": code_revision(), "versions": library_versions()}


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that a result may depend on, as far as installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def code_revision(package: Path = PACKAGE) -> dict[str, Any]:
    """Which code runs.

    Returns:
        `digest` of the package's Python files: it alone says whether two runs had the same code. In a git
        checkout also `commit`, and `modified`, whether the package differs from it.
    """
    found: dict[str, Any] = {"digest": code_digest(package)}
    # A package that git does not track lies in a checkout by chance, e.g. in a virtual environment.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return found
    commit, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    return found if commit is None else found | {"commit": commit, "modified": changes != ""}


def code_digest(package: Path) -> str:
    """12 hexadecimal digits of the names and contents of all Python files below `package`."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(package.rglob("*.py")):
        for part in (path.relative_to(package).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def describe(code: Mapping[str, Any]) -> str:
    """A revision in a few words: "commit 5a61a4ae1b2c, modified" or "files 0f3a..."."""
    if "commit" not in code:
        return f"files {code.get('digest', 'unknown')}"
    return f"commit {code['commit'][:12]}" + (", modified" if code.get("modified") else "")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two of `provenance`, each as "name: there -> here"; an absent record differs not."""
    found = []
    old, new = before.get("code", {}), now.get("code", {})
    if old and old.get("digest") != new.get("digest"):
        found.append(f"code: {describe(old)} -> {describe(new)}")
    versions, current = before.get("versions", {}), now.get("versions", {})
    found += [
        f"{name}: {versions[name]} -> {current.get(name, 'absent')}"
        for name in versions
        if versions[name] != current.get(name)
    ]
    return found


def _git(directory: Path, *arguments: str) -> str | None:
    """What git prints, None where there is no git or it refuses."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=directory,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
