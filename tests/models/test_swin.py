"""The assembled model: layout, initialisation, policies, randomness, types, freezing, recomputation."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models import checks
from swin_jax.models.registry import create_model
from swin_jax.models.swin import REMAT_POLICIES, SwinTransformer
from swin_jax.models.token_mixing import window_and_shift

MICRO = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "num_classes": 5}


def micro(**overrides: Any) -> SwinTransformer:
    return create_model("swin", **{**MICRO, **overrides})


@functools.cache
def perturbed(**overrides: Any) -> dict:
    """Variables with nothing at its initial value: biases, tables and norms would hide mistakes."""
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(micro(**overrides).init, jax.random.key(0), images)
    draw = np.random.RandomState(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * draw.standard_normal(leaf.shape) + (leaf.ndim == 1), leaf.dtype),
        shapes,
    )


def pictures(height: int, width: int, batch: int = 2, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.RandomState(seed).standard_normal((batch, height, width, 3)), jnp.float32)


def run(model: SwinTransformer, variables: dict, images: jax.Array) -> Any:
    return jax.jit(model.apply)(variables, images)


def train(model: SwinTransformer, variables: dict, images: jax.Array, key: int = 0) -> jax.Array:
    apply = jax.jit(lambda v, x, k: model.apply(v, x, train=True, rngs={"dropout": k}))
    return apply(variables, images, jax.random.key(key))


def shapes(model: SwinTransformer) -> dict[str, tuple[int, ...]]:
    images = jax.ShapeDtypeStruct((1, 24, 40, 3), jnp.float32)
    tree = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    return {path: leaf.shape for path, leaf in _leaves(tree)}


def _leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield "/".join(entry.key for entry in path), leaf


# Layout


def test_parameter_paths_and_shapes():
    found = shapes(micro(depths=(1, 1), absolute_position_embedding=True, absolute_position_size=(32, 48)))
    block = {"norm1/scale": (8,), "norm1/bias": (8,), "norm2/scale": (8,), "norm2/bias": (8,)}
    block |= {
        "attn/qkv/kernel": (8, 24),
        "attn/qkv/bias": (24,),
        "attn/proj/kernel": (8, 8),
        "attn/proj/bias": (8,),
    }
    block |= {
        "mlp/fc1/kernel": (8, 32),
        "mlp/fc1/bias": (32,),
        "mlp/fc2/kernel": (32, 8),
        "mlp/fc2/bias": (8,),
    }
    block |= {"attn/relative_position_bias_table": (49, 2)}
    assert {path: found[f"stage0/block0/{path}"] for path in block} == block
    rest = {path: shape for path, shape in found.items() if "/block" not in path}
    assert rest == {
        "absolute_pos_embed": (8, 12, 8),
        "patch_embed/proj/kernel": (4, 4, 3, 8),
        "patch_embed/proj/bias": (8,),
        "patch_embed/norm/scale": (8,),
        "patch_embed/norm/bias": (8,),
        "stage0/downsample/norm/scale": (32,),
        "stage0/downsample/norm/bias": (32,),
        "stage0/downsample/reduction/kernel": (32, 16),
        "norm/scale": (16,),
        "norm/bias": (16,),
        "head/kernel": (16, 5),
        "head/bias": (5,),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"window_policy": "dense"},
        *({"remat": name} for name in REMAT_POLICIES),
        {"dtype": "bfloat16"},
        {"scan": True, "depths": (2, 5)},
    ],
)
def test_the_layout_does_not_depend_on_execution(change: dict):
    depths = {"depths": change["depths"]} if "depths" in change else {}
    assert shapes(micro(**change)) == shapes(micro(**depths))


def test_feature_maps_have_their_own_norms_and_no_head():
    model = micro(features_only=True, out_indices=(1,))
    assert {path for path in shapes(model) if "/block" not in path and path.startswith(("norm", "head"))} == {
        "norm1/scale",
        "norm1/bias",
    }
    (only,) = run(model, perturbed(features_only=True, out_indices=(1,)), pictures(33, 50))
    assert only.shape == (2, 5, 7, 16)


def test_switches_remove_parameters():
    assert "stage0/block0/attn/qkv/bias" not in shapes(micro(qkv_bias=False))
    assert not any(path.startswith("patch_embed/norm") for path in shapes(micro(patch_norm=False)))
    pooled = micro(num_classes=0)
    assert not any(path.startswith("head") for path in shapes(pooled))
    assert run(pooled, perturbed(num_classes=0), pictures(16, 16)).shape == (2, 16)


# Initialisation


def test_initial_values():
    model = create_model("swin", embed_dim=48, depths=(1, 1), num_heads=(3, 6), num_classes=50)
    params = jax.jit(model.init)(jax.random.key(0), pictures(32, 32))["params"]
    for path, value in _leaves(params):
        if path.startswith("patch_embed/proj"):
            continue
        if path.endswith("scale"):
            assert (value == 1).all(), path
        elif path.endswith("bias"):
            assert (value == 0).all(), path
        else:
            assert float(value.std()) == pytest.approx(0.02, rel=0.12), path
            # A normal truncated at two deviations would have nothing beyond .04.
            assert float(jnp.abs(value).max()) > 0.045, path


# Window policies


@pytest.mark.parametrize(
    ("height", "width", "shifted", "policy", "expected"),
    [
        (14, 14, True, "classification", (7, 3)),
        (14, 14, False, "classification", (7, 0)),
        (7, 7, True, "classification", (7, 0)),
        (7, 14, True, "classification", (7, 0)),
        (6, 9, True, "classification", (6, 0)),
        (8, 10, True, "classification", (7, 3)),
        (7, 7, True, "dense", (7, 3)),
        (3, 20, True, "dense", (7, 3)),
        (3, 20, False, "dense", (7, 0)),
    ],
)
def test_window_and_shift(height: int, width: int, shifted: bool, policy: str, expected: tuple[int, int]):
    assert window_and_shift(height, width, 7, shifted, policy) == expected


def test_the_policies_agree_until_a_map_is_no_larger_than_the_window():
    large, small = pictures(40, 40), pictures(16, 16)
    both = [
        micro(depths=(2,), num_heads=(2,), window_policy=policy) for policy in ("classification", "dense")
    ]
    variables = perturbed(depths=(2,), num_heads=(2,))
    np.testing.assert_allclose(*(run(model, variables, large) for model in both), atol=1e-6)
    assert float(jnp.abs(jnp.subtract(*(run(model, variables, small) for model in both))).max()) > 1e-2


def test_a_small_map_under_classification_equals_a_model_of_that_window_with_the_centre_of_the_table():
    variables = perturbed(depths=(2,), num_heads=(2,))
    cut = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            leaf.reshape(7, 7, -1)[1:-1, 1:-1].reshape(25, -1)
            if path[-1].key == "relative_position_bias_table"
            else leaf
        ),
        variables,
    )
    images = pictures(12, 20)
    ours = run(micro(depths=(2,), num_heads=(2,)), variables, images)
    theirs = run(micro(depths=(2,), num_heads=(2,), window_size=3), cut, images)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("policy", ["classification", "dense"])
def test_logits_do_not_depend_on_the_other_pictures_of_the_batch(policy: str):
    model, variables = micro(window_policy=policy), perturbed()
    alone = run(model, variables, pictures(45, 37, batch=1))
    among = jnp.concatenate([pictures(45, 37, batch=1), 100 * pictures(45, 37, batch=3, seed=1)])
    np.testing.assert_allclose(run(model, variables, among)[:1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["classification", "dense"])
def test_a_large_picture_of_odd_size(policy: str):
    model = micro(
        depths=(2, 2, 2), num_heads=(1, 2, 4), window_size=7, features_only=True, window_policy=policy
    )
    variables = perturbed(depths=(2, 2, 2), num_heads=(1, 2, 4), window_size=7, features_only=True)
    maps = run(model, variables, pictures(800, 1333, batch=1))
    assert [value.shape for value in maps] == [(1, 200, 334, 8), (1, 100, 167, 16), (1, 50, 84, 32)]
    assert all(bool(jnp.isfinite(value).all()) for value in maps)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (4, 4)])
@pytest.mark.parametrize("policy", ["classification", "dense"])
def test_tiny_pictures(policy: str, size: tuple[int, int]):
    assert np.isfinite(run(micro(window_policy=policy), perturbed(), pictures(*size))).all()


# Entering between the parts


def test_the_parts_make_the_whole():
    model, variables = micro(), perturbed()
    images = pictures(32, 32)
    embed, encode, head = (
        jax.jit(functools.partial(model.apply, method=name)) for name in ("embed", "encode", "head")
    )
    tokens = embed(variables, images)
    (features,) = encode(variables, tokens)
    assert (tokens.shape, features.shape) == ((2, 8, 8, 8), (2, 4, 4, 16))
    np.testing.assert_allclose(head(variables, features), run(model, variables, images), atol=1e-6)


def test_features_have_no_head():
    model = micro(features_only=True)
    with pytest.raises(ValueError, match="features_only=True has no head"):
        model.apply(perturbed(features_only=True), jnp.zeros((1, 4, 4, 16)), method="head")


def test_the_position_embedding_is_added_after_embed_and_resized():
    fields = {
        "absolute_position_embedding": True,
        "absolute_position_size": (32, 32),
        "depths": (1,),
        "num_heads": (1,),
    }
    model, variables = micro(**fields), perturbed(**fields)
    images = pictures(32, 32)
    tokens = model.apply(variables, images, method="embed")
    position = variables["params"]["absolute_pos_embed"]
    without = {"params": {**variables["params"], "absolute_pos_embed": 0 * position}}
    encode = jax.jit(functools.partial(model.apply, method="encode"))
    np.testing.assert_allclose(
        encode(variables, tokens)[0], encode(without, tokens + position[None])[0], rtol=1e-5, atol=1e-5
    )
    assert run(model, variables, pictures(45, 70)).shape == (2, 5)


# Randomness


def test_drop_path_grows_linearly_over_all_blocks():
    model = micro(depths=(2, 3), drop_path_rate=0.4).bind(perturbed(depths=(2, 3)))
    rates = [rate for stage in model.stages for rate in stage.drop_path_rates]
    np.testing.assert_allclose(rates, [0.0, 0.1, 0.2, 0.3, 0.4])


def test_each_branch_of_each_block_is_dropped_by_its_own_draw():
    """The residual branches, read off as what a block adds: none is zero in the first block, rate 0."""
    model, variables, rows = micro(drop_path_rate=0.5), perturbed(), 64
    seen = ("norm2", "block0", "block1")
    apply = functools.partial(
        model.apply, train=True, capture_intermediates=lambda module, _: module.name in seen
    )
    _, state = jax.jit(apply)(variables, pictures(16, 16, batch=rows), rngs={"dropout": jax.random.key(0)})
    first, second = (state["intermediates"]["stage1"][name]["__call__"][0] for name in ("block0", "block1"))
    moved = np.asarray(jnp.abs(second - first).max(axis=(1, 2, 3)))
    # The last block has rate 0.5 in both branches: a quarter of the examples pass it unchanged.
    assert (moved == 0).mean() == pytest.approx(0.25, abs=0.15)


def test_randomness_is_a_function_of_the_key():
    model, images = micro(drop_path_rate=0.5, drop_rate=0.1, attn_drop_rate=0.1), pictures(16, 16, batch=8)
    first, again, other = (train(model, perturbed(), images, key) for key in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 1e-3


def test_rates_of_zero_draw_nothing():
    model, variables, images = micro(), perturbed(), pictures(16, 16)
    trained = jax.jit(lambda v, x: model.apply(v, x, train=True))(variables, images)
    np.testing.assert_allclose(trained, run(model, variables, images), atol=1e-6)


# Types


def equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_bfloat16_is_used_for_products_and_float32_for_norms_softmax_and_head():
    model = micro(dtype=jnp.bfloat16)
    variables = perturbed()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    traced = jax.make_jaxpr(lambda v, x: model.apply(v, x))(variables, pictures(32, 32))
    by_name: dict[str, list[Any]] = {}
    for equation in equations(traced.jaxpr):
        by_name.setdefault(equation.primitive.name, []).append(equation)
    products = [[operand.aval.dtype for operand in equation.invars] for equation in by_name["dot_general"]]
    wide = [operands for operands in products if operands != [jnp.bfloat16, jnp.bfloat16]]
    assert wide == [[jnp.float32, jnp.float32]]  # the head
    assert len(products) == 1 + 4 * 6 + 1 + 1  # patches; qkv, scores, values, output, MLP; merging; head
    for name in ("exp", "rsqrt", "erf"):
        assert {equation.invars[0].aval.dtype for equation in by_name[name]} == {jnp.dtype("float32")}, name
    assert traced.out_avals[0].dtype == jnp.float32


def test_the_residual_stream_is_bfloat16():
    model = micro(dtype=jnp.bfloat16, drop_path_rate=0.3, drop_rate=0.1, attn_drop_rate=0.1)
    parts = ("SwinBlock", "PatchMerging", "PatchEmbed")
    apply = functools.partial(
        model.apply, train=True, capture_intermediates=lambda module, _: type(module).__name__ in parts
    )
    rngs = {"dropout": jax.random.key(0)}
    _, state = jax.eval_shape(apply, perturbed(), pictures(32, 32), rngs=rngs)
    assert {leaf.dtype for leaf in jax.tree.leaves(state["intermediates"])} == {jnp.dtype(jnp.bfloat16)}


def test_bfloat16_stays_near_float32():
    variables = jax.jit(micro().init)(jax.random.key(0), pictures(32, 32))
    images = pictures(32, 32, batch=4)
    exact = run(micro(), variables, images)
    np.testing.assert_allclose(
        run(micro(dtype=jnp.bfloat16), variables, images), exact, atol=0.03 * float(jnp.abs(exact).max())
    )


def test_param_dtype_keeps_bias_tables_in_float32():
    model = micro(param_dtype=jnp.bfloat16)
    tree = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32))
    for path, leaf in _leaves(tree["params"]):
        assert leaf.dtype == (jnp.float32 if path.endswith("table") else jnp.bfloat16), path


# Freezing, layers, recomputation


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 2, 3])
def test_frozen_parts_get_no_gradient_and_say_so(frozen_stages: int):
    fields = {"absolute_position_embedding": True, "absolute_position_size": (16, 16), "features_only": True}
    model = micro(frozen_stages=frozen_stages, **fields)
    images = pictures(16, 16)

    def loss(variables: dict) -> jax.Array:
        return sum((value**2 * pictures(1, 1)[0, 0, 0, 0]).sum() for value in model.apply(variables, images))

    gradients = jax.jit(jax.grad(loss))(perturbed(**fields))["params"]
    parts = [("patch_embed",), ("absolute_pos_embed",), ("stage0",), ("stage1",)]
    expected = [name for names in parts[: frozen_stages + 1] for name in names]
    for path, value in _leaves(gradients):
        frozen = path.split("/")[0] in expected
        assert model.frozen(path) == frozen, path
        assert bool((value == 0).all()) == frozen, path


def test_frozen_stages_run_as_in_evaluation():
    model = micro(depths=(2,), num_heads=(2,), frozen_stages=2, drop_path_rate=0.5, drop_rate=0.5)
    variables = perturbed(depths=(2,), num_heads=(2,))
    images = pictures(16, 16)
    np.testing.assert_allclose(train(model, variables, images), run(model, variables, images), atol=1e-6)


def test_layer_of_every_parameter():
    model = micro(depths=(2, 3), absolute_position_embedding=True)
    assert model.num_layers == 7
    expected = {
        "patch_embed/proj/kernel": 0,
        "absolute_pos_embed": 0,
        "mask_token": 0,
        "stage0/block0/norm1/scale": 1,
        "stage0/block1/attn/qkv/kernel": 2,
        "stage0/downsample/reduction/kernel": 2,
        "stage1/block0/mlp/fc1/bias": 3,
        "stage1/block2/attn/relative_position_bias_table": 5,
        "norm/scale": 6,
        "head/kernel": 6,
        "decoder/kernel": 6,
    }
    assert {path: model.layer_of(path) for path in expected} == expected
    assert {model.layer_of(path) for path in shapes(model)} == set(range(7))


@pytest.mark.parametrize("remat", REMAT_POLICIES)
def test_recomputation_changes_no_number(remat: str):
    rates = {"drop_path_rate": 0.3, "drop_rate": 0.1, "attn_drop_rate": 0.1}
    images = pictures(16, 16)

    def gradients(model: SwinTransformer) -> dict:
        def loss(variables: dict) -> jax.Array:
            return (
                model.apply(variables, images, train=True, rngs={"dropout": jax.random.key(3)}) ** 2
            ).sum()

        return jax.jit(jax.grad(loss))(perturbed())

    plain, again = gradients(micro(**rates)), gradients(micro(**rates, remat=remat))
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain))
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * largest)


def test_recomputation_keeps_less_for_the_backward_pass():
    """Bytes that the forward pass hands to the backward pass. XLA keeps to that on TPU and GPU; its CPU compiler
    merges the recomputation with the original again, so that compiled memory says nothing there."""
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)

    def kept(remat: str | None) -> tuple[int, list[tuple[int, ...]]]:
        model = micro(depths=(2,), num_heads=(2,), remat=remat)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        residuals = jax.eval_shape(lambda v, x: jax.vjp(lambda v: model.apply(v, x), v)[1], variables, images)
        leaves = jax.tree.leaves(residuals)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves), [leaf.shape for leaf in leaves]

    policies = ("full", "weight_dots", "dots", None)
    assert set(policies) == {*REMAT_POLICIES, None}
    sizes, maps = zip(*(kept(remat) for remat in policies), strict=True)
    assert list(sizes) == sorted(set(sizes)), dict(zip(policies, sizes, strict=True))
    hidden = (2, 8, 8, 4 * micro().embed_dim)  # of the MLP
    assert [hidden in found for found in maps] == [False, True, True, True]


@pytest.mark.parametrize("remat", [None, "weight_dots"])
@pytest.mark.parametrize("depth", [4, 5])
def test_scanned_blocks_give_the_numbers_gradients_and_draws_of_the_loop(depth: int, remat: str | None):
    shape = {"depths": (2, depth), "window_size": 2, "drop_path_rate": 0.5}
    variables, images = perturbed(**shape), pictures(24, 24, batch=4)

    def step(model: SwinTransformer) -> tuple[jax.Array, dict]:
        def loss(variables: dict) -> tuple[jax.Array, jax.Array]:
            logits = model.apply(variables, images, train=True, rngs={"dropout": jax.random.key(3)})
            return (logits**2).sum(), logits

        (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)
        return logits, gradients

    loop, scanned = step(micro(**shape)), step(micro(**shape, scan=True, remat=remat))
    for ours, theirs in zip(jax.tree.leaves(scanned), jax.tree.leaves(loop), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_a_scanned_stage_is_traced_as_one_pair():
    def products(scan: bool) -> int:
        model, variables = (
            micro(depths=(6,), num_heads=(2,), scan=scan),
            perturbed(depths=(6,), num_heads=(2,)),
        )
        return sum(
            equation.primitive.name == "dot_general"
            for equation in equations(jax.make_jaxpr(model.apply)(variables, pictures(16, 16)).jaxpr)
        )

    assert products(False) == 1 + 6 * 6 + 1
    assert products(True) == 1 + 2 * 6 + 1


def test_full_recomputation_runs_the_blocks_again():
    def products(remat: str | None) -> int:
        model = micro(remat=remat)
        step = jax.grad(lambda v: model.apply(v, pictures(16, 16)).sum())
        text = str(jax.make_jaxpr(step)(perturbed()))
        return text.count("dot_general")

    assert products("full") > products(None)
    assert products("full") > products("dots")


def test_constrain_is_called_after_the_embedding_and_every_block():
    seen = []

    def constrain(x: jax.Array) -> jax.Array:
        seen.append(x.shape)
        return x

    jax.eval_shape(micro(constrain=constrain).apply, perturbed(), pictures(16, 16))
    assert seen == [(2, 4, 4, 8)] * 3 + [(2, 2, 2, 16)] * 2


# Bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embed_dim": 9}, r"num_heads\[0\] must divide the 9 channels of stage 0, got 2"),
        (
            {"num_heads": (2,)},
            r"num_heads must have one entry per stage: depths \(2, 2\) has 2, num_heads \(2,\) has 1",
        ),
        ({"depths": (2, 0)}, r"depths\[1\] must be an integer of at least 1, got 0"),
        ({"window_size": 0}, "window_size must be an integer of at least 1, got 0"),
        ({"drop_path_rate": 1.0}, "drop_path_rate must be a number of at least 0 and below 1, got 1.0"),
        ({"mlp_ratio": 0}, "mlp_ratio must be a number above 0, got 0"),
        (
            {"window_policy": "clasification"},
            "window_policy must be one of .*; did you mean 'classification'?",
        ),
        (
            {"scan": True, "drop_rate": 0.1},
            "scan draws for drop path alone: with it drop_rate and attn_drop_rate ",
        ),
        ({"remat": "dot"}, "remat must be one of full, dots, weight_dots, got 'dot'; did you mean 'dots'?"),
        (
            {"implementation": "pallas"},
            "implementation must be one of auto, xla, pallas_tpu, .*, got 'pallas'",
        ),
        ({"frozen_stages": 4}, "frozen_stages must be an integer from -1 to 3, got 4"),
        ({"out_indices": (1, 0)}, r"out_indices must be ascending stages below 2, got \(1, 0\)"),
        ({"out_indices": (2,)}, r"out_indices must be ascending stages below 2, got \(2,\)"),
        (
            {"absolute_position_size": (224,)},
            r"absolute_position_size must be \(height, width\), got \(224,\)",
        ),
        ({"dtype": "float3"}, "dtype must be a floating point type, got 'float3'"),
        ({"param_dtype": "int32"}, "param_dtype must be a floating point type, got 'int32'"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        micro(**fields)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("depths", 4, "depths must be a tuple of integers, got 4"),
        ("embed_dim", "96", "embed_dim must be an integer of at least 1, got '96'"),
        ("num_classes", True, "num_classes must be an integer of at least 0, got True"),
        ("mlp_ratio", "4", "mlp_ratio must be a number above 0, got '4'"),
        ("drop_rate", None, "drop_rate must be a number of at least 0 and below 1, got None"),
    ],
)
def test_fields_of_another_type_are_refused(field: str, value: object, message: str):
    model = micro()
    object.__setattr__(model, field, value)  # around the type checks that only tests have
    with pytest.raises(ValueError, match=message):
        checks.check_swin(model, ())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((2, 16, 16, 1), np.float32),
            r"images must be \[batch, height, width, 3\] .* got shape \(2, 16, 16, 1\)",
        ),
        (
            np.zeros((16, 16, 3), np.float32),
            r"images must be \[batch, height, width, 3\] .* got shape \(16, 16, 3\)",
        ),
        (np.zeros((2, 16, 16, 3), np.uint8), "images must be normalised floats, got uint8"),
    ],
)
def test_pictures_of_another_kind_are_refused(images: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        micro().apply(perturbed(), images)


def test_lists_from_a_config_are_taken():
    model = micro(depths=[1, 1], num_heads=[1, 2])
    assert model.depths == (1, 1)
    hash(model)
