"""Mask R-CNN against OpenMMLab's, and what a detector promises."""

from typing import Any

import jax
import numpy as np
import pytest

from swin_jax.models.mask_rcnn import MaskRCNN
from swin_jax.tasks.two_stage_settings import Selecting, TwoStage
from swin_jax.weights import flatten
from tests.models.detector_golden import EVERYTHING, IMAGES, ORIGINAL, PROPOSALS, Golden, close

GOLDEN = Golden("mask_rcnn", MaskRCNN)


def detections(selecting: Selecting) -> dict[str, np.ndarray]:
    return GOLDEN.find(TwoStage(train_proposals=PROPOSALS, test_proposals=PROPOSALS, selecting=selecting))


@pytest.fixture(name="found", scope="module")
def fixture_found() -> dict[str, np.ndarray]:
    return detections(Selecting(most=40))


def test_pyramid_and_proposal_network_agree():
    @jax.jit
    def run(variables: Any) -> Any:
        pyramid = GOLDEN.model.apply(variables, IMAGES, False, method="features")
        return pyramid, *GOLDEN.model.apply(variables, pyramid, method="propose")

    pyramid, objectness, deltas = run(GOLDEN.variables)
    for level in (3, 4):
        close(pyramid[level].transpose(0, 3, 1, 2), GOLDEN[f"test/neck/{level}"], 1e-4)
    for level in (2, 3, 4):
        close(objectness[level].transpose(0, 3, 1, 2), GOLDEN[f"test/rpn_head/0/{level}"], 1e-4)
        close(deltas[level].transpose(0, 3, 1, 2), GOLDEN[f"test/rpn_head/1/{level}"], 1e-4)


@pytest.mark.parametrize("picture", [0, 1])
def test_detections_agree_one_to_one(found: dict[str, np.ndarray], picture: int):
    GOLDEN.check_detections(found, "det", picture)
    assert found["complete"].all()
    assert (found["boxes"] <= np.tile(ORIGINAL[picture][::-1], 2) + 1e-3)[picture].all()


@pytest.mark.parametrize("picture", [0, 1])
def test_mask_areas_agree(found: dict[str, np.ndarray], picture: int):
    GOLDEN.check_mask_areas(found, "mask_areas", picture)


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
        GOLDEN.check_detections(found, key, picture)


@pytest.mark.long
def test_training_losses_and_gradient_norms_agree():
    """With mask targets of whole bitmaps, as there. Of crops of 112 x 112 the mask loss is 0.14% less."""
    terms, gradients, _ = GOLDEN.losses(GOLDEN.truth(), TwoStage(**EVERYTHING))
    theirs = {
        "rpn_cls": GOLDEN["train/loss/loss_rpn_cls"].sum(),
        "rpn_box": GOLDEN["train/loss/loss_rpn_bbox"].sum(),
        "cls": GOLDEN["train/loss/loss_cls"],
        "box": GOLDEN["train/loss/loss_bbox"],
        "mask": GOLDEN["train/loss/loss_mask"][0],
    }
    assert terms.keys() == theirs.keys()
    for name, value in theirs.items():
        assert terms[name] == pytest.approx(float(value), rel=2e-5), name
    GOLDEN.check_gradient_norms(flatten(gradients), 2e-4)
