"""The state of a run and the jitted step that advances it.

A run is a pure function of (config, step): everything random at step t comes from `fold_in(key(seed), t)` and
is drawn for the whole global batch, so neither the number of devices nor a restart changes it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from swin_jax.ops.target import for_mesh
from swin_jax.tasks.task import Task, Terms
from swin_jax.training import ema as averages
from swin_jax.training.ema import Ema
from swin_jax.training.sharding import batch_sharding, replicated


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a checkpoint holds. No iterator, no random state: both follow from the step.

    Also the shape of a tree of its `ShapeDtypeStruct`s or shardings.
    """

    step: Any  # int32 [], the number of steps taken
    params: Any
    model_state: Any  # what the model carries besides parameters, e.g. batch statistics; {} for Swin
    opt_state: Any
    # The averages of both, float32; None in a run that keeps none.
    ema_params: Any = None
    ema_model_state: Any = None
    # int32 [], how many of the steps changed nothing for not being finite
    skipped: Any = dataclasses.field(default_factory=lambda: np.zeros((), np.int32))


def abstract_state(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    seed: int,
    *,
    with_ema: bool = False,
) -> TrainState:
    """Shapes and dtypes of the state; nothing is allocated."""
    return jax.eval_shape(lambda key: _create(task, optimizer, key, with_ema), key_data(seed))


def create_state(
    task: Task, optimizer: optax.GradientTransformationExtraArgs, seed: int, shardings: TrainState
) -> TrainState:
    """A fresh state, created where it lives: no device ever holds more than its share."""
    with_ema = shardings.ema_params is not None

    def create(key: jax.Array) -> TrainState:
        return _create(task, optimizer, key, with_ema)

    mesh = shardings.step.mesh
    return jax.jit(for_mesh(mesh, create), out_shardings=shardings)(key_data(seed))


def key_data(seed: int) -> np.ndarray:
    """The key of a run as uint32 [2]: an input of programs that runs of all seeds share in the compile cache."""
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def _create(
    task: Task, optimizer: optax.GradientTransformationExtraArgs, key: jax.Array | np.ndarray, with_ema: bool
) -> TrainState:
    params, model_state = task.init(jax.random.wrap_key_data(jnp.asarray(key)))
    ema_params, ema_model_state = averages.begin((params, model_state)) if with_ema else (None, None)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        ema_params=ema_params,
        ema_model_state=ema_model_state,
        skipped=jnp.zeros((), jnp.int32),
    )


def begin_with(
    state: TrainState, params: Any, shardings: TrainState, *, model_state: Any = None
) -> TrainState:
    """A fresh state that begins with these parameters (and model state, unless None), as does its average."""
    model_state = state.model_state if model_state is None else model_state
    if state.ema_params is None:
        return dataclasses.replace(state, params=params, model_state=model_state)
    places = shardings.ema_params, shardings.ema_model_state
    average, average_state = jax.jit(averages.begin, out_shardings=places)((params, model_state))
    return dataclasses.replace(
        state, params=params, model_state=model_state, ema_params=average, ema_model_state=average_state
    )


Batch = Mapping[str, jax.Array]


@runtime_checkable
class TrainStep(Protocol):
    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]: ...


@dataclasses.dataclass(frozen=True)
class SeededStep:
    """A jitted step with the key of its run."""

    jitted: Any
    key: np.ndarray

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        return self.jitted(state, batch, self.key)

    def trace(self, state: TrainState, batch: Mapping[str, Any]) -> Any:
        """`jax.stages.Traced`; what is compiled of it takes `state, batch, key`."""
        return self.jitted.trace(state, batch, self.key)


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    mesh: Mesh,
    shardings: TrainState,
    seed: int,
    learning_rate: Callable[[jax.Array], jax.Array],
    accumulation: int = 1,
    ema: Ema | None = None,
) -> SeededStep:
    """The jitted step `(state, batch) -> (state, report)`; the state it is given is donated.

    The gradient is that of `sum over terms of (sum of numerators / sum of denominators)`, both sums over the
    whole global batch: splitting it over devices or into `accumulation` micro-batches does not change it, but that
    batch norms take the statistics of a micro-batch.
    A step whose loss or gradient is not finite leaves parameters, moments and average as they were and says so.

    Report (device arrays): `loss`, `learning_rate`, `grad_norm`, `finite`, `skipped_steps` (of the run, with
    this one) scalars; `terms/<name>` and the
    task's metrics as scalars; `grad_norms` and `param_norms`, one f32 per parameter tensor, in tree order.
    """

    def step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, dict[str, Any]]:
        of_step = jax.random.fold_in(jax.random.wrap_key_data(key), state.step)
        augment_key, model_key = jax.random.split(of_step)
        batch = task.augment(batch, augment_key)
        gradients, terms, metrics, model_state = global_gradients(
            task, state.params, state.model_state, batch, model_key, accumulation=accumulation
        )
        loss = total(terms)
        grad_norms = tensor_norms(gradients)
        grad_norm = jnp.linalg.norm(grad_norms)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)

        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, step=state.step)
        params = optax.apply_updates(state.params, updates)
        average = (state.ema_params, state.ema_model_state)
        if ema is not None:
            average = ema.update(average, (params, model_state), state.step)
        advanced = dataclasses.replace(
            state,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema_params=average[0],
            ema_model_state=average[1],
        )
        new_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), advanced, state)
        skipped = state.skipped + ~finite
        report = {
            "loss": loss,
            "learning_rate": learning_rate(state.step),
            "grad_norm": grad_norm,
            "finite": finite,
            "skipped_steps": skipped,
            "grad_norms": grad_norms,
            "param_norms": tensor_norms(state.params),
            **{f"terms/{name}": ratio(pair) for name, pair in terms.items()},
            **{name: ratio(pair) for name, pair in metrics.items()},
        }
        return dataclasses.replace(new_state, step=state.step + 1, skipped=skipped), report

    jitted = jax.jit(
        for_mesh(mesh, step),
        in_shardings=(shardings, batch_sharding(mesh), replicated(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
    return SeededStep(jitted, key_data(seed))


def ratio(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Numerator over denominator; 0 where nothing was counted."""
    numerator, denominator = pair
    return numerator / jnp.maximum(denominator, jnp.finfo(jnp.float32).tiny)


def total(terms: Terms) -> jax.Array:
    return jnp.sum(jnp.stack([ratio(pair) for pair in terms.values()]))


def tensor_norms(tree: Any) -> jax.Array:
    """The L2 norm of each leaf, f32 [number of leaves], in tree order."""
    return jnp.stack([jnp.linalg.norm(leaf.astype(jnp.float32).ravel()) for leaf in jax.tree.leaves(tree)])


def global_gradients(
    task: Task, params: Any, model_state: Any, batch: Batch, key: jax.Array, *, accumulation: int
) -> tuple[Any, Terms, Terms, Any]:
    """Exact gradients of the global batch: `(gradients, terms, metrics, model_state)`.

    With one term the gradient of its numerator is divided by the denominator at the end, so that a single
    all-reduce carries gradients, loss and counts. With several terms the denominators have to be known before
    the backward pass: a batch that is not split counts its own, otherwise a forward pass over the micro-batches
    counts them first.
    """
    micro = micro_batches(batch, accumulation)

    def forward(
        params: Any, model_state: Any, index: jax.Array, rows: Batch
    ) -> tuple[Terms, tuple[Terms, Any]]:
        terms, aux = task.loss(params, model_state, rows, jax.random.fold_in(key, index))
        return terms, (aux.metrics, aux.model_state)

    def numerators_over(denominators: Terms | None) -> Callable[..., Any]:
        def scalar(params: Any, model_state: Any, index: jax.Array, rows: Batch) -> tuple[jax.Array, Any]:
            terms, (metrics, new_state) = forward(params, model_state, index, rows)
            if len(terms) == 1:
                objective = jnp.sum(jnp.stack([numerator for numerator, _ in terms.values()]))
            else:
                counted = jax.lax.stop_gradient(terms if denominators is None else denominators)
                objective = total({name: (pair[0], counted[name][1]) for name, pair in terms.items()})
            return objective, (terms, metrics, new_state)

        return jax.grad(scalar, has_aux=True)

    indices = jnp.arange(accumulation)
    names = list(jax.eval_shape(lambda: forward(params, model_state, indices[0], first(micro)))[0])
    denominators = None
    if len(names) > 1 and accumulation > 1:
        denominators = accumulate(
            lambda state, index, rows: _drop_state(*forward(params, state, index, rows)),
            model_state,
            indices,
            micro,
        )[0]
    gradient = numerators_over(denominators)

    def one(state: Any, index: jax.Array, rows: Batch) -> tuple[Any, Any]:
        gradients, (terms, metrics, new_state) = gradient(params, state, index, rows)
        return (gradients, terms, metrics), new_state

    (gradients, terms, metrics), model_state = accumulate(one, model_state, indices, micro)
    if len(names) == 1:
        (_, denominator) = terms[names[0]]
        gradients = jax.tree.map(lambda g: ratio((g, denominator)), gradients)
    return gradients, terms, metrics, model_state


def _drop_state(terms: Terms, rest: tuple[Terms, Any]) -> tuple[Terms, Any]:
    return terms, rest[1]


def micro_batches(batch: Batch, accumulation: int) -> Batch:
    """Rows r, r + A, r + 2A, ... form micro-batch r: every device has its share of each, and the split does
    not depend on the number of devices. Arrays become [A, B / A, ...]."""
    if accumulation == 1:
        return {name: rows[None] for name, rows in batch.items()}

    def split(rows: jax.Array) -> jax.Array:
        groups = rows.reshape(rows.shape[0] // accumulation, accumulation, *rows.shape[1:])
        return jnp.moveaxis(groups, 1, 0)

    return {name: split(rows) for name, rows in batch.items()}


def first(micro: Batch) -> Batch:
    return {name: rows[0] for name, rows in micro.items()}


def accumulate(
    function: Callable[[Any, jax.Array, Batch], tuple[Any, Any]],
    model_state: Any,
    indices: jax.Array,
    micro: Batch,
) -> tuple[Any, Any]:
    """Sums `function`'s first result over the micro-batches, handing the model state from one to the next."""
    if len(indices) == 1:
        return function(model_state, indices[0], first(micro))

    def body(carry: tuple[Any, Any], item: tuple[jax.Array, Batch]) -> tuple[tuple[Any, Any], None]:
        sums, state = carry
        result, state = function(state, *item)
        return (jax.tree.map(jnp.add, sums, result), state), None

    shapes = jax.eval_shape(function, model_state, indices[0], first(micro))[0]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(body, (zeros, model_state), (indices, micro))[0]
