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
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from swin_jax.config import base_config
from swin_jax.models.detectors import create_detector
from swin_jax.models.mask_rcnn import MaskRCNN
from swin_jax.models.registry import Classifier, create_model, create_swin, picture_size
from swin_jax.models.segmenters import create_segmenter
from swin_jax.models.swin import SwinTransformer
from swin_jax.models.upernet import UperNet
from swin_jax.restore import describe_run, open_run
from swin_jax.setups.detection import settings_of
from swin_jax.tasks.two_stage_inference import View, find
from swin_jax.weights import OURS, Fitted, Weights, fit, flatten, read_weights, sort_state, unflatten
from swin_jax.weights.backbones import backbone_of_state, fit_backbone, is_backbone
from swin_jax.weights.composed import (
    check_fits,
    check_head,
    composed_of_arrays,
    family_of,
    fit_composed,
    known_family,
    write_composed,
)
from swin_jax.weights.exchange import own
from swin_jax.weights.files import read_arrays

log = logging.getLogger(__name__)
BACKBONE = "backbone/"
"""Where a model of another task keeps its backbone."""
STATISTICS = "batch_stats"
"""Where the state of a model keeps the running statistics of its batch norms."""


def read(
    source: str,
    wanted: Mapping[str, tuple[int, ...]] | None = None,
    *,
    checkpoint: str = "best",
    whole: bool = False,
) -> Weights:
    """The parameters in a weight file of any known format, or of a run directory with its statistics.

    Args:
      source: a file (`.safetensors`, `.pth`, `.bin`) or a run directory, local or URL.
      wanted: our path -> shape of the model it is for, if known; only for a ResNet or ViT a file of one is read.
      checkpoint: of a run directory: "best", "newest" or a step.
      whole: of a file with a segmenter or detector everything, not the backbone alone.

    Raises:
      ValueError: it cannot be read; one sentence.
    """
    if epath.Path(source).is_dir():
        return _read_run(source, checkpoint)
    if wanted is not None and is_backbone(wanted):
        return _read_baseline(source, wanted)
    if wanted is not None and any(path.startswith("block0/") for path in wanted):
        raise ValueError(f"{source} is a file, but an MLP-Mixer or ResMLP is read from a run directory alone")
    return _whole(*read_arrays(source), source, wanted) if whole else read_weights(source, wanted)


def _read_run(source: str, checkpoint: str) -> Weights:
    run = open_run(source, checkpoint=checkpoint)
    params, model_state = jax.device_get(run.load())
    flat, statistics = (
        {path: np.asarray(value, np.float32) for path, value in flatten(tree).items()}
        for tree in (params, model_state.get(STATISTICS, {}))
    )
    description = describe_run(run.directory, run.config, run.class_names, run.step, run.kind)
    names = {path: (path,) for path in (*flat, *statistics)}
    return Weights(source, OURS, flat, names, description=description, statistics=statistics)


def _read_baseline(source: str, wanted: Mapping[str, tuple[int, ...]]) -> Weights:
    """A ResNet or ViT as torchvision, timm or DeiT's authors publish it."""
    values = backbone_of_state(read_arrays(source)[0], source, wanted)
    statistics = {path: value for path, value in values.items() if path.endswith(("/mean", "/var"))}
    params = {path: value for path, value in values.items() if path not in statistics}
    names = {path: (path,) for path in values}
    return Weights(source, "of a ResNet or ViT", params, names, statistics=statistics)


def _whole(
    arrays: Mapping[str, np.ndarray],
    description: Mapping[str, Any],
    source: str,
    wanted: Mapping[str, tuple[int, ...]] | None,
) -> Weights:
    """What stands in a file: a segmenter, a detector, or the Swin as `read_weights` gives it."""
    if family_of(arrays):
        return composed_of_arrays(arrays, description, source)
    return own(arrays, source, description) if description else sort_state(arrays, source, wanted)


def beginning(
    source: str, params: Any, model_state: Any = None, *, head: str = "", class_names: Sequence[str] = ()
) -> Fitted:
    """What a run begins with: weights fitted to its parameters, position tables resampled where they differ.

    A model of another task, which keeps its backbone under "backbone", gets everything from a model of its own
    family, and its backbone from whatever else: what stands beside it is fresh then. Statistics of batch norms come
    along.

    Args:
      source: as `read` takes it.
      params: the run's parameters, arrays or their shapes.
      model_state: the run's, likewise.
      head: which head to begin with, see `swin_jax.weights.fit` and `swin_jax.weights.composed.fit_composed`.
      class_names: of the run.

    Raises:
      ValueError: the weights cannot be read or are of another model.
    """
    shapes = shapes_of(params)
    statistics = shapes_of((model_state or {}).get(STATISTICS, {}))
    if any(path.startswith(BACKBONE) for path in shapes):
        return _beginning_with_backbone(source, shapes, statistics, head)
    weights = read(source, shapes)
    found = fit(weights, shapes, resample=True, head=head, class_names=class_names)
    check_fits(source, weights.statistics, statistics)
    return dataclasses.replace(
        found,
        fresh=tuple(path for path in shapes if path not in found.params),
        statistics=weights.statistics,
        notes=(f"{len(found.params)} parameters from {source} ({weights.layout})", *found.notes),
    )


def _beginning_with_backbone(
    source: str, params: Mapping[str, tuple[int, ...]], statistics: Mapping[str, tuple[int, ...]], head: str
) -> Fitted:
    """As `beginning`, with the shapes of the whole model."""
    check_head(head)
    wanted = {
        path.removeprefix(BACKBONE): shape
        for path, shape in (*params.items(), *statistics.items())
        if path.startswith(BACKBONE)
    }
    if epath.Path(source).is_dir():
        weights = read(source)
    else:
        arrays, description = read_arrays(source)
        if is_backbone(wanted) and not family_of(arrays):
            found, notes = fit_backbone(arrays, source, wanted)
            return _under_backbone(found, params, statistics, (f"values from {source}", *notes))
        weights = _whole(arrays, description, source, wanted)
    if family_of(weights.params) == family_of(params) is not None:
        found = fit_composed(weights, params, statistics, head=head)
        count = f"{len(found.params)} parameters and {len(found.statistics)} statistics"
        notes = (
            f"a whole {known_family(params).noun}, {count} from {source} ({weights.layout})",
            *found.notes,
        )
        return dataclasses.replace(found, notes=notes)
    if is_backbone(wanted):
        raise ValueError(
            f"{source} is no run of such a model; a ResNet or ViT begins with one, or with a weight file"
        )
    found = fit(_backbone_of(weights), wanted, resample=True)
    return _under_backbone(
        found.params, params, statistics, (f"values from {source} ({weights.layout})", *found.notes)
    )


def _under_backbone(
    found: Mapping[str, np.ndarray],
    params: Mapping[str, tuple[int, ...]],
    statistics: Mapping[str, tuple[int, ...]],
    notes: Sequence[str],
) -> Fitted:
    """Values of a backbone in the model that has it; `params` and `statistics` are shapes of the whole model."""
    whole = {BACKBONE + path: value for path, value in found.items()}
    return Fitted(
        {path: value for path, value in whole.items() if path in params},
        tuple(path for path in params if path not in whole),
        (f"the backbone, {len(whole)} {notes[0]}", *notes[1:]),
        {path: value for path, value in whole.items() if path in statistics},
    )


def _backbone_of(weights: Weights) -> Weights:
    """What another kind of model keeps under "backbone", as if it stood alone; other weights as they are."""
    inside = [path for path in weights.params if path.startswith(BACKBONE)]
    if not inside:
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
) -> tuple[Classifier, dict[str, Any]]:
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
    variables = _init_shapes(model)
    shapes, statistics = (shapes_of(variables.get(trees, {})) for trees in ("params", STATISTICS))
    weights = read(path, shapes)
    fitted = fit(weights, shapes, resample=resample, head=head)
    check_fits(path, weights.statistics, statistics)
    for note in fitted.notes:
        log.info("%s: %s", path, note)
    values = {path: jnp.asarray(value, model.param_dtype) for path, value in fitted.params.items()}
    values |= _fresh(model, fitted.fresh, seed)
    found = {"params": unflatten({path: values[path] for path in shapes})}
    if statistics:
        moved = {path: jnp.asarray(weights.statistics[path]) for path in statistics}
        found[STATISTICS] = unflatten(moved)
    return model, found


def load_segmenter(
    name: str, path: str, *, num_classes: int = 150, **overrides: Any
) -> tuple[UperNet, dict[str, Any]]:
    """A published UperNet with weights and batch statistics: ours, OpenMMLab's, the published code's or transformers'.

    Args:
      name: a published name, such as "upernet_swin_tiny".
      path: a `.pth`, `.bin` or `.safetensors` file, or the directory of a segmentation run.
      num_classes: of these weights.
      **overrides: further fields of the model.

    Returns:
      The module and its variables: `model.apply(variables, images)[0]` gives logits [B, H/4, W/4, num_classes].

    Raises:
      ValueError: the weights cannot be read or are of another model.
    """
    model = create_segmenter(name, num_classes, **overrides)
    return model, _whole_variables(model, path)


def load_detector(
    name: str, path: str, *, num_classes: int = 80, **overrides: Any
) -> tuple[MaskRCNN, dict[str, Any]]:
    """A published detector with weights and batch statistics: ours, OpenMMLab's or the published code's.

    Args:
      name: a published name, such as "mask_rcnn_swin_tiny".
      path: a `.pth`, `.bin` or `.safetensors` file, or the directory of a detection run.
      num_classes: of these weights.
      **overrides: further fields of the model.

    Returns:
      The module and its variables, as `detect` takes them.

    Raises:
      ValueError: the weights cannot be read or are of another model.
    """
    model = create_detector(name, num_classes, **overrides)
    return model, _whole_variables(model, path)


def detect(
    model: MaskRCNN,
    variables: Mapping[str, Any],
    images: jax.Array | np.ndarray,
    sizes: jax.Array | np.ndarray,
    **settings: Any,
) -> dict[str, jax.Array]:
    """What a detector finds. Under `jax.jit` with `model` and `settings` fixed it is one program for each canvas.

    Args:
      model, variables: of `load_detector`.
      images: normalised pictures `[B, H, W, 3]`, each in the upper left corner of a canvas of zeros.
      sizes: their (height, width), int `[B, 2]`.
      **settings: fields of `config.detection` in which the weights' recipe differs from the published one.

    Returns:
      As `two_stage_inference.find`, boxes in pixels of `images`.

    Raises:
      ValueError: there is no such setting.
    """
    fields = base_config().detection
    unknown = [name for name in settings if name not in fields]
    if unknown:
        raise ValueError(f"there is no setting {unknown[0]!r}; settings are {', '.join(fields)}")
    fields.update(settings)
    sizes = jnp.asarray(sizes, jnp.int32)
    view = View(jnp.asarray(images), sizes, mirrored=False)
    return dict(find(model, variables, [view], sizes, jnp.ones(len(sizes), bool), settings_of(fields, model)))


def _whole_variables(model: Any, path: str) -> dict[str, Any]:
    """All that a file or run has for a segmenter or detector. Raises ValueError where it is another's."""
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3), jnp.float32))
    wanted = {collection: shapes_of(tree) for collection, tree in variables.items()}
    weights = read(path, whole=True)
    values = {**weights.params, **weights.statistics}
    check_fits(path, values, {place: shape for shapes in wanted.values() for place, shape in shapes.items()})
    return {
        collection: unflatten({place: jnp.asarray(values[place]) for place in shapes})
        for collection, shapes in wanted.items()
    }


def save_composed(path: str, params: Any, model_state: Any, layout: str = "openmmlab") -> None:
    """Writes a segmenter or detector, for another code base where its backbone is a Swin; the inverse of
    `load_segmenter` and `load_detector`.

    Args:
      path: a `.pth` or `.safetensors` file.
      params, model_state: as a run has them: `open_run("runs/ade20k").load()`.
      layout: "openmmlab", "official-dense", for UperNet "transformers", or "swin_jax" for ours.

    Raises:
      ValueError: there is no such layout, or it has no place for a parameter.
    """
    trees = jax.device_get((params, model_state.get(STATISTICS, {})))
    values = {
        place: np.asarray(value, np.float32) for tree in trees for place, value in flatten(tree).items()
    }
    write_composed(path, values, layout)


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
    create_swin(name, "swin_jax.features")
    model, variables = load(name, path, resample=resample, **options)
    return cast(SwinTransformer, model), variables


def init_shapes(model: Classifier) -> Any:
    """The parameters of a model as shapes and types."""
    return _init_shapes(model)["params"]


def _init_shapes(model: Classifier) -> Any:
    pictures = jnp.zeros((1, *picture_size(model), 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), pictures)


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Our path -> shape of a parameter tree."""
    return {path: tuple(leaf.shape) for path, leaf in flatten(params).items()}


def _fresh(model: Classifier, paths: Sequence[str], seed: int) -> dict[str, jax.Array]:
    """First values of some parameters; the compiler drops the others."""
    if not paths:
        return {}

    def chosen(key: jax.Array) -> dict[str, jax.Array]:
        pictures = jnp.zeros((1, *picture_size(model), 3), jnp.float32)
        params = flatten(model.init(key, pictures)["params"])
        return {path: params[path] for path in paths}

    return jax.jit(chosen)(jax.random.key(seed))
