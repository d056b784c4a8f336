"""UperNet against OpenMMLab's, in evaluation and training, and what a segmenter promises.

`tests/goldens/openmmlab_upernet.npz`: what mmseg 1.2.2 computes with drawn weights on a narrow Swin (channels 32, 5
classes, no dropout), evaluating a picture of 203x267 and training on two of 160x192: logits, losses, running
statistics after the step, gradient norms. Of the backbone, which has its own references, it holds the maps, with 16
significant bits.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from swin_jax.models.segmenters import create_segmenter, segmenter_names
from swin_jax.models.upernet import UperNet
from swin_jax.ops.losses import segmentation_cross_entropy
from swin_jax.ops.resize import resize_bilinear
from swin_jax.weights import flatten
from tests.parity import dense_naming

REFERENCE = Path(__file__).parents[1] / "goldens" / "openmmlab_upernet.npz"
MICRO = {"channels": 8, "auxiliary_channels": 8}
MICRO_SWIN = MICRO | {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2}


@cache
def reference() -> dict[str, np.ndarray]:
    with np.load(REFERENCE) as file:
        return dict(file)


@cache
def under(prefix: str) -> dict[str, np.ndarray]:
    values = reference().items()
    return {name.removeprefix(prefix): value for name, value in values if name.startswith(prefix)}


def maps(name: str) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(reference()[f"{name}/maps/{index}"]) for index in range(4))


def nhwc(name: str) -> np.ndarray:
    return reference()[name].transpose(0, 2, 3, 1)


def close(ours: Any, theirs: np.ndarray, tolerance: float) -> None:
    """Largest difference as a share of the reference's largest value."""
    assert np.shape(ours) == np.shape(theirs)
    assert float(np.abs(np.asarray(ours) - theirs).max()) <= tolerance * float(np.abs(theirs).max())


def narrow() -> tuple[UperNet, dict]:
    model = create_segmenter(
        "upernet_swin_tiny", 5, channels=32, auxiliary_channels=32, head_drop_rate=0.0, embed_dim=24
    )
    return model, dense_naming.upernet(under("state/"))


def test_evaluation_gives_openmmlabs_logits_and_labels():
    model, variables = narrow()

    def evaluate(levels):
        logits, kept = model.apply(
            variables,
            levels,
            method="decode",
            capture_intermediates=lambda module, _: module.name == "bottleneck",
        )
        (pooled,) = kept["intermediates"]["decode_head"]["bottleneck"]["__call__"]
        resized = resize_bilinear(logits, (203, 267))
        return logits, pooled, resized, model.apply(variables, levels, method="auxiliary")

    logits, pooled, resized, auxiliary = jax.jit(evaluate)(maps("eval_203x267"))
    close(logits, nhwc("eval_203x267/logits"), 2e-5)
    close(pooled, nhwc("eval_203x267/psp"), 2e-5)
    close(auxiliary, nhwc("eval_203x267/aux_logits"), 2e-5)
    close(resized[:, ::7, ::7], nhwc("eval_203x267/logits_resized_every_7th"), 2e-5)
    np.testing.assert_array_equal(resized.argmax(axis=-1), reference()["eval_203x267/argmax"])


def test_a_training_step_gives_openmmlabs_losses_statistics_and_gradients():
    model, variables = narrow()
    labels = jnp.asarray(reference()["train/labels"])

    def loss(params):
        current = {"params": params, "batch_stats": variables["batch_stats"]}
        heads = lambda module, levels: (module.decode(levels, True), module.auxiliary(levels, True))  # noqa: E731
        both, state = model.apply(current, maps("train"), method=heads, mutable=["batch_stats"])
        terms = []
        for logits in both:
            total, pixels = segmentation_cross_entropy(resize_bilinear(logits, labels.shape[1:]), labels)
            terms.append(total / pixels)
        return terms[0] + 0.4 * terms[1], (both, terms, state["batch_stats"])

    (total, (both, terms, stats)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        variables["params"]
    )
    close(both[0], nhwc("train/logits"), 2e-5)
    close(both[1], nhwc("train/aux_logits"), 2e-5)
    np.testing.assert_allclose(terms[0], reference()["train/decode.loss_ce"], rtol=1e-6)
    np.testing.assert_allclose(0.4 * terms[1], reference()["train/aux.loss_ce"], rtol=1e-6)
    np.testing.assert_allclose(total, reference()["train/loss_total"], rtol=1e-6)

    moved = flatten(dense_naming.upernet(under("state_after_one_step/"))["batch_stats"])
    ours = flatten(stats)
    assert ours.keys() == moved.keys()
    for path, value in moved.items():
        close(ours[path], value, 1e-5)

    shapes = {name: value.shape for name, value in under("state/").items()}
    filled = {name: np.full(shapes[name], norm) for name, norm in under("grad_norm/").items()}
    norms = flatten(dense_naming.upernet(filled)["params"])
    ours = flatten(gradients)
    assert ours.keys() == norms.keys()
    for path, value in norms.items():
        np.testing.assert_allclose(np.linalg.norm(ours[path]), value.flat[0], rtol=1e-3)


@cache
def micro(name: str = "upernet_swin_tiny", **overrides: Any) -> tuple[UperNet, dict]:
    """A segmenter of 5 classes and its variables, drawn so that no norm is at its default."""
    fields = {"upernet_swin_tiny": MICRO_SWIN, "upernet_resnet50": MICRO | {"depths": (1, 1, 1, 1)}}
    vit = MICRO | {"embed_dim": 8, "depth": 1, "num_heads": 1}
    model = create_segmenter(name, 5, **fields.get(name, vit), **overrides)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    generator = np.random.RandomState(0)

    def draw(path, leaf):
        value = jnp.asarray(generator.standard_normal(leaf.shape), jnp.float32)
        last = path[-1].key
        if last == "kernel":
            return value / np.sqrt(np.prod(leaf.shape[:-1]))
        return 1.0 + 0.3 * jnp.abs(value) if last in ("scale", "var") else 0.3 * value

    return model, jax.tree_util.tree_map_with_path(draw, shapes)


def pictures(batch: int, height: int, width: int) -> jax.Array:
    return jnp.asarray(np.random.RandomState(1).standard_normal((batch, height, width, 3)), jnp.float32)


@pytest.mark.parametrize("name", ["upernet_swin_tiny", "upernet_resnet50", "upernet_deit_small"])
def test_every_backbone_gives_logits_at_stride_4_for_odd_sizes_and_auxiliary_ones_in_training(name: str):
    model, variables = micro(name)
    picture = pictures(2, 61, 78)
    logits, none = jax.eval_shape(model.apply, variables, picture)
    assert (logits.shape, logits.dtype, none) == ((2, 16, 20, 5), jnp.float32, None)

    def train(variables):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, picture, train=True, rngs=rngs, mutable=["batch_stats"])

    (logits, auxiliary), state = jax.eval_shape(train, variables)
    assert (logits.shape, auxiliary.shape) == ((2, 16, 20, 5), (2, 4, 5, 5))
    assert jax.tree.structure(state["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


@pytest.mark.parametrize("name", ["upernet_swin_tiny", "upernet_resnet50", "upernet_deit_small"])
def test_maps_are_of_the_compute_type_logits_and_statistics_float32(name: str):
    model, _ = micro(name, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}

    def train(variables):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(
            variables,
            pictures(2, 32, 32),
            train=True,
            rngs=rngs,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
        )

    (logits, auxiliary), state = jax.eval_shape(train, shapes)
    assert logits.dtype == auxiliary.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(state["batch_stats"])} == {jnp.dtype(jnp.float32)}
    inside = flatten_tuples(state["intermediates"]["backbone"])
    inside |= flatten_tuples(state["intermediates"]["decode_head"])
    wide = {path for path, value in inside.items() if value.dtype != jnp.bfloat16}
    assert wide == {"classifier/__call__", "__call__"}


def flatten_tuples(tree: dict) -> dict[str, Any]:
    found = {}
    for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
        found["/".join(part.key for part in path if hasattr(part, "key"))] = value
    return found


def test_a_picture_gives_the_same_logits_alone_and_in_a_batch():
    model, variables = micro()
    batch = pictures(3, 40, 56)
    apply = jax.jit(lambda images: model.apply(variables, images)[0])
    np.testing.assert_allclose(apply(batch)[1:2], apply(batch[1:2]), atol=1e-4)


def test_eight_devices_train_with_the_statistics_of_the_global_batch():
    model, variables = micro(head_drop_rate=0.0)
    batch = pictures(8, 32, 32) * (1.0 + jnp.arange(8.0))[:, None, None, None]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    shards = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))

    @jax.jit
    def train(images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    one, eight = train(batch), train(shards)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one, eight)


def test_dropout_drops_whole_channels_before_the_classifier():
    model, variables = micro(head_drop_rate=0.5)

    def train(images):
        _, state = model.apply(
            variables,
            images,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: module.name in ("fuse", "Dropout_0"),
        )
        inside = state["intermediates"]["decode_head"]
        return inside["fuse"]["__call__"][0], inside["Dropout_0"]["__call__"][0]

    features, kept = jax.jit(train)(pictures(4, 32, 32))
    dropped = jnp.all(kept == 0.0, axis=(1, 2))
    assert 0.2 < float(dropped.mean()) < 0.8
    np.testing.assert_allclose(kept, jnp.where(dropped[:, None, None], 0.0, 2.0 * features), rtol=1e-6)


def test_layers_and_frozen_parts_are_the_backbones():
    model, _ = micro(frozen_stages=2)
    assert model.num_layers == 6
    assert model.layer_of("backbone/patch_embed/proj/kernel") == 0
    assert model.layer_of("backbone/stage2/block0/norm1/scale") == 3
    assert model.layer_of("decode_head/fuse/conv/kernel") == 5
    assert model.frozen("backbone/stage0/block0/norm1/scale")
    assert not model.frozen("decode_head/lateral0/conv/kernel")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channel": 8}, "segmenter 'upernet_swin_tiny' has no field 'channel'; did you mean 'channels'"),
        ({"features_only": False}, "has no field 'features_only'"),
        ({"channels": 0}, "channels must be an integer of at least 1, got 0"),
        ({"pool_scales": (1, 1)}, "pool_scales must differ from each other"),
        ({"auxiliary_index": 4}, "auxiliary_index must be 0 to 3"),
        ({"head_drop_rate": 1.0}, "head_drop_rate must be a number of at least 0 and below 1, got 1.0"),
        ({"window_size": 0}, "window_size must be an integer of at least 1, got 0"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        create_segmenter("upernet_swin_tiny", **fields)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match="no segmenter is called 'swin_tiny'; did you mean 'upernet_swin_tiny'"
    ):
        create_segmenter("swin_tiny")


def test_overrides_reach_the_backbone_and_types_reach_both():
    for name in segmenter_names():
        model = create_segmenter(name, 19, dtype=jnp.bfloat16)
        assert (model.num_classes, model.dtype, model.backbone.dtype) == (19, jnp.bfloat16, jnp.bfloat16)
    swin = create_segmenter("upernet_swin_small", window_size=12, drop_path_rate=0.3)
    assert (swin.backbone.window_size, swin.backbone.drop_path_rate) == (12, 0.3)
    assert (swin.backbone.window_policy, swin.backbone.features_only) == ("dense", True)
