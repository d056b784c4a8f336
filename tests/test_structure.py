"""The house: who may import whom, that every module imports, that no file outgrows a sitting."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "swin_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
# What each room may import from the house, besides itself.
MAY_IMPORT = {
    "ops": (),
    "models": ("ops",),
    "tasks": ("models", "ops"),
    "training": ("tasks", "models", "ops"),
    "data": (),
    "weights": ("ops",),
    "setups": ("config", "data", "tasks", "models", "training"),
    "exports": ("training", "tasks", "models", "ops", "weights"),
    "measure": ("training", "tasks", "models", "ops", "weights"),
    "studies": ("config", "training", "measure", "exports", "tasks", "models"),
}
# Libraries that one place alone knows.
ONLY_IN = {
    "orbax": ("training/checkpoint.py",),
    "grain": ("data/",),
    "tensorflow_datasets": ("data/",),
    "array_record": ("data/",),
    "PIL": ("data/", "tasks/pictures", "measure/torch_peer.py"),
    "cv2": ("data/", "tasks/pictures"),
    "pycocotools": ("data/", "tasks/detection_scores.py"),
    "torch": ("weights/", "measure/torch_peer.py"),
    "safetensors": ("weights/files.py",),
    "matplotlib": ("tasks/pictures",),
    "ml_collections": ("cli.py", "config.py"),
    "absl": (
        "evaluate.py",
        "predict.py",
        "prepare.py",
        "summary.py",
        "ablate.py",
        "benchmark.py",
        "convert.py",
        "export.py",
        "cli.py",
        "data/reading.py",
    ),
}
# A room of its own: what runs where the data libraries are not installed.
WITHOUT_DATA_LIBRARIES = (
    "swin_jax.summary",
    "swin_jax.experiment",
    "swin_jax.benchmark",
    "swin_jax.tasks.classification",
    "swin_jax.tasks.segmentation",
    "swin_jax.tasks.two_stage_training",
    "swin_jax.models.registry",
)


def imports(source: str) -> set[str]:
    """Every module that a source names in an import, relative ones excluded by ruff."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def broken_rules(place: str, source: str) -> list[str]:
    """What the file at `place` (relative to the package) imports against the rules."""
    room = place.split("/")[0] if "/" in place else ""
    problems = []
    for module in imports(source):
        parts = module.split(".")
        if parts[0] == "swin_jax" and room and len(parts) > 1:
            allowed = (room, *MAY_IMPORT[room])
            if parts[1] not in allowed:
                problems.append(f"{place} imports {module}; {room} may import {', '.join(allowed)}")
        homes = ONLY_IN.get(parts[0])
        if homes and not any(place.startswith(home) for home in homes):
            problems.append(f"{place} imports {module}, which belongs in {', '.join(homes)}")
    return problems


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    assert broken_rules(str(path.relative_to(PACKAGE)), path.read_text()) == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("ops/boxes.py", "from swin_jax.models import swin"),
        ("models/swin.py", "import swin_jax.training.state"),
        ("tasks/segmentation.py", "def f():\n    from swin_jax.data.pipeline import plan"),
        ("data/pipeline.py", "from swin_jax.models.registry import create_model"),
        ("training/loop.py", "import orbax.checkpoint as ocp"),
        ("training/loop.py", "from swin_jax import experiment"),
        ("tasks/classification.py", "from absl import flags"),
        ("models/swin.py", "from PIL import Image"),
        ("training/state.py", "from ml_collections import ConfigDict"),
    ],
)
def test_the_rule_sees_a_breach(place: str, source: str) -> None:
    assert broken_rules(place, source)


def test_every_room_has_a_rule() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0] for path in FILES if len(path.relative_to(PACKAGE).parts) > 1}
    assert rooms <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_imports(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    assert importlib.import_module(name)


def test_models_and_summary_need_no_data_libraries() -> None:
    """In a fresh interpreter in which they cannot be imported."""
    blocked = "tensorflow_datasets", "grain", "array_record", "tensorflow", "torch"
    code = f"import sys\nfor name in {blocked}: sys.modules[name] = None\nimport {', '.join(WITHOUT_DATA_LIBRARIES)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_one_sitting_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
