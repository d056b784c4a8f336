"""What a model of a backbone and heads says of its parameters, and how one is made by name."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from swin_jax.models.checks import nearest
from swin_jax.models.layers import TypedModule
from swin_jax.models.registry import Published


class Composed(TypedModule):
    """A model whose parameters under "backbone" are those of its field `backbone`."""

    backbone: nn.Module

    @property
    def num_layers(self) -> int:
        """Number of values of `layer_of`."""
        return self.backbone.num_layers

    @nn.nowrap
    def layer_of(self, path: str) -> int:
        """The depth of a parameter, for layer-wise learning rates: the backbone's; the heads are the last."""
        part, _, rest = path.partition("/")
        return self.backbone.layer_of(rest) if part == "backbone" else self.num_layers - 1

    @nn.nowrap
    def frozen(self, path: str) -> bool:
        """Whether the backbone's `frozen_stages` hold the parameter."""
        part, _, rest = path.partition("/")
        return part == "backbone" and self.backbone.frozen(rest)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered model.

    Attributes:
      model: its class.
      backbone: its backbone's.
      fields: of the backbone.
      published: the figures of the published table.
      own: fields of the model beside the backbone.
    """

    model: Callable[..., Composed]
    backbone: Callable[..., nn.Module]
    fields: Mapping[str, Any]
    published: Published
    own: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def compose(kind: str, entries: Mapping[str, Entry], name: str, num_classes: int, overrides: Any) -> Any:
    """A registered model with other fields of itself or of its backbone; `dtype` and `param_dtype` hold for both.

    Args:
      kind: what such a model is called in messages.
      entries: the registered ones.
      name: of the wanted one.
      num_classes: of the wanted one.
      overrides: field -> value.

    Raises:
      ValueError: if there is no such name or field (both naming the nearest), or if a value makes no sense.
    """
    if name not in entries:
        raise ValueError(
            f"no {kind} is called {name!r}; did you mean {nearest(name, tuple(entries))!r}? "
            "(swin_jax.summary lists all)"
        )
    entry = entries[name]
    of_head, of_backbone = fields_of(entry.model) - {"backbone", "num_classes"}, fields_of(entry.backbone)
    for field in overrides:
        if field not in of_head | of_backbone:
            meant = nearest(field, sorted(of_head | of_backbone))
            raise ValueError(f"{kind} {name!r} has no field {field!r}; did you mean {meant!r}?")
    backbone = entry.backbone(**{**entry.fields, **{k: v for k, v in overrides.items() if k in of_backbone}})
    own = {**entry.own, **{k: v for k, v in overrides.items() if k in of_head}}
    return entry.model(backbone, num_classes, **own)


def fields_of(module: Any) -> set[str]:
    """The fields of a part that are a choice: what a composed model needs of its backbone is none, four maps, no
    logits."""
    fixed = {"parent", "name", "num_classes", "features_only", "out_indices"}
    return {field.name for field in dataclasses.fields(module)} - fixed
