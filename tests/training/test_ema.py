"""The average of the parameters: its formula, its place in the step, what skipped steps and donation do to it."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.tasks.task import Aux, Batch, Predictions, Scorer, Terms
from swin_jax.training.ema import Ema
from swin_jax.training.optimizer import make_optimizer
from swin_jax.training.schedules import make_schedule
from swin_jax.training.sharding import make_mesh, put_batch, state_shardings
from swin_jax.training.state import TrainState, abstract_state, begin_with, create_state, make_train_step

SCHEDULE = make_schedule("constant", peak=1e-2, total_steps=100)
WIDE = 160


class Regression:
    """Least squares with a running mean of the inputs, a counter and half-precision parameters."""

    batch_fields: Mapping[str, Any] = {"x": ((128,), "float32")}
    batch_shapes = (batch_fields,)
    predict_fields = ("x",)
    best_metric = "square"
    sheet_rows = 1
    panels = ()
    model = None

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        params = {"kernel": jax.random.normal(key, (128, WIDE)), "bias": jnp.zeros(WIDE, jnp.bfloat16)}
        return params, {"mean": jnp.zeros(()), "count": jnp.zeros((), jnp.int32)}

    def augment(self, batch: Batch, key: jax.Array) -> Batch:
        return batch

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array) -> tuple[Terms, Aux]:
        error = (batch["x"] @ params["kernel"] + params["bias"][None] - 1.0) ** 2
        new = {"mean": model_state["mean"] + batch["x"].mean(), "count": model_state["count"] + 1}
        return {"square": (error.sum(), jnp.float32(error.size))}, Aux({}, new)

    def views(self, batch: Batch) -> Iterable[Batch]:
        return [batch]

    def predict(self, params: Any, model_state: Any, batch: Batch) -> Predictions:
        return {}

    def merge(self, predictions: Iterable[Predictions]) -> Predictions:
        return {}

    def scorer(self, truth: Any = None) -> Scorer:
        raise NotImplementedError

    def draw(self, batch: Any, predictions: Any, truth: Any = None) -> dict[str, np.ndarray]:
        return {}


def rows(step: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(step).standard_normal((8, 128)).astype(np.float32)}


def make(ema: Ema | None, *, devices: int = 1, fsdp: int = 1) -> tuple[Any, TrainState, Any, Any]:
    """`(step, state, shardings, mesh)`."""
    mesh = make_mesh(fsdp=fsdp, devices=jax.devices()[:devices])
    task = Regression()
    optimizer = make_optimizer(jax.eval_shape(task.init, jax.random.key(0))[0], schedule=SCHEDULE)
    shardings = state_shardings(abstract_state(task, optimizer, 0, with_ema=ema is not None), mesh)
    state = create_state(task, optimizer, 0, shardings)
    step = make_train_step(
        task, optimizer, mesh=mesh, shardings=shardings, seed=0, learning_rate=SCHEDULE, ema=ema
    )
    return step, state, shardings, mesh


def on_host(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        ("", {0: 0.99, 1: 0.99, 5000: 0.99}),
        # (1 + t) / (10 + t)
        ("ratio", {0: 0.1, 1: 2 / 11, 80: 81 / 90, 890: 891 / 900, 5000: 0.99}),
        # 1 - (1 + t)^(-2/3): 1 - 1, 1 - 1/4 at t = 7, 1 - 1/100 at t = 999
        ("power", {0: 0.0, 7: 0.75, 999: 0.99, 5000: 0.99}),
    ],
)
def test_decay_of_each_update(warmup: str, expected: dict[int, float]) -> None:
    ema = Ema(0.99, warmup)
    for step, decay in expected.items():
        assert float(ema.decay_at(jnp.int32(step))) == pytest.approx(decay, abs=1e-6), step


@pytest.mark.parametrize(
    ("decay", "warmup", "message"),
    [
        (1.0, "", "ema.decay is 1.0; expected above 0 and below 1, or 0 for no average"),
        (-0.1, "", "ema.decay is -0.1"),
        (0.0, "ratio", "ema.decay is 0.0"),
        (0.9, "linear", "ema.warmup is 'linear'; expected one of '', 'ratio', 'power'"),
    ],
)
def test_bad_options_are_named(decay: float, warmup: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ema(decay, warmup)


@pytest.mark.parametrize("warmup", ["", "ratio"])
def test_the_average_follows_its_formula_over_a_skipped_step(warmup: str) -> None:
    """In float64 on the host, from the parameters the run had after each step."""
    ema = Ema(0.9, warmup)
    step, state, _, mesh = make(ema)
    expected = on_host((state.params, state.model_state))
    for index in range(5):
        batch = rows(index)
        if index == 2:
            batch["x"][0, 0] = np.nan
        state, report = step(state, put_batch(batch, mesh))
        assert bool(report["finite"]) == (index != 2)
        if index == 2:
            continue
        decay = 0.9 if not warmup else min(0.9, (1 + index) / (10 + index))
        new = on_host((state.params, state.model_state))
        expected = jax.tree.map(lambda old, leaf: decay * old + (1 - decay) * leaf, expected, new)  # noqa: B023
        expected[1]["count"] = new[1]["count"]
    got = on_host((state.ema_params, state.ema_model_state))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), got, expected)
    assert state.ema_params["bias"].dtype == jnp.float32  # of a bfloat16 parameter
    assert int(state.ema_model_state["count"]) == 4  # no number to average
    assert np.abs(got[0]["kernel"] - on_host(state.params["kernel"])).max() > 1e-3
    assert int(state.skipped) == int(report["skipped_steps"]) == 1


def test_a_skipped_step_leaves_the_average_bit_for_bit() -> None:
    step, state, _, mesh = make(Ema(0.9))
    state, _ = step(state, put_batch(rows(0), mesh))
    before = jax.tree.map(np.asarray, (state.ema_params, state.ema_model_state))
    bad = rows(1)
    bad["x"][3] = np.inf
    state, _ = step(state, put_batch(bad, mesh))
    jax.tree.map(np.testing.assert_array_equal, before, (state.ema_params, state.ema_model_state))


def test_the_whole_state_is_donated() -> None:
    """Its arguments' memory becomes its results': no second copy of parameters, moments or average."""
    step, state, _, mesh = make(Ema(0.9))
    batch = put_batch(rows(0), mesh)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    analysis = step.trace(state, batch).lower().compile().memory_analysis()
    assert analysis.alias_size_in_bytes == size
    assert size > 4 * 128 * WIDE * 4  # parameters, two moments, average
    old = state
    state, _ = step(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))


def test_the_average_is_split_as_the_parameters_are() -> None:
    _, state, _, _ = make(Ema(0.9), devices=8, fsdp=4)
    assert state.params["kernel"].sharding.spec == jax.sharding.PartitionSpec(None, "fsdp")
    assert state.ema_params["kernel"].sharding == state.params["kernel"].sharding


def test_begun_with_other_parameters_the_average_begins_there_and_both_can_be_donated() -> None:
    step, state, shardings, mesh = make(Ema(0.5))
    others = jax.tree.map(lambda leaf: leaf + 1, state.params)
    state = begin_with(state, others, shardings)
    jax.tree.map(np.testing.assert_array_equal, on_host(state.ema_params), on_host(others))
    begun = on_host(others["kernel"])
    after, report = step(state, put_batch(rows(0), mesh))
    assert report["finite"]
    middle = (begun + on_host(after.params["kernel"])) / 2
    np.testing.assert_allclose(on_host(after.ema_params["kernel"]), middle, rtol=1e-6)


def test_a_run_without_keeps_none() -> None:
    step, state, shardings, mesh = make(None)
    assert state.ema_params is None
    assert begin_with(state, state.params, shardings).ema_params is None
    state, _ = step(state, put_batch(rows(0), mesh))
    assert jax.tree.leaves((state.ema_params, state.ema_model_state)) == []
