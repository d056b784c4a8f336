"""Trains an experiment, or resumes it exactly where it stopped.

    python -m swin_jax.train --config=experiments/shapes.py:classification --workdir=runs/shapes
    python -m swin_jax.train --config=experiments/own_images.py --config.data.root=/data/flowers \\
        --config.total="50 epochs" --workdir=runs/flowers

The run directory keeps config.json, checkpoints/, metrics.jsonl, TensorBoard events, curves.png and pictures/.
The same command on an existing run directory goes on where the newest checkpoint is.

On several hosts the same command runs on each: under SLURM's srun and on TPU slices as it is, elsewhere with
--coordinator=<host 0>:8476 --num_hosts=4 --host_id=<0 to 3>; experiments/launch/ has a file for each. The run
directory has to be one that all hosts see.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax
from etils import epath
from jax.sharding import Mesh

from swin_jax import cli, experiment, inputs, pretrained
from swin_jax.config import FREE_FIELDS, Config, to_dict
from swin_jax.data.decode import UnreadablePicture
from swin_jax.exports.card import load_lines, make_card, write_card
from swin_jax.restore import choose_parameters, describe_run, write_categories, write_classes, write_coding
from swin_jax.tasks.task import Task
from swin_jax.training import hosts, loop, optimizer, preflight, run_directory, sharding
from swin_jax.training.checkpoint import Checkpoints
from swin_jax.training.determinism import make_deterministic
from swin_jax.training.ema import Ema
from swin_jax.training.evaluator import evaluate_each, make_predict_step, save_pictures
from swin_jax.training.profile import profiled
from swin_jax.training.provenance import provenance
from swin_jax.training.record import Record
from swin_jax.training.run_directory import RunDirectoryError
from swin_jax.training.schedules import Schedule
from swin_jax.training.state import TrainState, abstract_state, begin_with, create_state, make_train_step
from swin_jax.training.watch import Watch, alone
from swin_jax.weights import Fitted

CONFIG = cli.config_flag()
WORKDIR = cli.workdir_flag()
cli.hosts_flags()

log = logging.getLogger("swin_jax.train")  # this module runs as __main__


class Plan(NamedTuple):
    """Everything about a run that is known, and has been checked, before a device works."""

    config: Config
    directory: epath.Path
    data: inputs.Data
    task: Task
    mesh: Mesh
    steps: experiment.Durations
    schedule: Schedule
    optimizer: optax.GradientTransformationExtraArgs
    ema: Ema | None
    profile_steps: range
    abstract: TrainState  # shapes of the state
    shardings: TrainState
    begin: Fitted | None  # parameters of `init_from`, for a run that has no checkpoint yet


def main(_: Sequence[str]) -> None:
    with cli.joined_hosts() as watch:
        with cli.one_sentence(ValueError, RunDirectoryError):
            config = cli.config(CONFIG)
            if config is None:
                example = "experiments/shapes.py:classification"
                raise ValueError(f"--config is missing: name an experiment, such as --config={example}")
            plan = prepare(config, WORKDIR.value)
        with cli.one_sentence(loop.NotFinite, UnreadablePicture, RunDirectoryError, OSError):
            train(plan, watch)


def prepare(config: Config, workdir: str) -> Plan:
    """Checks config, data, devices and run directory, cheapest first. Raises ValueError for what is wrong."""
    if config.deterministic:
        make_deterministic()
    experiment.make_task(config, ("any",))  # names and numbers of the model, before data are looked for
    ema = experiment.ema(config)
    profile_steps = preflight.step_range("profile_steps", config.profile_steps)
    preflight.init_source(config.init_from, config.init_head)
    data = inputs.open_data(config)
    experiment.check_classes(config, data.train.class_names)
    devices = sharding.select_devices(config.mesh.platform or None)
    mesh = sharding.make_mesh(fsdp=config.mesh.fsdp, devices=devices)
    preflight.check_batch_size(
        config.batch_size, devices=mesh.size, hosts=jax.process_count(), accumulation=config.accumulation
    )
    task = experiment.make_task(
        config, data.train.class_names, coding=data.coding, constrain=sharding.constrain_rows(mesh)
    )
    preflight.check_batch_fields(task.batch_shapes, data.fields())
    if (sizes := len(set(data.buckets))) > 1:
        log.info("evaluation pictures have %d sizes: a program is compiled for each", sizes)
    steps = experiment.durations(config, len(data.train))
    schedule = experiment.learning_rate(config, len(data.train))
    transformation = make_transformation(config, task, schedule)
    abstract = abstract_state(task, transformation, config.seed, with_ema=ema is not None)
    shardings = sharding.state_shardings(abstract, mesh, config.mesh.rules)
    begin = first_params(config, workdir, abstract, data.train.class_names)
    resolved, made_by = to_dict(config) | data.identity, provenance()
    check_hosts(resolved, made_by)
    directory = epath.Path(workdir)
    hosts.first(lambda: claim(workdir, resolved, made_by, data))
    preflight.check_shared(directory, resolved)
    return Plan(
        config=config,
        directory=directory,
        data=data,
        task=task,
        mesh=mesh,
        steps=steps,
        schedule=schedule,
        optimizer=transformation,
        ema=ema,
        profile_steps=profile_steps,
        abstract=abstract,
        shardings=shardings,
        begin=begin,
    )


def check_hosts(resolved: Mapping[str, Any], made_by: Mapping[str, Any]) -> None:
    """Whether all hosts run the same. Raises ValueError with the host and the fields that differ."""
    of_the_host = {"root", "workers", "threads"}  # where its data lie and how fast it reads them
    data = {name: value for name, value in resolved["data"].items() if name not in of_the_host}
    hosts.check_same(
        {
            "config": {**resolved, "data": data},
            "versions": made_by["versions"],
            "code": made_by["code"]["digest"],
            "devices": jax.local_device_count(),
        }
    )


def claim(workdir: str, resolved: Mapping[str, Any], made_by: Mapping[str, Any], data: inputs.Data) -> None:
    """Makes `workdir` the directory of this run. Raises ValueError if it is another's or cannot be written."""
    directory = preflight.check_workdir(workdir)
    run_directory.claim(directory, resolved, made_by, free=FREE_FIELDS)
    write_classes(directory, data.train.class_names)
    write_coding(directory, data.coding)
    write_categories(directory, getattr(data.train, "category_ids", None))


def first_params(
    config: Config, workdir: str, abstract: TrainState, class_names: Sequence[str]
) -> Fitted | None:
    """The parameters of `init_from`; None without it, or where a checkpoint stands that the run resumes from.

    Raises:
        ValueError: they cannot be read or do not fit the model.
    """
    source = preflight.init_source(config.init_from, config.init_head)
    begun = workdir and Checkpoints(epath.Path(workdir) / "checkpoints", read_only=True).steps()
    if not source or begun:
        return None
    begin = pretrained.beginning(
        source,
        abstract.params,
        abstract.model_state,
        head=config.init_head,
        class_names=class_names,
    )
    log.info("beginning with %s", "; ".join(begin.notes))
    if begin.fresh:
        log.info("fresh: %s", ", ".join(begin.fresh))
    return begin


def make_transformation(
    config: Config, task: Task, schedule: Schedule
) -> optax.GradientTransformationExtraArgs:
    """The optimizer; its rule for each parameter goes to the log."""
    params = jax.eval_shape(task.init, jax.random.key(0))[0]
    rules = experiment.optimizer_rules(config, task, params)
    numbers = experiment.optimizer_numbers(config)
    transformation = optimizer.make_optimizer(params, schedule=schedule, **numbers, **rules)
    groups = optimizer.parameter_groups(params, optimizer.parameter_rules(params, **rules))
    log.info("parameters by rule:\n%s", optimizer.groups_table(groups))
    return transformation


def train(plan: Plan, watch: Watch | None = None) -> None:
    """Trains from the newest checkpoint, or from the start, to the end or until a signal asks to stop."""
    checkpoints = Checkpoints(
        plan.directory / "checkpoints",
        every=plan.steps.checkpoint_every,
        keep=plan.config.keep_checkpoints,
        metric=experiment.ranking(plan.config),
    )
    with contextlib.closing(checkpoints), loop.StopOnSignal() as stop:
        state = first_state(plan, checkpoints)
        start = int(state.step)
        if start < plan.steps.total:
            state = run_loop(plan, state, checkpoints, stop, watch or alone())
        best = checkpoints.best_step()
    if not hosts.writer():
        return
    step, total = int(state.step), plan.steps.total
    if step == total:
        leave_card(plan, step if best is None else best)
    following = f"Next: python -m swin_jax.evaluate --workdir={plan.directory}"
    if step < total:
        print(
            f"stopped by {stop.asked or 'another host'} at step {step} of {total}; the same command goes on from there"
        )
    elif start == total:
        print(f"{plan.directory} is finished: step {step} of {total}. {following}")
    else:
        print(f"finished: step {step}, best step {best}. {following}")


def leave_card(plan: Plan, step: int) -> None:
    """Writes the model card of the checkpoint of `step` into the run directory."""
    kind = choose_parameters(plan.config, "")
    description = describe_run(plan.directory, plan.config, plan.data.train.class_names, step, kind)
    sizes = [leaf.size for leaf in jax.tree.leaves(plan.abstract.params)]
    name = run_directory.absolute(plan.directory).name
    load = load_lines(description["model"], name, description.get("detection"))
    write_card(plan.directory, make_card(description, parameters=sum(sizes), load=load))


def first_state(plan: Plan, checkpoints: Checkpoints) -> TrainState:
    """The newest checkpoint, else a fresh state, else one with the parameters of `init_from`."""
    state = checkpoints.restore_newest(plan.abstract, plan.shardings)
    if state is not None:
        log.info("resuming at step %d of %d", int(state.step), plan.steps.total)
        return state
    state = create_state(plan.task, plan.optimizer, plan.config.seed, plan.shardings)
    if plan.begin is None:
        return state
    params = pretrained.put(plan.begin.params, state.params, plan.shardings.params)
    statistics = {f"{pretrained.STATISTICS}/{path}": value for path, value in plan.begin.statistics.items()}
    model_state = pretrained.put(statistics, state.model_state, plan.shardings.model_state)
    return begin_with(state, params, plan.shardings, model_state=model_state)


def run_loop(
    plan: Plan, state: TrainState, checkpoints: Checkpoints, stop: loop.StopOnSignal, watch: Watch
) -> TrainState:
    config, start = plan.config, int(state.step)
    host, count = jax.process_index(), jax.process_count()
    vote = hosts.Vote(plan.mesh)
    train_step = make_train_step(
        plan.task,
        plan.optimizer,
        mesh=plan.mesh,
        shardings=plan.shardings,
        seed=config.seed,
        learning_rate=plan.schedule,
        accumulation=config.accumulation,
        ema=plan.ema,
    )
    traced = plan.profile_steps if hosts.writer() else range(0)
    record = Record(
        plan.directory,
        start_step=start,
        total_steps=plan.steps.total,
        batch_size=config.batch_size,
        log_every=config.log_every,
        writer=hosts.writer(),
        title=config.model.name,
        panels=plan.task.panels,
    )
    profile = profiled(train_step, plan.directory / "profile", traced, start_step=start)
    with record, profile as train_step:
        state = loop.run(
            state,
            train_step=train_step,
            batches=watch.follow(plan.data.train_batches(start, host, count), "step", start + 1),
            batch_fields=plan.task.batch_fields,
            mesh=plan.mesh,
            total_steps=plan.steps.total,
            evaluate=make_evaluation(plan, watch),
            evaluate_every=plan.steps.evaluate_every,
            checkpoints=checkpoints,
            recorder=record,
            evidence=plan.directory / "not_finite",
            max_not_finite=config.max_not_finite,
            stop_asked=stop if count == 1 else lambda: vote(stop()),
        )
        record.draw()
    return state


def make_evaluation(plan: Plan, watch: Watch) -> Callable[[TrainState, int], Mapping[str, float]]:
    """Scores a state on the evaluation split, its average likewise (as "ema/..."), and leaves pictures (of the
    average, where there is one) in the run directory."""
    predict_step = make_predict_step(plan.task, plan.mesh)

    def evaluation(state: TrainState, step: int) -> Mapping[str, float]:
        batches = plan.data.eval_batches(jax.process_index(), jax.process_count(), plan.mesh.size)
        followed = watch.follow(batches, "evaluation", 1)
        variables = {"": (state.params, state.model_state)}
        if plan.ema is not None:
            variables[experiment.EMA] = (state.ema_params, state.ema_model_state)
        found = evaluate_each(plan.task, predict_step, variables, followed, plan.mesh, plan.data.truth)
        if hosts.writer():
            save_pictures(plan.directory / "pictures", plan.task, list(found.values())[-1])
        return {
            f"{prefix}{name}": value
            for prefix, scored in found.items()
            for name, value in scored.scorer.result().items()
        }

    return evaluation


if __name__ == "__main__":
    cli.run(main)
