"""The pieces of a two-stage detector (Ren et al., 2015; He et al., 2017), as pure functions of static shape.

A batch's pictures lie in the upper left corner of one canvas. What lies beyond a picture padded to a multiple of 32
takes no part in anything, and neither do rows of padding: the numbers of a picture do not depend on its canvas, on the
batch around it or on the devices. But for three parts: in training the batch norms of box heads take the statistics of
the batch's RoIs; a semantic branch aligns the corners of its maps, and so of the canvas; and HTC++'s block attends to
all of the canvas. Boxes, overlaps, losses and scores are f32 throughout. The stages behind the proposals are in
`roi_heads`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int32

from swin_jax.models.cascade import HybridTaskCascade
from swin_jax.models.mask_rcnn import STRIDES, MaskRCNN
from swin_jax.ops import anchors as anchor_ops
from swin_jax.ops.selection import Proposals, propose
from swin_jax.tasks.two_stage_settings import Proposing, TwoStage

Pyramid = tuple[Float[Array, "batch _ _ _"], ...]


class Maps(NamedTuple):
    """What a detector sees of pictures; the semantic branch's logits and features are None without one."""

    pyramid: Pyramid
    semantic_logits: Float[Array, "batch _ _ _"] | None = None
    semantic: Float[Array, "batch _ _ _"] | None = None


class Anchors(NamedTuple):
    """The anchors of a canvas, per level."""

    boxes: tuple[Float[Array, "_ 4"], ...]
    takes_part: tuple[Bool[Array, "batch _"], ...]
    names: tuple[Array, ...]


class BoundModel:
    """A detector with its variables: what the functions of a detector call.

    Args:
      model: with its `variables`.
      key: for training, in which batch norms take the batch's statistics; `state` moves on with every call.
    """

    def __init__(self, model: MaskRCNN, variables: Mapping[str, Any], key: Array | None = None) -> None:
        self.model = model
        self.variables = dict(variables)
        self.key = key

    @property
    def trains(self) -> bool:
        return self.key is not None

    @property
    def state(self) -> dict[str, Any]:
        """The variables that are no parameters."""
        return {name: value for name, value in self.variables.items() if name != "params"}

    def features(self, images: Float[Array, "batch height width 3"]) -> Pyramid:
        """As the model's."""
        return self._call("features", images, self.trains)

    def semantics(self, pyramid: Pyramid) -> tuple[Array, Array]:
        """As the model's."""
        return self._call("semantics", pyramid)

    def propose(self, pyramid: Pyramid) -> tuple[Pyramid, Pyramid]:
        """As the model's."""
        return self._call("propose", pyramid)

    def classify(self, features: Array, stage: int, valid: Bool[Array, " n"] | None) -> tuple[Array, Array]:
        """As the model's."""
        return self._call("classify", features, stage, self.trains, valid)

    def segment(self, features: Array, stages: tuple[int, ...]) -> tuple[Array, ...]:
        """As the model's."""
        return self._call("segment", features, stages)

    def _call(self, method: str, *arguments: Any) -> Any:
        if self.key is None:
            return self.model.apply(self.variables, *arguments, method=method)
        found, moved = self.model.apply(
            self.variables,
            *arguments,
            method=method,
            rngs={"dropout": self.key},
            mutable=list(self.state),
        )
        self.variables |= moved
        return found


def see(bound: BoundModel, images: Float[Array, "batch height width 3"]) -> Maps:
    """The maps of normalised pictures."""
    pyramid = bound.features(images)
    if isinstance(bound.model, HybridTaskCascade):
        return Maps(pyramid, *bound.semantics(pyramid))
    return Maps(pyramid)


def on_canvas(pyramid: Pyramid, sizes: Int32[Array, "batch 2"], valid: Array, settings: TwoStage) -> Anchors:
    """The anchors of a pyramid and which of them lie in each picture."""
    shapes = tuple((level.shape[1], level.shape[2]) for level in pyramid)
    strides = STRIDES[: len(pyramid)]
    count = settings.anchors_per_cell
    boxes = anchor_ops.pyramid_anchors(
        shapes, strides, scales=settings.anchor_scales, ratios=settings.anchor_ratios
    )
    inside = jax.vmap(lambda size: anchor_ops.valid_cells(shapes, strides, size, per_cell=count))(sizes)
    takes_part = tuple(level & valid[:, None] for level in inside)
    # Made once: where some are gathered or sorted, the TPU compiler would make each anew, and plans that for minutes.
    boxes, takes_part = jax.lax.optimization_barrier((boxes, takes_part))
    return Anchors(boxes, takes_part, anchor_ops.pyramid_names(shapes, per_cell=count))


def find_proposals(
    objectness: Pyramid, deltas: Pyramid, anchors: Anchors, sizes: Array, settings: Proposing
) -> Proposals:
    """The proposals of every picture."""

    def of_picture(objectness: Any, deltas: Any, takes_part: Any, size: Array) -> Proposals:
        return propose(
            objectness,
            deltas,
            anchors.boxes,
            takes_part,
            size,
            per_level=settings.per_level,
            most=settings.most,
            threshold=settings.threshold,
        )

    return jax.vmap(of_picture)(*per_anchor(objectness, deltas), list(anchors.takes_part), sizes)


def per_anchor(
    objectness: Pyramid, deltas: Pyramid
) -> tuple[list[Float[Array, "batch _"]], list[Float[Array, "batch _ 4"]]]:
    """The proposal network's maps as lists of anchors, level by level."""

    def flattened(level: Array) -> Array:
        # In two steps: of one, from a map of three channels to a line, the TPU compiler thinks for half a minute.
        batch, rows, *_ = level.shape
        return jax.lax.optimization_barrier(level.reshape(batch, rows, -1)).reshape(batch, -1)

    return [flattened(level) for level in objectness], [x.reshape(x.shape[0], -1, 4) for x in deltas]


def test_proposals(
    bound: BoundModel,
    pyramid: Pyramid,
    sizes: Int32[Array, "batch 2"],
    valid: Bool[Array, " batch"],
    settings: TwoStage,
) -> Proposals:
    """The proposals of test pictures."""
    objectness, deltas = bound.propose(pyramid)
    anchors = on_canvas(pyramid, sizes, valid, settings)
    return find_proposals(objectness, deltas, anchors, sizes, settings.test_proposals)
