"""Updates against numpy written from the papers' formulas; which parameter falls under which rule."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swin_jax import experiment
from swin_jax.config import base_config
from swin_jax.models.registry import create_model
from swin_jax.training.optimizer import (
    NO_DECAY_CLASSIFICATION,
    NO_DECAY_DENSE,
    groups_table,
    make_optimizer,
    parameter_groups,
    parameter_rules,
)
from swin_jax.training.schedules import make_schedule

SHAPES = {
    "patch_embed": {"proj": {"kernel": (2, 2, 3, 4), "bias": (4,)}, "norm": {"scale": (4,), "bias": (4,)}},
    "stage": {
        "attention": {"qkv": {"kernel": (4, 12), "bias": (12,)}, "relative_position_bias_table": (9, 2)},
        "norm1": {"scale": (4,)},
        "gates": {"bias": (2, 4)},
    },
    "absolute_pos_embed": (1, 2, 2, 4),
    "head": {"kernel": (4, 3), "bias": (3,)},
}
IS_SHAPE = {"is_leaf": lambda x: isinstance(x, tuple)}
SCHEDULE = make_schedule("cosine", peak=0.1, total_steps=8, warmup_steps=2, warmup_start=0.01, end=0.001)


def tree(seed, scale=1.0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(scale * rng.standard_normal(s), dtype), SHAPES, **IS_SHAPE)


def flat(values):
    leaves = jax.tree_util.tree_leaves_with_path(values)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf, np.float64)
        for path, leaf in leaves
    }


def run(optimizer, params, gradients):
    """The parameters and the state after an update with each of `gradients`, at steps 0, 1, ..."""
    state = jax.jit(optimizer.init)(params)

    @jax.jit
    def advance(params, state, gradient, step):
        updates, state = optimizer.update(gradient, state, params, step=step)
        return optax.apply_updates(params, updates), state

    for step, gradient in enumerate(gradients):
        params, state = advance(params, state, gradient, step)
    return params, state


def clipped(gradient, bound):
    norm = math.sqrt(sum(np.sum(g**2) for g in gradient.values()))
    return {path: g * min(1, bound / norm) for path, g in gradient.items()}


def rate(step):
    """Independent of the schedule under test elsewhere: warm-up of 2, cosine over 6."""
    if step < 2:
        return 0.01 + 0.09 * step / 2
    return 0.001 + 0.099 * (1 + math.cos(math.pi * (step - 2) / 6)) / 2


DECAYED = {"patch_embed/proj/kernel", "stage/attention/qkv/kernel", "head/kernel"}


def test_adamw_with_clip_follows_the_formula():
    params, gradients = tree(0), [tree(seed, scale=3.0) for seed in range(1, 6)]
    optimizer = make_optimizer(params, schedule=SCHEDULE, weight_decay=0.05, clip_norm=5.0)
    got, _ = run(optimizer, params, gradients)
    want = flat(params)
    m = {path: np.zeros_like(p) for path, p in want.items()}
    v = {path: np.zeros_like(p) for path, p in want.items()}
    for t, gradient in enumerate(gradients):
        for path, g in clipped(flat(gradient), 5.0).items():
            m[path] = 0.9 * m[path] + 0.1 * g
            v[path] = 0.999 * v[path] + 0.001 * g**2
            adam = m[path] / (1 - 0.9 ** (t + 1)) / (np.sqrt(v[path] / (1 - 0.999 ** (t + 1))) + 1e-8)
            want[path] -= rate(t) * (adam + 0.05 * want[path] * (path in DECAYED))
    for path, value in flat(got).items():
        np.testing.assert_allclose(value, want[path], rtol=2e-5, atol=2e-6, err_msg=path)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_follows_the_formula(nesterov):
    params, gradients = tree(0), [tree(seed) for seed in range(1, 6)]
    optimizer = make_optimizer(
        params, schedule=SCHEDULE, name="sgd", weight_decay=0.1, momentum=0.8, nesterov=nesterov, clip_norm=2
    )
    got, _ = run(optimizer, params, gradients)
    want = flat(params)
    velocity = {path: np.zeros_like(p) for path, p in want.items()}
    for t, gradient in enumerate(gradients):
        for path, g in clipped(flat(gradient), 2.0).items():
            g = g + 0.1 * want[path] * (path in DECAYED)
            velocity[path] = 0.8 * velocity[path] + g
            want[path] -= rate(t) * (g + 0.8 * velocity[path] if nesterov else velocity[path])
    for path, value in flat(got).items():
        np.testing.assert_allclose(value, want[path], rtol=2e-5, atol=2e-6, err_msg=path)


def test_gradients_below_the_bound_are_left_alone():
    params, gradient = tree(0), tree(1)
    loose, _ = run(make_optimizer(params, schedule=SCHEDULE, clip_norm=1e6, eps=1e-2), params, [gradient])
    never, _ = run(make_optimizer(params, schedule=SCHEDULE, clip_norm=None, eps=1e-2), params, [gradient])
    jax.tree.map(np.testing.assert_array_equal, loose, never)


def test_state_is_float32_for_half_precision_parameters():
    params = tree(0, dtype=jnp.bfloat16)
    got, state = run(
        make_optimizer(params, schedule=SCHEDULE, clip_norm=1.0), params, [tree(1, dtype=jnp.bfloat16)]
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}
    floating = [leaf.dtype for leaf in jax.tree.leaves(state) if leaf.dtype != jnp.int32]
    assert len(floating) == 2 * len(jax.tree.leaves(params))
    assert set(floating) == {jnp.dtype(jnp.float32)}


def test_frozen_parameters_stand_still_have_no_state_and_do_not_count_in_the_clip():
    params, gradient = tree(0), tree(1)
    frozen = (r"^patch_embed/", r"^stage/attention/")
    # A frozen parameter's huge gradient must not shrink the others' clipped ones.
    gradient["patch_embed"] = jax.tree.map(lambda g: 1e6 * g, gradient["patch_embed"])
    optimizer = make_optimizer(params, schedule=SCHEDULE, clip_norm=0.1, eps=1e-2, frozen=frozen)
    got, state = run(optimizer, params, [gradient])
    rest = {key: value for key, value in params.items() if key != "patch_embed"}
    rest["stage"] = {key: value for key, value in rest["stage"].items() if key != "attention"}
    alone_gradient = {key: gradient[key] for key in rest} | {
        "stage": {key: gradient["stage"][key] for key in rest["stage"]}
    }
    alone, _ = run(make_optimizer(rest, schedule=SCHEDULE, clip_norm=0.1, eps=1e-2), rest, [alone_gradient])
    before, after, alone = flat(params), flat(got), flat(alone)
    for path in before:
        if path.startswith(("patch_embed/", "stage/attention/")):
            np.testing.assert_array_equal(after[path], before[path], err_msg=path)
        else:
            np.testing.assert_array_equal(after[path], alone[path], err_msg=path)
            assert np.any(after[path] != before[path])
    moments = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.float32)
    assert moments == 2 * sum(leaf.size for leaf in jax.tree.leaves(rest))


def layer_of(path):
    return {"patch_embed": 0, "absolute_pos_embed": 0, "stage": 1, "head": 2}[path.split("/")[0]]


def test_layer_decay_scales_the_peak_only():
    params, gradient = tree(0), tree(1)
    gradients = [gradient] * 3
    options = {"weight_decay": 0.0, "clip_norm": None}
    plain = make_optimizer(params, schedule=SCHEDULE, **options)
    scaled = make_optimizer(params, schedule=SCHEDULE, **options, layer_decay=0.5, layer_of=layer_of)
    # The same gradient each time: AdamW moves by the rate in the gradient's direction.
    moved = [flat(run(scaled, params, gradients[:n])[0]) for n in (0, 1, 2, 3)]
    reference = [flat(run(plain, params, gradients[:n])[0]) for n in (0, 1, 2, 3)]
    for path, factor in (("head/kernel", 1.0), ("stage/norm1/scale", 0.5), ("patch_embed/norm/bias", 0.25)):
        first = np.mean(np.abs(moved[1][path] - moved[0][path]))
        third = np.mean(np.abs(moved[3][path] - moved[2][path]))
        assert first == pytest.approx(0.01, rel=1e-3), "the warm-up's start is not scaled"
        assert third == pytest.approx(0.1 * factor, rel=1e-3)
    np.testing.assert_array_equal(moved[3]["head/kernel"], reference[3]["head/kernel"])


@pytest.mark.parametrize("frozen", [(), ("^head",)])
def test_the_rate_is_that_of_the_step_handed_over(frozen):
    # Not that of a count of updates: a step that was skipped must not shift the schedule.
    params, gradient = tree(0), tree(1)
    optimizer = make_optimizer(params, schedule=SCHEDULE, weight_decay=0.0, frozen=frozen)
    state = optimizer.init(params)
    # AdamW's first update without decay is the rate times the gradient's sign: 0.01 at step 0, 0.1 at step 2.
    for step, expected in ((0, 0.01), (2, 0.1)):
        updates, _ = optimizer.update(gradient, state, params, step=jnp.int32(step))
        np.testing.assert_allclose(np.abs(updates["stage"]["norm1"]["scale"]), expected, rtol=1e-4)
    with pytest.raises(TypeError, match="keyword step"):
        optimizer.update(gradient, state, params)


def test_shapes_are_enough_to_build_it():
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), SHAPES, **IS_SHAPE)
    params, gradient = tree(0), tree(1)
    from_shapes, _ = run(make_optimizer(shapes, schedule=SCHEDULE), params, [gradient])
    from_arrays, _ = run(make_optimizer(params, schedule=SCHEDULE), params, [gradient])
    jax.tree.map(np.testing.assert_array_equal, from_shapes, from_arrays)


def test_published_rules_of_decay():
    params = tree(0)
    exempt = {path for path, rule in parameter_rules(params).items() if not rule.decay}
    assert exempt == set(flat(params)) - DECAYED
    # Detection and segmentation: biases decay, everything with norm in its path does not.
    dense = parameter_rules(params, no_decay=NO_DECAY_DENSE, no_decay_1d=False)
    assert {path for path, rule in dense.items() if not rule.decay} == {
        "patch_embed/norm/scale",
        "patch_embed/norm/bias",
        "stage/norm1/scale",
        "stage/attention/relative_position_bias_table",
        "absolute_pos_embed",
    }
    everything = parameter_rules(params, no_decay=(), no_decay_1d=False)
    assert all(rule.decay for rule in everything.values())
    # 1-D alone keeps the 2-D bias and the tables decayed; the pattern alone spares every bias.
    one = parameter_rules(params, no_decay=())
    assert one["stage/gates/bias"].decay
    assert not one["stage/norm1/scale"].decay
    assert not parameter_rules(params, no_decay=NO_DECAY_CLASSIFICATION)["stage/gates/bias"].decay


def test_groups_count_every_value_once():
    params = tree(0)
    rules = parameter_rules(params, frozen=("^head",), layer_decay=0.5, layer_of=layer_of)
    groups = {group.name: group for group in parameter_groups(params, rules)}
    assert {name: (group.tensors, group.values) for name, group in groups.items()} == {
        "no decay, lr x 0.25": (4, 16 + 3 * 4),
        "decay, lr x 0.25": (1, 48),
        "decay, lr x 0.5": (1, 48),
        "no decay, lr x 0.5": (4, 12 + 18 + 4 + 8),
        "frozen": (2, 15),
    }
    text = groups_table(list(groups.values())).splitlines()
    assert text[0].split() == ["parameters", "tensors", "values", "for", "example"]
    assert text[-1].split() == ["total", "12", "181"]
    assert any(line.startswith("frozen") and line.endswith("head/bias") for line in text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adam"}, "optimizer.name is 'adam'; expected one of adamw, sgd"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"clip_norm": float("nan")}, "clip_norm is nan"),
        ({"b2": 1.0}, "b2 is 1.0"),
        ({"frozen": ("stages_0",)}, "frozen pattern 'stages_0' matches no parameter; paths look like "),
        ({"frozen": (".",)}, "leaves no parameter of 12"),
        ({"no_decay": ("(",)}, r"no_decay pattern '\(' is no regular expression"),
        ({"no_decay": "bias"}, "no_decay is the text 'bias'"),
        ({"layer_decay": 0.8}, "no layer_of"),
        ({"layer_decay": 1.5, "layer_of": layer_of}, "layer_decay is 1.5"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(tree(0), schedule=SCHEDULE, **options)


def test_swin_tiny_by_the_published_rule():
    model = create_model("swin_tiny_patch4_window7_224")
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False))
    params = params["params"]
    groups = {group.name: group for group in parameter_groups(params, parameter_rules(params))}
    # By hand: per block qkv, projection and two layers of the MLP, 12 C^2 weights; per merging 4C -> 2C.
    stages = [(96, 2), (192, 2), (384, 6), (768, 2)]
    weights = 4 * 4 * 3 * 96 + 768 * 1000
    weights += sum(depth * 12 * c**2 for c, depth in stages) + sum(8 * c**2 for c, _ in stages[:3])
    assert (groups["decay"].tensors, groups["decay"].values) == (1 + 1 + 4 * 12 + 3, weights)
    # Per block two norms, four biases and the table; per merging one norm; embedding, last norm and head.
    spared = sum(depth * (4 * c + 9 * c + 13**2 * c // 32) for c, depth in stages)
    spared += sum(8 * c for c, _ in stages[:3]) + 3 * 96 + 2 * 768 + 1000
    assert (groups["no decay"].tensors, groups["no decay"].values) == (12 * 9 + 3 * 2 + 3 + 2 + 1, spared)
    assert weights + spared == 28_288_354
    # The dense rule decays the biases too: only norms and tables are exempt.
    dense = parameter_rules(params, no_decay=NO_DECAY_DENSE, no_decay_1d=False)
    dense_groups = {group.name: group.tensors for group in parameter_groups(params, dense)}
    assert dense_groups == {"no decay": 12 * 5 + 3 * 2 + 2 + 2, "decay": 173 - 70}
    # Layer-wise rates: embedding, 12 blocks, head.
    layered = parameter_rules(params, layer_decay=0.8, layer_of=model.layer_of)
    assert {round(math.log(rule.lr_scale, 0.8)) for rule in layered.values()} == set(range(14))
    assert layered["head/kernel"].lr_scale == 1
    assert layered["patch_embed/proj/kernel"].lr_scale == pytest.approx(0.8**13)


def test_swin_tiny_layer_by_layer_from_a_config():
    """SimMIM's rule: embedding 0, each block one more, merging with the block before it, the rest last."""
    config = base_config()
    config.optimizer.layer_decay = 0.8
    config.optimizer.frozen = ("^patch_embed/norm/",)
    task = experiment.make_task(config, tuple(map(str, range(1000))))
    params = jax.eval_shape(task.init, jax.random.key(0))[0]
    rules = parameter_rules(params, **experiment.optimizer_rules(config, task, params))
    found: dict[int, list[int]] = {}
    for rule in rules.values():
        if not rule.frozen:
            exponent = round(math.log(rule.lr_scale) / math.log(0.8))
            assert rule.lr_scale == pytest.approx(0.8**exponent)
            found.setdefault(13 - exponent, [0, 0])[rule.decay] += 1
    # Tensors of each layer without and with weight decay. A block has two norms, four biases, a table; four kernels.
    expected = {0: [1, 1], 13: [2 + 1, 1]} | {layer: [9, 4] for layer in range(1, 13)}
    for last_of_stage in (2, 4, 10):
        expected[last_of_stage] = [9 + 2, 4 + 1]
    assert found == expected
    assert [path for path, rule in rules.items() if rule.frozen] == [
        "patch_embed/norm/bias",
        "patch_embed/norm/scale",
    ]
