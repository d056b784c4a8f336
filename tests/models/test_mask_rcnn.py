"""Mask R-CNN against OpenMMLab's, and what a detector promises.

`tests/goldens/openmmlab_mask_rcnn.npz`: what mmdet 3.3.0 computes with drawn weights on a narrow Swin (channels 32, 5
classes) on two pictures, the second of which does not fill the canvas: proposals, detections, and in training, with
samplers that take everything, losses and gradient norms. Of the backbone, which has its own references, it holds the
maps, with 16 significant bits.
"""

from functools import cache
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.detector_complexity import mask_rcnn_macs
from swin_jax.models.detectors import create_detector, detector_names
from swin_jax.models.mask_rcnn import MaskRCNN
from swin_jax.ops.pasting import paste
from swin_jax.tasks.two_stage import Proposing, Sampling, Selecting, TwoStage
from swin_jax.tasks.two_stage_inference import View, find
from swin_jax.tasks.two_stage_training import training_terms
from swin_jax.training.state import ratio
from swin_jax.weights import flatten, unflatten
from swin_jax.weights.composed import composed_of_state

REFERENCE = Path(__file__).parents[1] / "goldens" / "openmmlab_mask_rcnn.npz"
SIZES = np.array([[192, 256], [176, 240]], np.int32)
ORIGINAL = np.array([[150, 200], [176, 240]], np.int32)
CLASSES, OBJECTS = 5, 6
PROPOSALS = Proposing(200, 100)
ANCHORS = sum(3 * rows * columns for rows, columns in ((48, 64), (24, 32), (12, 16), (6, 8), (3, 4)))


@cache
def reference() -> dict[str, np.ndarray]:
    with np.load(REFERENCE) as file:
        return dict(file)


class StoredMaps(nn.Module):
    """Stands for the backbone."""

    def __call__(self, images: Any, train: bool) -> tuple[jax.Array, ...]:
        return tuple(jnp.asarray(reference()[f"maps/{index}"]) for index in range(4))


MODEL = MaskRCNN(StoredMaps(), CLASSES, channels=32, fc_channels=64, mask_channels=32)
IMAGES = jnp.zeros((2, 192, 256, 3))


@cache
def variables() -> dict[str, Any]:
    names = {name: value for name, value in reference().items() if name.startswith("state/")}
    state = {name.removeprefix("state/"): np.asarray(value, np.float32) for name, value in names.items()}
    params = composed_of_state(state, "the reference").params
    return {"params": unflatten({path: jnp.asarray(value) for path, value in params.items()})}


@cache
def pyramid() -> tuple[jax.Array, ...]:
    return jax.jit(lambda v: MODEL.apply(v, IMAGES, False, method="features"))(variables())


def close(ours: Any, theirs: np.ndarray, tolerance: float) -> None:
    """Largest difference as a share of the reference's largest value."""
    assert np.shape(ours) == np.shape(theirs)
    assert float(np.abs(np.asarray(ours) - theirs).max()) <= tolerance * float(np.abs(theirs).max())


def detections(selecting: Selecting) -> dict[str, np.ndarray]:
    settings = TwoStage(train_proposals=PROPOSALS, test_proposals=PROPOSALS, selecting=selecting)
    view = View(IMAGES, jnp.asarray(SIZES), mirrored=False)

    @jax.jit
    def run(variables: Any) -> Any:
        return find(MODEL, variables, [view], jnp.asarray(ORIGINAL), jnp.ones(2, bool), settings)

    return jax.device_get(run(variables()))


@pytest.fixture(name="found", scope="module")
def fixture_found() -> dict[str, np.ndarray]:
    return detections(Selecting(most=40))


def test_pyramid_and_proposal_network_agree():
    objectness, deltas = MODEL.apply(variables(), pyramid(), method="propose")
    for level in (3, 4):
        close(pyramid()[level].transpose(0, 3, 1, 2), reference()[f"test/neck/{level}"], 1e-4)
    for level in (2, 3, 4):
        close(objectness[level].transpose(0, 3, 1, 2), reference()[f"test/rpn_head/0/{level}"], 1e-4)
        close(deltas[level].transpose(0, 3, 1, 2), reference()[f"test/rpn_head/1/{level}"], 1e-4)


def matches(found: dict[str, np.ndarray], key: str, picture: int) -> None:
    """One to one and in their order."""
    theirs = {name: reference()[f"test/{key}/img{picture}/{name}"] for name in ("boxes", "scores", "labels")}
    count = len(theirs["scores"])
    assert found["box_valid"][picture].sum() == count
    np.testing.assert_array_equal(found["labels"][picture][:count], theirs["labels"])
    np.testing.assert_allclose(found["boxes"][picture][:count], theirs["boxes"], atol=5e-3)
    np.testing.assert_allclose(found["scores"][picture][:count], theirs["scores"], atol=5e-5)


@pytest.mark.parametrize("picture", [0, 1])
def test_detections_agree_one_to_one(found: dict[str, np.ndarray], picture: int):
    matches(found, "det", picture)
    assert found["complete"].all()
    assert (found["boxes"] <= np.tile(ORIGINAL[picture][::-1], 2) + 1e-3)[picture].all()


@pytest.mark.parametrize("picture", [0, 1])
def test_mask_areas_agree(found: dict[str, np.ndarray], picture: int):
    """Within the 8 bits that probabilities are kept with: a pixel at the threshold may go either way."""
    height, width = ORIGINAL[picture].tolist()
    areas = [
        paste(mask.astype(np.float32) / 255, box, height, width).sum()
        for mask, box in zip(found["masks"][picture], found["boxes"][picture], strict=True)
    ]
    theirs = reference()[f"test/det/img{picture}/mask_areas"]
    assert np.abs(np.array(areas) - theirs).max() <= 12
    assert np.abs(np.array(areas) - theirs).mean() <= 0.01 * theirs.mean()


@pytest.mark.parametrize(
    ("key", "selecting"),
    [
        ("det_score_thr_0.7", Selecting(least_score=0.7)),
        ("det_soft_nms", Selecting(most=60, soft="linear", least_soft_score=0.05)),
    ],
)
def test_other_selections_agree(key: str, selecting: Selecting):
    found = detections(selecting)
    for picture in (0, 1):
        matches(found, key, picture)


def padded(values: np.ndarray) -> np.ndarray:
    return np.pad(values, ((0, OBJECTS - len(values)),) + ((0, 0),) * (values.ndim - 1))


def truth() -> dict[str, jax.Array]:
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("boxes", "labels", "box_valid", "bitmaps")}
    for picture in (0, 1):
        boxes, labels, masks = (
            reference()[f"train/gt/img{picture}/{name}"] for name in ("boxes", "labels", "masks")
        )
        bitmaps = np.unpackbits(masks)[: len(boxes) * 192 * 256].reshape(-1, 192, 256).astype(bool)
        rows["boxes"].append(padded(boxes))
        rows["labels"].append(padded(labels).astype(np.int32))
        rows["box_valid"].append(np.arange(OBJECTS) < len(boxes))
        rows["bitmaps"].append(padded(bitmaps))
    return {name: jnp.asarray(np.stack(values)) for name, values in rows.items()} | {
        "size": jnp.asarray(SIZES),
        "valid": jnp.ones(2, bool),
    }


# Everything is sampled: no randomness is left.
EVERYTHING = TwoStage(
    train_proposals=PROPOSALS,
    anchor_sampling=Sampling(ANCHORS, ANCHORS),
    roi_sampling=Sampling(100 + OBJECTS, 100 + OBJECTS),
)


@jax.jit
def losses(params: Any, batch: Any) -> Any:
    def loss(params: Any) -> Any:
        terms, _, _ = training_terms(MODEL, {"params": params}, IMAGES, batch, jax.random.key(0), EVERYTHING)
        counted = {name: (pair[0], jax.lax.stop_gradient(pair[1])) for name, pair in terms.items()}
        return sum(map(ratio, counted.values())), {name: ratio(pair) for name, pair in terms.items()}

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.mark.long
def test_training_losses_and_gradient_norms_agree():
    """With mask targets of whole bitmaps, as there. Of crops of 112 x 112 the mask loss is 0.14% less."""
    batch = truth()
    (_, terms), gradients = losses(variables()["params"], batch)
    theirs = {
        "rpn_cls": reference()["train/loss/loss_rpn_cls"].sum(),
        "rpn_box": reference()["train/loss/loss_rpn_bbox"].sum(),
        "cls": reference()["train/loss/loss_cls"],
        "box": reference()["train/loss/loss_bbox"],
        "mask": reference()["train/loss/loss_mask"][0],
    }
    assert terms.keys() == theirs.keys()
    for name, value in theirs.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=2e-5), name
    state = {name: value for name, value in reference().items() if name.startswith("state/")}
    names = composed_of_state(
        {name.removeprefix("state/"): np.asarray(value, np.float32) for name, value in state.items()}, ""
    ).names
    norms = dict(
        zip(reference()["grad_norm_names"].tolist(), reference()["grad_norms"].tolist(), strict=True)
    )
    for path, gradient in flatten(gradients).items():
        (name,) = names[path]
        assert float(jnp.linalg.norm(gradient.ravel())) == pytest.approx(norms[name], rel=2e-4), path


EXACT = {
    "mask_rcnn_resnet50": (44_396_336, 259.3e9),
    "mask_rcnn_swin_tiny": (47_794_602, 266.6e9),
    "mask_rcnn_swin_small": (69_112_506, 358.6e9),
}


@pytest.mark.parametrize("name", EXACT)
def test_parameters_are_exact_and_macs_those_of_the_paper(name: str):
    model = create_detector(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == EXACT[name][0]
    assert mask_rcnn_macs(model, 800, 1280) == pytest.approx(EXACT[name][1], rel=5e-4)


def test_a_detector_without_masks_has_no_mask_head():
    shapes = jax.eval_shape(
        create_detector("mask_rcnn_swin_tiny", with_masks=False).init,
        jax.random.key(0),
        jnp.zeros((1, 64, 64, 3)),
    )
    assert set(shapes["params"]) == {"backbone", "neck", "rpn", "box_head"}


def test_a_resnet_holds_its_stem_and_first_stage():
    model = create_detector("mask_rcnn_resnet50")
    assert model.frozen("backbone/stem/conv/kernel")
    assert model.frozen("backbone/stage0/block0/conv1/conv/kernel")
    assert not model.frozen("backbone/stage1/block0/conv1/conv/kernel")
    assert not model.frozen("neck/lateral0/kernel")
    assert model.layer_of("box_head/fc0/kernel") == model.num_layers - 1


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mask_rcnn_swin_tine", {}, "no detector is called 'mask_rcnn_swin_tine'; did you mean"),
        ("mask_rcnn_swin_tiny", {"chanels": 8}, "has no field 'chanels'; did you mean 'channels'"),
        ("mask_rcnn_swin_tiny", {"mask_convs": -1}, "mask_convs must be an integer of at least 0, got -1"),
    ],
)
def test_a_wrong_name_or_field_is_one_sentence(name: str, fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        create_detector(name, **fields)


def test_every_name_makes_a_detector():
    for name in detector_names():
        assert create_detector(name, 3).num_classes == 3
