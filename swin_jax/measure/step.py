"""A training step as a program: built of a task and an optimizer, on shapes alone."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from swin_jax.tasks.task import Task
from swin_jax.training.ema import Ema
from swin_jax.training.sharding import batch_sharding, state_shardings
from swin_jax.training.state import SeededStep, TrainState, abstract_state, make_train_step


class StepProgram(NamedTuple):
    """The jitted step with the shapes and places of what it takes."""

    step: SeededStep
    state: TrainState  # of jax.ShapeDtypeStruct
    batch: dict[str, jax.ShapeDtypeStruct]
    shardings: TrainState
    mesh: Mesh

    def trace(self) -> Any:
        """The step traced for these shapes: `jax.stages.Traced`."""
        return self.step.trace(self.state, self.batch)


def step_program(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    learning_rate: Callable[[jax.Array], jax.Array],
    *,
    mesh: Mesh,
    batch_size: int,
    accumulation: int,
    ema: Ema | None = None,
    rules: Sequence[Any] = (),
    seed: int = 0,
    shapes: int = 0,
) -> StepProgram:
    """The step that `swin_jax.train` would run; see `make_train_step` and `state_shardings` for the arguments.

    `shapes` picks one of the task's `batch_shapes`.
    """
    state = abstract_state(task, optimizer, seed, with_ema=ema is not None)
    shardings = state_shardings(state, mesh, rules)
    step = make_train_step(
        task,
        optimizer,
        mesh=mesh,
        shardings=shardings,
        seed=seed,
        learning_rate=learning_rate,
        accumulation=accumulation,
        ema=ema,
    )
    rows = batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct((batch_size, *shape), jnp.dtype(dtype), sharding=rows)
        for name, (shape, dtype) in task.batch_shapes[shapes].items()
    }
    return StepProgram(step, state, batch, shardings, mesh)
