"""Weights of any origin in one of our models: where weight files, run directories and models meet.

import swin_jax
model, variables = swin_jax.load("swin_tiny_patch4_window7_224", "swin_tiny.pth", num_classes=10)
logits = model.apply(variables, images)                # normalised pictures [B, H, W, 3]
model, variables = swin_jax.features("swin_tiny_patch4_window7_224", "swin_tiny.pth")
c2, c3, c4, c5 = model.apply(variables, images)        # maps at strides 4, 8, 16, 32
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from swin_jax.models.registry import create_model
from swin_jax.models.segmenters import create_segmenter
from swin_jax.models.swin import SwinTransformer
from swin_jax.models.upernet import UperNet
from swin_jax.restore import describe_run, open_run
from swin_jax.weights import OURS, Fitted, Weights, fit, flatten, read_weights, unflatten
from swin_jax.weights.backbones import is_backbone, read_backbone
from swin_jax.weights.upernet import read_upernet, write_upernet

log = logging.getLogger(__name__)
BACKBONE = "backbone/"
"""Where a model of another task keeps its backbone."""
STATISTICS = "batch_stats"
"""Where the state of a model keeps the running statistics of its batch norms."""


def read(
    source: str, wanted: Mapping[str, tuple[int, ...]] | None = None, *, checkpoint: str = "best"
) -> Weights:
    """The parameters in a weight file of any known format, or of a run directory.

    Args:
      source: a file (`.safetensors`, `.pth`, `.bin`) or a run directory, local or URL.
      wanted: our path -> shape of the model it is for, if known.
      checkpoint: of a run directory: "best", "newest" or a step.

    Raises:
      ValueError: it cannot be read; one sentence.
    """
    directory = epath.Path(source)
    if not directory.is_dir():
        return read_weights(source, wanted)
    run = open_run(source, checkpoint=checkpoint)
    params, _ = run.load()
    flat = {path: np.asarray(value, np.float32) for path, value in flatten(jax.device_get(params)).items()}
    description = describe_run(run.directory, run.config, run.class_names, run.step, run.kind)
    return Weights(source, OURS, flat, {path: (path,) for path in flat}, description=description)


def beginning(
    source: str, params: Any, model_state: Any = None, *, head: str = "", class_names: Sequence[str] = ()
) -> Fitted:
    """What a run begins with: weights fitted to its parameters, position tables resampled where they differ.

    A model of another task that keeps a Swin under "backbone" gets it from a classifier, a backbone or a run of
    such a task; what stands beside it is fresh. So does one with a ResNet or ViT there, whose files bring their
    batch statistics.

    Args:
      source: as `read` takes it.
      params: the run's parameters, arrays or their shapes.
      model_state: the run's, likewise.
      head: which head to begin with, see `swin_jax.weights.fit`.
      class_names: of the run.

    Raises:
      ValueError: the weights cannot be read or are of another model.
    """
    shapes = shapes_of(params)
    inside = {path: shape for path, shape in shapes.items() if path.startswith(BACKBONE)}
    prefix = BACKBONE if inside else ""
    wanted = {path.removeprefix(prefix): shape for path, shape in (inside or shapes).items()}
    if prefix and is_backbone(wanted):
        return _other_backbone(source, shapes, shapes_of((model_state or {}).get(STATISTICS, {})))
    weights = _backbone_of(read(source, wanted)) if prefix else read(source, wanted)
    found = fit(weights, wanted, resample=True, head=head, class_names=class_names)
    return Fitted(
        {prefix + path: value for path, value in found.params.items()},
        tuple(path for path in shapes if path.removeprefix(prefix) not in found.params),
        (f"{len(found.params)} parameters from {source} ({weights.layout})", *found.notes),
    )


def _other_backbone(
    source: str, params: Mapping[str, tuple[int, ...]], statistics: Mapping[str, tuple[int, ...]]
) -> Fitted:
    """As `beginning`, for a backbone that is no Swin; `params` and `statistics` are shapes of the whole model."""
    inside = {
        path.removeprefix(BACKBONE): shape
        for path, shape in (*params.items(), *statistics.items())
        if path.startswith(BACKBONE)
    }
    if epath.Path(source).is_dir():
        raise ValueError(f"{source} is a run; a ResNet or ViT begins with a weight file (.pth, .safetensors)")
    found, notes = read_backbone(source, inside)
    whole = {BACKBONE + path: value for path, value in found.items()}
    return Fitted(
        {path: value for path, value in whole.items() if path in params},
        tuple(path for path in params if path not in whole),
        (f"{len(whole)} parameters and statistics from {source}", *notes),
        {path: value for path, value in whole.items() if path in statistics},
    )


def _backbone_of(weights: Weights) -> Weights:
    """What a run of another task keeps under "backbone", as if it stood alone; other weights as they are."""
    inside = [path for path in weights.params if path.startswith(BACKBONE)]
    if weights.layout != OURS or not inside:
        return weights
    parts = {"what stands beside the backbone": [path for path in weights.params if path not in inside]}
    params = {path.removeprefix(BACKBONE): weights.params[path] for path in inside}
    return dataclasses.replace(weights, params=params, names={path: (path,) for path in params}, parts=parts)


def put(fitted: Mapping[str, np.ndarray], tree: Any, shardings: Any) -> Any:
    """`tree` with the fitted values in their places, each array where `shardings` says."""
    places, values = flatten(shardings), flatten(tree)

    def placed(path: str) -> jax.Array:
        value = fitted[path].astype(values[path].dtype)
        return jax.make_array_from_callback(value.shape, places[path], lambda index: value[index])

    return unflatten({path: placed(path) if path in fitted else values[path] for path in values})


def load(
    name: str,
    path: str,
    *,
    num_classes: int | None = None,
    resample: bool = False,
    head: str = "",
    seed: int = 0,
    **overrides: Any,
) -> tuple[SwinTransformer, dict[str, Any]]:
    """A published model with weights from a file or a run directory.

    Args:
      name: a published name, or "swin" with the architecture in `overrides`.
      path: a weight file in any known format, or a run directory.
      num_classes: outputs of the head; by default the published number. Another number than the file's gives a
        fresh head.
      resample: interpolate bias tables and position embeddings made for another window or size.
      head: "" as above; "fresh" for a new head in any case; or the file of a class map (ImageNet-22K to 1K).
      seed: of what is fresh.
      **overrides: further fields of the model, such as `dtype` or `drop_path_rate`.

    Returns:
      The module and its variables: `model.apply(variables, images)` gives logits [B, num_classes] for normalised
      pictures [B, H, W, 3]; `swin_jax.preprocessing(name)` says how they are made.

    Raises:
      ValueError: the file cannot be read or is of another model: one sentence, listing every difference.
    """
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    model = create_model(name, **overrides)
    shapes = shapes_of(init_shapes(model))
    fitted = fit(read(path, shapes), shapes, resample=resample, head=head)
    for note in fitted.notes:
        log.info("%s: %s", path, note)
    values = {path: jnp.asarray(value, model.param_dtype) for path, value in fitted.params.items()}
    values |= _fresh(model, fitted.fresh, seed)
    return model, {"params": unflatten({path: values[path] for path in shapes})}


def load_segmenter(
    name: str, path: str, *, num_classes: int = 150, **overrides: Any
) -> tuple[UperNet, dict[str, Any]]:
    """A published UperNet on Swin with weights and batch statistics of OpenMMLab, the published code or transformers.

    Args:
      name: a published name, such as "upernet_swin_tiny".
      path: a `.pth`, `.bin` or `.safetensors` file.
      num_classes: of the file.
      **overrides: further fields of the model.

    Returns:
      The module and its variables: `model.apply(variables, images)[0]` gives logits [B, H/4, W/4, num_classes].

    Raises:
      ValueError: the file cannot be read or is of another model.
    """
    model = create_segmenter(name, num_classes, **overrides)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.float32))
    wanted = {collection: shapes_of(tree) for collection, tree in variables.items()}
    found = read_upernet(path, wanted)
    return model, {
        collection: unflatten({place: jnp.asarray(values[place]) for place in wanted[collection]})
        for collection, values in found.items()
    }


def save_segmenter(path: str, params: Any, model_state: Any, layout: str = "openmmlab") -> None:
    """Writes an UperNet on Swin for another code base, the inverse of `load_segmenter`.

    Args:
      path: a `.pth` or `.safetensors` file.
      params, model_state: as a run has them: `open_run("runs/ade20k").load()`.
      layout: "openmmlab", "official-dense" or "transformers".

    Raises:
      ValueError: there is no such layout, or it has no place for a parameter.
    """
    variables = {"params": params, **model_state}
    arrays = {
        collection: {place: np.asarray(value, np.float32) for place, value in flatten(tree).items()}
        for collection, tree in jax.device_get(variables).items()
    }
    write_upernet(path, arrays, layout)


def features(
    name: str,
    path: str,
    *,
    window_policy: str = "dense",
    resample: bool = False,
    **overrides: Any,
) -> tuple[SwinTransformer, dict[str, Any]]:
    """A published model as a feature extractor: `model.apply(variables, images)` gives its maps, finest first.

    `path` may be a classifier: its head and final norm are dropped, and each map goes through a norm that is
    still at its start (mean 0, variance 1), as detectors and segmenters begin. A dense backbone brings its
    norms.

    Args:
      name, path, resample, **overrides: as for `load`; `out_indices=(1, 3)` gives those stages alone.
      window_policy: "dense", as published for detection and segmentation, takes any picture size;
        "classification" gives the maps the classifier itself sees, with other windows where a map is small.

    Raises:
      ValueError: as `load`.
    """
    options = {"features_only": True, "window_policy": window_policy} | overrides
    return load(name, path, resample=resample, **options)


def init_shapes(model: SwinTransformer) -> Any:
    """The parameters of a model as shapes and types."""
    pictures = jnp.zeros((1, 8 * model.patch_size, 8 * model.patch_size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), pictures)["params"]


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Our path -> shape of a parameter tree."""
    return {path: tuple(leaf.shape) for path, leaf in flatten(params).items()}


def _fresh(model: SwinTransformer, paths: Sequence[str], seed: int) -> dict[str, jax.Array]:
    """First values of some parameters; the compiler drops the others."""
    if not paths:
        return {}

    def chosen(key: jax.Array) -> dict[str, jax.Array]:
        pictures = jnp.zeros((1, 8 * model.patch_size, 8 * model.patch_size, 3), jnp.float32)
        params = flatten(model.init(key, pictures)["params"])
        return {path: params[path] for path in paths}

    return jax.jit(chosen)(jax.random.key(seed))
