"""What OpenMMLab's detectors compute, to compare with.

`tests/goldens/openmmlab_{mask_rcnn,cascade,htc}.npz`: mmdet 3.3.0 with drawn weights on a narrow Swin (channels 32, 5
classes) on two pictures, the second of which does not fill the canvas: proposals, detections, and in training, with
samplers that take everything, losses and gradient norms. Of the backbone, which has its own references, they hold the
maps, with 16 significant bits.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.mask_rcnn import MaskRCNN
from swin_jax.ops.pasting import paste
from swin_jax.tasks.two_stage_inference import View, find
from swin_jax.tasks.two_stage_settings import Proposing, Sampling, TwoStage
from swin_jax.tasks.two_stage_training import training_terms
from swin_jax.training.state import ratio
from swin_jax.weights import unflatten
from swin_jax.weights.composed import composed_of_state
from swin_jax.weights.exchange import Weights

GOLDENS = Path(__file__).parents[1] / "goldens"
SIZES = np.array([[192, 256], [176, 240]], np.int32)
ORIGINAL = np.array([[150, 200], [176, 240]], np.int32)
CLASSES, OBJECTS = 5, 6
IMAGES = jnp.zeros((2, 192, 256, 3))
PROPOSALS = Proposing(200, 100)
ANCHORS = sum(3 * rows * columns for rows, columns in ((48, 64), (24, 32), (12, 16), (6, 8), (3, 4)))
# Everything is sampled: no randomness is left.
EVERYTHING = {
    "train_proposals": PROPOSALS,
    "anchor_sampling": Sampling(ANCHORS, ANCHORS),
    "roi_sampling": Sampling(100 + OBJECTS, 100 + OBJECTS),
}
NARROW = {"channels": 32, "fc_channels": 64, "mask_channels": 32}


class StoredMaps(nn.Module):
    """Stands for the backbone."""

    maps: tuple[np.ndarray, ...]

    def __call__(self, images: Any, train: bool) -> tuple[jax.Array, ...]:
        return tuple(map(jnp.asarray, self.maps))

    def __hash__(self) -> int:  # arrays have none
        return id(self)


class Golden:
    """One of the files, and our model with its weights."""

    def __init__(self, name: str, model: type[MaskRCNN], **fields: Any) -> None:
        self._name, self._model, self._fields = name, model, fields

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(GOLDENS / f"openmmlab_{self._name}.npz") as file:
            return dict(file)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @cached_property
    def model(self) -> MaskRCNN:
        maps = StoredMaps(tuple(self[f"maps/{index}"] for index in range(4)))
        return self._model(maps, CLASSES, **NARROW, **self._fields)

    @cached_property
    def weights(self) -> Weights:
        state = {
            name.removeprefix("state/"): np.asarray(value, np.float32)
            for name, value in self.arrays.items()
            if name.startswith("state/")
        }
        return composed_of_state(state, "the reference")

    @cached_property
    def variables(self) -> dict[str, Any]:
        groups = {"params": self.weights.params, "batch_stats": self.weights.statistics}
        return {
            name: unflatten({path: jnp.asarray(value) for path, value in group.items()})
            for name, group in groups.items()
            if group
        }

    def find(self, settings: TwoStage) -> dict[str, np.ndarray]:
        view = View(IMAGES, jnp.asarray(SIZES), mirrored=False)

        @jax.jit
        def run(variables: Any) -> Any:
            return find(self.model, variables, [view], jnp.asarray(ORIGINAL), jnp.ones(2, bool), settings)

        return jax.device_get(run(self.variables))

    def check_detections(self, found: dict[str, np.ndarray], key: str, picture: int) -> None:
        """One to one and in their order."""
        theirs = {name: self[f"test/{key}/img{picture}/{name}"] for name in ("boxes", "scores", "labels")}
        count = len(theirs["scores"])
        assert found["box_valid"][picture].sum() == count
        np.testing.assert_array_equal(found["labels"][picture][:count], theirs["labels"])
        np.testing.assert_allclose(found["boxes"][picture][:count], theirs["boxes"], atol=5e-3)
        np.testing.assert_allclose(found["scores"][picture][:count], theirs["scores"], atol=5e-5)

    def check_mask_areas(self, found: dict[str, np.ndarray], key: str, picture: int) -> None:
        """Within the 8 bits that probabilities are kept with: a pixel at the threshold may go either way."""
        height, width = ORIGINAL[picture].tolist()
        areas = [
            paste(mask.astype(np.float32) / 255, box, height, width).sum()
            for mask, box in zip(found["masks"][picture], found["boxes"][picture], strict=True)
        ]
        theirs = self[f"test/det/img{picture}/{key}"]
        assert np.abs(np.array(areas) - theirs).max() <= 12
        assert np.abs(np.array(areas) - theirs).mean() <= 0.01 * theirs.mean()

    def truth(self) -> dict[str, jax.Array]:
        """A batch's ground truth, with masks as bitmaps."""
        rows: dict[str, list[np.ndarray]] = {name: [] for name in ("boxes", "labels", "box_valid", "bitmaps")}
        for picture in (0, 1):
            boxes, labels, masks = (
                self[f"train/gt/img{picture}/{name}"] for name in ("boxes", "labels", "masks")
            )
            bitmaps = np.unpackbits(masks)[: len(boxes) * 192 * 256].reshape(-1, 192, 256).astype(bool)
            rows["boxes"].append(_padded(boxes))
            rows["labels"].append(_padded(labels).astype(np.int32))
            rows["box_valid"].append(np.arange(OBJECTS) < len(boxes))
            rows["bitmaps"].append(_padded(bitmaps))
        batch = {name: jnp.asarray(np.stack(values)) for name, values in rows.items()}
        return batch | {"size": jnp.asarray(SIZES), "valid": jnp.ones(2, bool)}

    def losses(self, batch: dict[str, jax.Array], settings: TwoStage) -> tuple[dict[str, float], Any, Any]:
        """Terms, gradients and the state afterwards."""

        @jax.jit
        def run(params: Any, batch: Any) -> Any:
            def loss(params: Any) -> Any:
                variables = self.variables | {"params": params}
                terms, _, state = training_terms(
                    self.model, variables, IMAGES, batch, jax.random.key(0), settings
                )
                counted = {name: (pair[0], jax.lax.stop_gradient(pair[1])) for name, pair in terms.items()}
                return sum(map(ratio, counted.values())), (
                    {name: ratio(pair) for name, pair in terms.items()},
                    state,
                )

            return jax.value_and_grad(loss, has_aux=True)(params)

        (_, (terms, state)), gradients = run(self.variables["params"], batch)
        return {name: float(value) for name, value in terms.items()}, gradients, state

    def check_gradient_norms(self, gradients: dict[str, Any], relative: float) -> None:
        """Of every parameter, as a share of it; `gradients` by path."""
        norms = dict(zip(self["grad_norm_names"].tolist(), self["grad_norms"].tolist(), strict=True))
        for path, gradient in gradients.items():
            (name,) = self.weights.names[path]
            assert float(jnp.linalg.norm(gradient.ravel())) == pytest.approx(norms[name], rel=relative), path


def _padded(values: np.ndarray) -> np.ndarray:
    return np.pad(values, ((0, OBJECTS - len(values)),) + ((0, 0),) * (values.ndim - 1))


def close(ours: Any, theirs: np.ndarray, tolerance: float) -> None:
    """Largest difference as a share of the reference's largest value."""
    assert np.shape(ours) == np.shape(theirs)
    assert float(np.abs(np.asarray(ours) - theirs).max()) <= tolerance * float(np.abs(theirs).max())
