"""The origin of weights that are handed on: which model they are, how its pictures are made, what is known of them."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swin_jax import pretrained
from swin_jax.exports.card import load_lines, make_card
from swin_jax.exports.run_facts import RUN_FIELDS
from swin_jax.models.registry import FREE_FORM, Preprocessing, create_swin, model_names, preprocessing
from swin_jax.models.registry import matching as matching_names
from swin_jax.models.swin import SwinTransformer
from swin_jax.training.provenance import provenance
from swin_jax.weights import Fitted, Weights, fit
from swin_jax.weights.architecture import Architecture
from swin_jax.weights.composed import family_of

HANDING_ON = "writing files for other places"
"""What this is for, in messages."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Weights with the model they belong to.

    Attributes:
      weights: as read.
      architecture: read off them.
      name: published name of the model, or "swin".
      module: a model that takes exactly these parameters.
      fitted: them, for it.
      preprocessing: of its pictures.
      class_names: empty where the source names none.
    """

    weights: Weights
    architecture: Architecture
    name: str
    module: SwinTransformer
    fitted: Fitted
    preprocessing: Preprocessing
    class_names: tuple[str, ...]

    @property
    def parameters(self) -> int:
        return sum(value.size for value in self.fitted.params.values())

    @property
    def description(self) -> dict[str, Any]:
        """What our own files carry beside the parameters, JSON values."""
        policy: dict[str, Any] = {"window_policy": self.module.window_policy}
        if self.architecture.absolute_position_embedding:
            policy["absolute_position_size"] = self.module.absolute_position_size
        known = {"run": self.weights.description["run"]} if "run" in self.weights.description else {}
        return {
            "model": {"name": self.name, **vars(self.architecture), **policy},
            "preprocessing": vars(self.preprocessing),
            "class_names": list(self.class_names),
            "from": {"file": Path(self.weights.source).name, "format": self.weights.layout},
            **known,
            "versions": provenance(),
        }

    def card(
        self, weights_file: str, *, layout: str = "", files: tuple[str, ...] = (), load: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """The model card of files written from these weights.

        Args:
          weights_file: name of one that `swin_jax.load` reads; "" if there is none.
          layout: whose names the parameters have in it, if not ours.
          files: names of all, by default that one.
          load: lines of Python that load the others.
        """
        description = self.description
        lines = load_lines(description["model"], weights_file) if weights_file else []
        return make_card(
            description,
            parameters=self.parameters,
            load=[*lines, *load],
            files=files or (weights_file,),
            layout=layout,
        )


def open_origin(source: str, *, model: str = "", checkpoint: str = "best") -> Origin:
    """Opens a weight file of any known format or a run directory.

    Args:
      source: as `pretrained.read` takes it.
      model: a published name; "" recognises the model from what the weights are.
      checkpoint: of a run directory.

    Raises:
      ValueError: the weights cannot be read, are no whole Swin, or are not of that model.
    """
    return origin_of(pretrained.read(source, checkpoint=checkpoint, whole=True), model=model)


def origin_of(weights: Weights, *, model: str = "") -> Origin:
    """As `open_origin`, of weights that are read."""
    source, architecture = weights.source, weights.architecture
    if family := family_of(weights.params):
        raise ValueError(
            f"{source} is {family.name}, this is for classifiers and backbones; swin_jax.load_{family.noun} "
            "reads it, swin_jax.convert turns it into other formats"
        )
    described = weights.description.get("model", {}).get("name", FREE_FORM)
    if architecture is None and described in model_names():
        create_swin(described, HANDING_ON)  # refuses another model by its name
    if architecture is None:
        raise ValueError(f"{source} lacks the embedding, a bias table or a block: it is no whole Swin")
    check_run(weights)
    if (mixer := weights.description.get("model", {}).get("mixer", "window")) != "window":
        raise ValueError(f"{HANDING_ON} is for Swins with window attention, {source} has mixer {mixer!r}")
    name, module = _named_model(weights, architecture, model)
    fitted = fit(weights, pretrained.shapes_of(pretrained.init_shapes(module)))
    return Origin(
        weights,
        architecture,
        name,
        module,
        fitted,
        _preprocessing(weights, name, architecture),
        tuple(weights.description.get("class_names", ())),
    )


def check_run(weights: Weights) -> None:
    """Raises ValueError if what a file of ours says of its training is not what we write."""
    run = weights.description.get("run", {})
    if not isinstance(run, dict) or (run and not run.keys() >= set(RUN_FIELDS)):
        raise ValueError(
            f"{weights.source} has a damaged description: its 'run' should have {', '.join(RUN_FIELDS)}; convert the "
            "run again"
        )


def variant(described: Mapping[str, Any]) -> dict[str, Any]:
    """The fields by which a described model is a row of an ablation and no Swin that other code bases know, though its
    parameters may look like one."""
    plain = {"shift": "cyclic", "relative_position": True, "appearance": True}
    return {name: described[name] for name, value in plain.items() if described.get(name, value) != value}


def _named_model(weights: Weights, model: Architecture, wanted: str) -> tuple[str, SwinTransformer]:
    """The published name (or "swin") and a module with these parameters."""
    fields = {
        "embed_dim": model.embed_dim,
        "depths": model.depths,
        "num_heads": model.num_heads,
        "window_size": model.window_size,
        "patch_size": model.patch_size,
    }
    described = dict(weights.description.get("model", {}))
    names = matching_names(num_classes=model.num_classes, **fields) or matching_names(**fields)
    name = wanted or described.get("name", "") or (names[0] if names else FREE_FORM)
    # What no parameter shows: a run and our own files say it, published classifiers and backbones have theirs.
    policy = described.get("window_policy", "dense" if model.dense else "classification")
    if wanted:
        options = {"features_only": model.dense, "window_policy": policy}
        return name, create_swin(name, HANDING_ON, num_classes=model.num_classes, **options)
    more = {
        "mlp_ratio": model.mlp_ratio,
        "qkv_bias": model.qkv_bias,
        "patch_norm": model.patch_norm,
        "features_only": model.dense,
        "window_policy": policy,
        "absolute_position_embedding": model.absolute_position_embedding,
    }
    more |= variant(described)
    if model.dense:
        norms = {path.split("/")[0] for path in weights.params if re.match(r"norm\d+/", path)}
        more |= {"out_indices": tuple(sorted(int(norm.removeprefix("norm")) for norm in norms))}
    if model.absolute_position_embedding:
        rows, columns, _ = weights.params["absolute_pos_embed"].shape
        more |= {"absolute_position_size": (rows * model.patch_size, columns * model.patch_size)}
    return name, create_swin(FREE_FORM, HANDING_ON, num_classes=model.num_classes, **fields, **more)


def _preprocessing(weights: Weights, name: str, model: Architecture) -> Preprocessing:
    """What the source says its pictures are, else the published, else a size whose last map is one window."""
    told = weights.description.get("preprocessing")
    if told:
        fields: dict[str, Any] = {
            field: tuple(value) if isinstance(value, list) else value for field, value in told.items()
        }
        return Preprocessing(**fields)
    if name != FREE_FORM:
        return preprocessing(name)
    side = model.patch_size * 2 ** (len(model.depths) - 1) * model.window_size
    return Preprocessing((side, side), (side, side))
