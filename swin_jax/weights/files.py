"""Weight files as dictionaries of float32 arrays, read without executing anything that is in them.

safetensors files need no PyTorch. `.pth` and `.bin` files are pickles: they are read by PyTorch's weights-only
loader, which builds tensors and plain containers and refuses everything else.
"""

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from swin_jax.weights.layouts import listed

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
SUFFIXES = (".safetensors", *PICKLES)
DESCRIPTION = "swin_jax"
"""The entry of a safetensors header that holds the description of our own files, as JSON."""
CONTAINERS = ("model", "state_dict", "model_state_dict", "state_dict_ema", "model_ema", "module")
"""Keys under which training code keeps the weights, in the order in which they are looked for."""
EXACT = ("float32", "float16", "bfloat16")
ROUNDED = ("float64",)
# `torch.nn.Module.state_dict` of an optimizer has these and no weight.
OPTIMIZER = ("param_groups", "state")
# How the weights-only loader names what it would have had to call.
FOREIGN_CODE = re.compile(
    r"(?:Unsupported global: GLOBAL|Unsupported class|reduce for unrecognized function) (\S+)"
)
Arrays = dict[str, np.ndarray]


def read_arrays(path: str | Path) -> tuple[Arrays, dict[str, Any]]:
    """Name -> float32 array of a weight file, and the description if it is one of ours.

    float16 and bfloat16 are widened exactly, float64 is rounded; whole-number tensors are kept as they are, for
    whoever knows them as buffers.

    Raises:
      ValueError: the file is missing, truncated, no weight file, or asks to execute code; or PyTorch is needed
        and absent. One sentence that names the file.
    """
    path = Path(path)
    _check_is_file(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} does not end in one of {', '.join(SUFFIXES)}: it is no weight file we know")
    return _read_safetensors(path) if path.suffix == ".safetensors" else (_read_pickle(path), {})


def write_safetensors(path: str | Path, arrays: Mapping[str, np.ndarray], header: Mapping[str, str]) -> None:
    """Writes arrays and text entries as one safetensors file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path, dict(header))


def write_pickle(path: str | Path, arrays: Mapping[str, np.ndarray], container: str) -> None:
    """Writes arrays as PyTorch tensors, under the key `container` if there is one.

    Raises:
      ValueError: PyTorch is not installed.
    """
    torch = import_torch(path)
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save({container: tensors} if container else tensors, path)


def import_torch(path: str | Path) -> Any:
    """PyTorch. Raises ValueError with what to install where it is absent."""
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path} is a PyTorch file: install PyTorch to read or write it (pip install torch), or use a "
            ".safetensors file, which needs none"
        ) from error
    return torch


def _check_is_file(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.is_dir():
        raise ValueError(f"{path} is a directory, expected a weight file ({', '.join(SUFFIXES)})")
    try:
        with path.open("rb") as file:
            start = file.read(200)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if not start:
        raise ValueError(f"{path} is empty")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not the file it points to: run `git lfs pull`")
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path} is a web page, not weights: download the file itself")


def _read_safetensors(path: Path) -> tuple[Arrays, dict[str, Any]]:
    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
            names = list(file.keys())
            wrong = [
                name for name in names if file.get_slice(name).get_dtype().startswith(("F8", "F4", "F6"))
            ]
            if wrong:
                raise ValueError(f"{path} holds 8-bit floats, expected 16 or 32 bits: {listed(wrong)}")
            found = {name: _checked(file.get_tensor(name), name, path) for name in names}
    except (SafetensorError, OSError, TypeError) as error:
        reason = "; it is truncated or damaged: download it again"
        raise ValueError(f"{path} is no complete safetensors file ({_line(error)}){reason}") from error
    if DESCRIPTION not in header:
        return found, {}
    try:
        description = json.loads(header[DESCRIPTION])
        if not isinstance(description, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise ValueError(f"{path} has a damaged description ({error}): convert the run again") from error
    return found, description


def _read_pickle(path: Path) -> Arrays:
    torch = import_torch(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about forms that the loader then refuses, or reads all the same
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, str(error))) from error
    except Exception as error:  # what a damaged file raises inside the loader is not documented
        raise ValueError(
            f"{path} is no complete PyTorch file ({_line(error)}); it is truncated, damaged or of another kind"
        ) from error
    return {name: _numpy(value, name, path) for name, value in _state_dict(content, torch, path).items()}


def _refusal(path: Path, message: str) -> str:
    """The sentence for a pickle that the weights-only loader would not read."""
    code = FOREIGN_CODE.search(message)
    if code:
        return (
            f"{path} holds Python objects ({code[1]}) beside its tensors; reading them would execute code, so "
            "nothing was read. Ask its owner for the weights alone"
        )
    return f"{path} is no PyTorch file of tensors ({_line(message)}); nothing in it was executed"


def _state_dict(content: Any, torch: Any, path: Path) -> dict[str, Any]:
    """The flat dictionary of tensors, wherever the file keeps it."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors")
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    inside = next((key for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
    if inside is not None and len(tensors) < len(content):
        return _state_dict(content[inside], torch, path)
    if tensors:
        return {str(name): value for name, value in tensors.items()}
    if "optimizer" in content or set(OPTIMIZER) <= set(content):
        raise ValueError(f"{path} holds the state of an optimizer and no weights; name the model's file")
    keys = listed([str(key) for key in content]) or "nothing"
    raise ValueError(f"{path} holds no tensors; at its top are: {keys}")


def _numpy(tensor: Any, name: str, path: Path) -> np.ndarray:
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_sparse or tensor.is_quantized:
        raise ValueError(f"{path}: {name} is a sparse or quantised tensor, expected a plain one")
    plain = tensor.detach()
    return _checked((plain.float() if kind == "bfloat16" else plain).numpy(), name, path)


def _checked(array: np.ndarray, name: str, path: Path) -> np.ndarray:
    """The array in float32, whole numbers as they are."""
    kind = array.dtype.name
    if kind in (*EXACT, *ROUNDED):
        return array.astype(np.float32)
    if np.issubdtype(array.dtype, np.integer) or array.dtype == bool:
        return array
    raise ValueError(f"{path}: {name} is of type {kind}, expected {', '.join(EXACT)} or float64")


def _line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
