"""Frozen programs and arrays: they compute what the model computes, and say what they are."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax import export, exports
from swin_jax.exports import arrays, onnx, stablehlo
from swin_jax.exports.card import load_lines, markdown
from swin_jax.exports.frozen import Frozen, difference, freeze
from swin_jax.models.registry import Preprocessing
from swin_jax.ops.augment import normalise
from swin_jax.origin import Origin, open_origin
from swin_jax.weights import read_weights, unflatten, write_weights
from tests.weights import micro

SIZE = (32, 32)  # maps of 8 x 8 and 4 x 4 tokens in windows of 4: partitioned and shifted, then whole
FIELDS: dict[str, Any] = {"window_size": 4, "depths": (2, 1)}
PICTURES = Preprocessing(SIZE, 36, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
NAMES = [f"class {index}" for index in range(micro.CLASSES)]


def small_params(**fields: Any) -> dict[str, np.ndarray]:
    return {path: 0.2 * value for path, value in micro.params(**(FIELDS | fields)).items()}


def origin_of(path: Path, run: dict[str, Any] | None = None, **model: Any) -> Origin:
    description = {
        "run": run or {},
        "model": {"name": "swin", **model},
        "preprocessing": vars(PICTURES),
        "class_names": NAMES,
    }
    write_weights(path, small_params(), description=description)
    return open_origin(str(path))


def program_of(directory: Path, frozen: Frozen) -> exports.Program:
    stablehlo.write(directory / stablehlo.FILE, frozen)
    return exports.load(directory)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def origin(place: Path) -> Origin:
    return origin_of(place / "weights.safetensors")


@pytest.fixture(scope="module")
def report(origin: Origin, place: Path) -> dict[str, Any]:
    return export.export(origin, place / "out", ("stablehlo", "npz", "safetensors"))


def test_one_program_for_three_platforms_and_any_batch(
    report: dict[str, Any], origin: Origin, place: Path
) -> None:
    program = exports.load(place / "out")
    assert program.exported.platforms == ("cpu", "cuda", "tpu")
    assert str(program.exported.out_avals[0].shape) == f"(batch, {micro.CLASSES})"
    custom = set(re.findall(r"custom_call @([\w.]+)", program.exported.mlir_module()))
    assert custom <= {"shape_assertion"}  # no kernel of one platform
    images = np.random.default_rng(0).standard_normal((64, *SIZE, 3)).astype(np.float32)
    logits = jax.jit(origin.module.apply)({"params": unflatten(origin.fitted.params)}, images)
    for batch in (1, 3, 64):
        assert difference([np.asarray(logits)[:batch]], [program(images[:batch])]) <= 1e-5
    (written,) = [file for file in report["files"] if file["format"] == "stablehlo"]
    assert max(check["difference"] for check in written["checks"]) <= 1e-5
    assert "differs from the model by" in export.table(report)


@pytest.mark.long
def test_loops_and_rematerialisation_export_too(tmp_path: Path) -> None:
    fields = {**FIELDS, "depths": (4,), "num_heads": (2,)}
    params = unflatten({path: jnp.asarray(value) for path, value in small_params(**fields).items()})
    module = micro.model(**fields, scan=True, remat="weight_dots")
    frozen = freeze(module, params, PICTURES, inside=False)
    program = program_of(tmp_path, frozen)
    assert "stablehlo.while" in program.exported.mlir_module()
    images = frozen.noise(3)
    logits = jax.jit(micro.model(**fields).apply)({"params": params}, images)
    assert difference([np.asarray(logits)], [program(images)]) <= 1e-5


def test_preprocessing_inside_is_that_outside(origin: Origin, tmp_path: Path) -> None:
    frozen = export.freeze_origin(origin, inside=True, size=None, dtype="float32", scan=False)
    program = program_of(tmp_path, frozen)
    images = frozen.noise(3)
    assert images.dtype == np.uint8
    prepared = normalise(jnp.asarray(images), PICTURES.mean, PICTURES.std)
    logits = jax.jit(origin.module.apply)({"params": unflatten(origin.fitted.params)}, prepared)
    np.testing.assert_allclose(program(images), jax.nn.softmax(jnp.asarray(logits)), rtol=0, atol=1e-6)


@pytest.mark.long
def test_a_backbone_gives_its_maps_at_any_size(tmp_path: Path) -> None:
    write_weights(
        tmp_path / "dense.safetensors", small_params(features_only=True, num_classes=0), description={"a": 1}
    )
    origin = open_origin(str(tmp_path / "dense.safetensors"))
    report = export.export(origin, tmp_path / "out", ("stablehlo",), size=(24, 40))
    assert [(output["name"], output["shape"]) for output in report["outputs"]] == [
        ("map0", ["batch", 6, 10, 16]),
        ("map1", ["batch", 3, 5, 32]),
    ]
    assert origin.module.window_policy == "dense"
    assert max(check["difference"] for check in report["files"][0]["checks"]) <= 1e-5


def test_arrays_are_the_parameters_bit_for_bit(report: dict[str, Any], origin: Origin, place: Path) -> None:
    with np.load(place / "out" / "params.npz") as archive:
        assert micro.same(dict(archive), dict(origin.fitted.params))
    found = read_weights(place / "out" / "params.safetensors")
    assert micro.same(dict(found.params), dict(origin.fitted.params))
    assert found.description["class_names"] == NAMES
    changed = {path: value + 1 for path, value in origin.fitted.params.items()}
    with pytest.raises(ValueError, match="does not read back as it was written"):
        arrays.check_bits(place / "params.npz", changed, origin.fitted.params)


def test_what_is_written_beside_says_what_goes_in(
    report: dict[str, Any], origin: Origin, place: Path
) -> None:
    described = json.loads((place / "out" / "export.json").read_text())
    assert described["input"] == {
        "name": "images",
        "shape": ["batch", *SIZE, 3],
        "dtype": "float32",
        "normalised": True,
    }
    assert described["outputs"] == [{"name": "logits", "shape": ["batch", micro.CLASSES], "dtype": "float32"}]
    assert described["preprocessing"]["mean"] == list(PICTURES.mean)
    assert described["from"] == {"file": "weights.safetensors", "format": "swin_jax"}
    assert set(described["versions"]) == {"code", "versions"}
    card = json.loads((place / "out" / "card.json").read_text())
    assert card["parameters"] == origin.parameters
    assert card["classes"] == {"count": micro.CLASSES, "names": NAMES}
    assert "run" not in card  # these weights had none
    text = (place / "out" / "README.md").read_text()
    assert text == markdown(card) + "\n"
    assert "Measured" not in text
    assert str(place) not in json.dumps(card) + json.dumps(described) + text


def test_a_window_policy_that_no_parameter_shows_is_kept(tmp_path: Path) -> None:
    origin = origin_of(tmp_path / "dense.safetensors", window_policy="dense")
    assert origin.module.window_policy == "dense"
    (line,) = [line for line in load_lines(origin.description["model"], "x") if "swin_jax.load" in line]
    assert 'window_policy="dense"' in line


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda path: export.check_formats(["stablehol"]),
            "--formats is 'stablehol'; give some of stablehlo",
        ),
        (lambda path: export.check_formats([]), "give some of stablehlo, onnx, npz, safetensors"),
        (lambda path: export.parse_size("224"), "--size is '224'; write HEIGHTxWIDTH"),
        (lambda path: export.parse_size("0x224"), "--size is '0x224'"),
        (lambda path: export.check_directory(str(path / "file")), "is a file; name a directory"),
        (lambda path: export.check_directory(str(path / "run")), "has a config.json"),
        (lambda path: exports.load(path / "none"), "none does not exist"),
        (lambda path: exports.load(path / "file"), "file is no program of jax.export, or is damaged"),
        (lambda path: open_origin(str(path / "none.pth")), "none.pth does not exist"),
        (
            lambda path: origin_of(path / "x.safetensors", run={"step": 1}),
            "'run' should have step, parameters",
        ),
    ],
)
def test_what_is_wrong_is_said(call: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no program")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=message):
        call(tmp_path)


def test_pictures_of_another_kind_are_refused(report: dict[str, Any], place: Path) -> None:
    program = exports.load(place / "out")
    with pytest.raises(ValueError, match=r"takes float32 \[batch, 32, 32, 3\], got uint8 \[2, 32, 32, 3\]"):
        program(np.zeros((2, *SIZE, 3), np.uint8))


def test_without_the_converter_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(ValueError, match=r"ONNX is written by jax2onnx.*pip install --no-deps jax2onnx"):
        onnx.converter()
