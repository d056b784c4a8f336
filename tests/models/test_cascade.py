"""Cascade Mask R-CNN and HTC against OpenMMLab's, and what they promise."""

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.cascade import CascadeMaskRCNN, HybridTaskCascade
from swin_jax.models.detection_heads import MaskHead
from swin_jax.models.detectors import create_detector
from swin_jax.models.vit import Attention
from swin_jax.ops.losses import IGNORE
from swin_jax.ops.pasting import paste
from swin_jax.tasks.roi_heads import classified, refined, segmented
from swin_jax.tasks.two_stage import BoundModel, Maps, see
from swin_jax.tasks.two_stage_settings import Selecting, Stage, TwoStage, published_settings
from swin_jax.weights import flatten
from tests.models.detector_golden import EVERYTHING, IMAGES, ORIGINAL, PROPOSALS, Golden, close

GOLDEN = {
    "cascade": Golden("cascade", CascadeMaskRCNN),
    "htc": Golden("htc", HybridTaskCascade, semantic_classes=7),
}
AREAS = {"cascade": "mask_areas", "htc": "mask_areas_stage_mean"}


def settings(name: str, **fields: Any) -> TwoStage:
    tested = {"test_proposals": PROPOSALS, "selecting": Selecting(most=40)}
    return dataclasses.replace(published_settings(GOLDEN[name].model), **{**tested, **fields})


@cache
def found(name: str) -> dict[str, np.ndarray]:
    return GOLDEN[name].find(settings(name))


@cache
def outputs(name: str) -> dict[str, Any]:
    """What every stage's heads make of the reference's RoIs."""
    golden, rules = GOLDEN[name], settings(name)
    stages = range(3)
    rois = [golden[f"test/bbox_roi_extractor{stage}/rois"][:, 1:].reshape(2, 100, 4) for stage in stages]
    last = [golden[f"test/det/img{picture}/boxes"] for picture in (0, 1)]
    scaled = np.stack([last[0] * 1.28, last[1]])

    @jax.jit
    def run(variables: Any, rois: Any, boxes: Any) -> Any:
        bound = BoundModel(golden.model, variables)
        maps: Maps = see(bound, IMAGES)
        heads = [classified(bound, maps, rois[stage], rules, stage) for stage in stages]
        masks = segmented(bound, maps, boxes, rules, stages=tuple(stages))
        return heads, masks, maps.semantic_logits

    heads, masks, semantic = run(golden.variables, list(map(jnp.asarray, rois)), jnp.asarray(scaled))
    return {"heads": heads, "masks": masks, "semantic": semantic}


@pytest.mark.parametrize("stage", range(3))
@pytest.mark.parametrize("name", GOLDEN)
def test_the_outputs_of_every_stage_agree(name: str, stage: int):
    logits, deltas = outputs(name)["heads"][stage]
    close(logits.reshape(200, -1), GOLDEN[name][f"test/bbox_head{stage}/0"], 1e-4)
    close(deltas.reshape(200, -1), GOLDEN[name][f"test/bbox_head{stage}/1"], 1e-4)
    theirs = GOLDEN[name][f"test/mask_head{stage}/logits_of_the_label"]
    labels = GOLDEN[name]["test/det/img0/labels"][:6]
    ours = np.stack(
        [np.asarray(outputs(name)["masks"][stage][0, row, :, :, labels[row]]) for row in range(6)]
    )
    close(ours, theirs, 1e-3)


def test_the_semantic_branch_agrees():
    ours = outputs("htc")["semantic"][:1].transpose(0, 3, 1, 2)
    close(ours, GOLDEN["htc"]["test/semantic_head/0"], 1e-4)


@pytest.mark.parametrize("picture", [0, 1])
@pytest.mark.parametrize("name", GOLDEN)
def test_detections_agree_one_to_one(name: str, picture: int):
    GOLDEN[name].check_detections(found(name), "det", picture)


@pytest.mark.parametrize("picture", [0, 1])
@pytest.mark.parametrize("name", GOLDEN)
def test_masks_are_the_mean_of_the_stages(name: str, picture: int):
    """Areas as there; what is found has them, but for the 8 bits that probabilities are kept with."""
    golden = GOLDEN[name]
    labels = golden[f"test/det/img{picture}/labels"]
    logits = np.mean(
        [jax.nn.sigmoid(masks[picture, np.arange(40), :, :, labels]) for masks in outputs(name)["masks"]],
        axis=0,
    )
    height, width = ORIGINAL[picture].tolist()
    boxes = golden[f"test/det/img{picture}/boxes"]
    areas = [paste(mask, box, height, width).sum() for mask, box in zip(logits, boxes, strict=True)]
    assert np.abs(np.array(areas) - golden[f"test/det/img{picture}/{AREAS[name]}"]).max() <= 3
    np.testing.assert_allclose(found(name)["masks"][picture] / 255, logits, atol=0.5 / 255 + 1e-4)


@pytest.mark.long
@pytest.mark.parametrize("name", GOLDEN)
def test_training_losses_gradient_norms_and_statistics_agree(name: str):
    """The reference divides the semantic loss by all cells; its gradients are compared with such a weight."""
    golden = GOLDEN[name]
    batch, fields = golden.truth(), {}
    theirs = {
        "rpn_cls": golden["train/loss/loss_rpn_cls"].sum(),
        "rpn_box": golden["train/loss/loss_rpn_bbox"].sum(),
    }
    for stage in range(3):
        for ours, name_there in (("cls", "loss_cls"), ("box", "loss_bbox"), ("mask", "loss_mask")):
            theirs[f"stage{stage}_{ours}"] = golden[f"train/loss/s{stage}.{name_there}"].ravel()[0]
    if name == "htc":
        labels = golden["train/semantic_labels_stride8"]
        batch["semantic"] = jnp.asarray(labels)
        fields["semantic_weight"] = 0.2 * float(np.mean(labels != IGNORE))
        theirs["semantic"] = golden["train/loss/loss_semantic_seg"]
    terms, gradients, state = golden.losses(batch, settings(name, **EVERYTHING, **fields))
    assert terms.keys() == theirs.keys()
    for term, value in theirs.items():
        assert terms[term] == pytest.approx(float(value), rel=2e-5), term
    golden.check_gradient_norms(flatten(gradients), 1e-3)
    for path, value in flatten(state.get("batch_stats", {})).items():
        (there,) = golden.weights.names[path]
        close(value, golden[f"train/state_after_one_step/{there}"], 1e-5)
    assert ("batch_stats" in state) == (name == "cascade")


def micro(name: str, **fields: Any) -> Any:
    """A detector with drawn variables, biases too, and features of RoIs."""
    shape = {"embed_dim": 4, "depths": (1, 1), "num_heads": (1, 1), "window_size": 2}
    heads = {"channels": 4, "fc_channels": 8, "mask_channels": 4, "mask_convs": 1}
    model = create_detector(name, 3, **shape, **heads, **fields)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.RandomState(0)
    drawn = [jnp.asarray(0.1 * rng.standard_normal(leaf.shape) + (leaf > 0), leaf.dtype) for leaf in leaves]
    return (
        model,
        jax.tree.unflatten(tree, drawn),
        jnp.asarray(rng.standard_normal((2, 14, 14, 4)), jnp.float32),
    )


def test_masks_of_an_htc_without_flow_are_those_of_independent_heads():
    model, variables, features = micro("htc_swin_tiny")
    params = dict(variables["params"])
    for stage in (1, 2):
        flow = jax.tree.map(jnp.zeros_like, params[f"mask_head{stage}"]["flow"])
        params[f"mask_head{stage}"] = params[f"mask_head{stage}"] | {"flow": flow}
    masks = model.apply({"params": params}, features, (0, 1, 2), method="segment")
    for stage, mask in enumerate(masks):
        alone = MaskHead(3, 4, 1).apply({"params": params[f"mask_head{stage}"]}, features)
        np.testing.assert_allclose(mask, alone, atol=1e-6)
    flowing = model.apply(variables, features, (0, 1, 2), method="segment")
    assert float(jnp.abs(flowing[0] - masks[0]).max()) == 0
    assert float(jnp.abs(flowing[2] - masks[2]).max()) > 1e-3


def test_a_stage_alone_is_that_of_all():
    model, variables, features = micro("htc_swin_tiny")
    both = model.apply(variables, features, (0, 1, 2), method="segment")
    (last,) = model.apply(variables, features, (2,), method="segment")
    np.testing.assert_array_equal(last, both[2])


def test_a_stage_moves_its_rois_to_the_likely_class_or_to_that_of_their_truth():
    boxes = jnp.array([[[10.0, 10.0, 40.0, 30.0], [0.0, 0.0, 70.0, 20.0]]])
    logits = jnp.array([[[0.0, 2.0, 5.0], [3.0, 1.0, 0.0]]])
    deltas = jnp.zeros((1, 2, 2, 4)).at[0, 0, 1].set(jnp.array([1.0, 0.0, 0.0, 0.0]))
    sizes = jnp.array([[50, 60]])
    moved = refined(boxes, logits, deltas, sizes, Stage())
    np.testing.assert_allclose(moved[0], [[13, 10, 43, 30], [0, 0, 60, 20]], atol=1e-5)
    of_truth = refined(boxes, logits, deltas, sizes, Stage(), jnp.array([[0, 2]]))
    np.testing.assert_allclose(of_truth[0], [[10, 10, 40, 30], [0, 0, 60, 20]], atol=1e-5)


def test_attention_in_chunks_is_that_of_all_queries():
    """7 chunks of 10 for 63 tokens: the last one is filled up."""
    x = jnp.asarray(np.random.RandomState(0).standard_normal((2, 63, 8)), jnp.float32)
    whole, parts = Attention(2), Attention(2, chunk=10)
    params = whole.init(jax.random.key(0), x)

    def total(module: Attention) -> Any:
        return jax.value_and_grad(lambda p: jnp.sum(module.apply(p, x) ** 2))(params)

    for ours, theirs in zip(jax.tree.leaves(total(parts)), jax.tree.leaves(total(whole)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
