"""The optimizer as one optax transformation, and what it does to which parameter.

Rules name parameters by regular expressions over their path "a/b/c" (`re.search`: a pattern matches anywhere
in the path unless it is anchored with ^ or $).
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from swin_jax.training.schedules import Real, Schedule
from swin_jax.training.sharding import path_name

# Classification (Swin V1, V2): beside these all one-dimensional parameters are exempt, `no_decay_1d`.
NO_DECAY_CLASSIFICATION = (r"(^|/)bias$", r"absolute_pos_embed", r"relative_position_bias_table")
# Detection and segmentation: biases and the norms named bn or gn are decayed there; use `no_decay_1d=False`.
NO_DECAY_DENSE = (r"absolute_pos_embed", r"relative_position_bias_table", r"norm")

OPTIMIZERS = ("adamw", "sgd")


class Rule(NamedTuple):
    """What the optimizer does to one parameter."""

    frozen: bool
    decay: bool
    lr_scale: float


@dataclasses.dataclass(frozen=True)
class ParameterGroup:
    """Parameters under one rule: how many tensors and values, and the paths of the first few."""

    name: str
    rule: Rule
    tensors: int
    values: int
    examples: tuple[str, ...]


def make_optimizer(
    params: Any,
    *,
    schedule: Schedule,
    name: str = "adamw",
    weight_decay: Real = 0.05,
    b1: Real = 0.9,
    b2: Real = 0.999,
    eps: Real = 1e-8,
    momentum: Real = 0.9,
    nesterov: bool = False,
    clip_norm: Real | None = None,
    no_decay: Sequence[str] = NO_DECAY_CLASSIFICATION,
    no_decay_1d: bool = True,
    frozen: Sequence[str] = (),
    layer_decay: Real | None = None,
    layer_of: Callable[[str], int] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip, then AdamW or SGD, with the rules of `parameter_rules`. All arithmetic and all state in f32.

    The clip bounds the global L2 norm of the gradients as they come (frozen parameters do not count). AdamW's
    decay is decoupled and multiplied by the learning rate (Loshchilov and Hutter, 2019); SGD's is added to
    the gradient after the clip. Frozen parameters get a zero update and no state.

    Args:
        params: parameters or their `ShapeDtypeStruct`s; only paths and shapes are read.
        schedule: learning rate of each step; `update` takes the step as the keyword `step`.
        name: "adamw" or "sgd".
        weight_decay: for the parameters that are decayed.
        b1: AdamW's decay of the first moment.
        b2: AdamW's decay of the second moment.
        eps: AdamW's addition to the denominator.
        momentum: of SGD.
        nesterov: Nesterov's momentum, for SGD.
        clip_norm: largest global gradient norm; None does not clip.
        no_decay: patterns of parameters without weight decay.
        no_decay_1d: exempt all parameters with fewer than two axes, too.
        frozen: patterns of parameters that stay as they are.
        layer_decay: multiply the peak rate of a parameter in layer `i` of 0 ... L-1 by layer_decay^(L-1-i).
        layer_of: the layer of a path; needed with `layer_decay`.

    Raises:
        ValueError: unknown optimizer, number out of range, invalid pattern, a `frozen` pattern that matches
            nothing.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer.name is {name!r}; expected one of {', '.join(OPTIMIZERS)}")
    numbers = {"weight_decay": weight_decay, "eps": eps, "clip_norm": clip_norm}
    for field, value in numbers.items():
        if value is not None and not value >= 0:
            raise ValueError(f"optimizer.{field} is {value}; expected a number >= 0")
    for field, value in {"b1": b1, "b2": b2, "momentum": momentum}.items():
        if not 0 <= value < 1:
            raise ValueError(f"optimizer.{field} is {value}; expected 0 <= {field} < 1")
    rules = parameter_rules(
        params,
        no_decay=no_decay,
        no_decay_1d=no_decay_1d,
        frozen=frozen,
        layer_decay=layer_decay,
        layer_of=layer_of,
    )
    decay = optax.add_decayed_weights(weight_decay, mask=_mask(rules, lambda rule: rule.decay))
    pieces = [optax.clip_by_global_norm(clip_norm)] if clip_norm is not None else []
    if name == "adamw":
        pieces += [optax.scale_by_adam(b1=b1, b2=b2, eps=eps), decay]
    else:
        pieces += [decay, optax.trace(decay=momentum, nesterov=nesterov)]
    active = _in_float32(optax.chain(*pieces, _scale_by_learning_rates(schedule, rules)))
    if not frozen:
        return active
    return optax.partition({False: active, True: optax.set_to_zero()}, _mask(rules, lambda rule: rule.frozen))


def parameter_rules(
    params: Any,
    *,
    no_decay: Sequence[str] = NO_DECAY_CLASSIFICATION,
    no_decay_1d: bool = True,
    frozen: Sequence[str] = (),
    layer_decay: Real | None = None,
    layer_of: Callable[[str], int] | None = None,
) -> dict[str, Rule]:
    """What `make_optimizer`, given the same arguments, does to each parameter: path -> rule, in tree order.

    Raises:
        ValueError: an invalid pattern, a `frozen` pattern that matches nothing, everything frozen,
            `layer_decay` without `layer_of` or out of range.
    """
    leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    spared, stopped = _compiled("no_decay", no_decay), _compiled("frozen", frozen)
    for pattern in stopped:
        if not any(pattern.search(path) for path in leaves):
            raise ValueError(
                f"optimizer.frozen pattern {pattern.pattern!r} matches no parameter; paths look like "
                f"{', '.join(list(leaves)[:3])}"
            )
    scales = _layer_scales(list(leaves), layer_decay, layer_of)
    rules = {}
    for path, leaf in leaves.items():
        exempt = (no_decay_1d and len(leaf.shape) < 2) or any(p.search(path) for p in spared)
        rules[path] = Rule(any(p.search(path) for p in stopped), not exempt, scales[path])
    if all(rule.frozen for rule in rules.values()):
        raise ValueError(f"optimizer.frozen {tuple(frozen)} leaves no parameter of {len(rules)} to train")
    return rules


def parameter_groups(params: Any, rules: dict[str, Rule]) -> list[ParameterGroup]:
    """The parameters gathered by rule, in the order in which rules first occur.

    Args:
        params: parameters or their `ShapeDtypeStruct`s.
        rules: of `parameter_rules` for these parameters.
    """
    members: dict[Rule, list[tuple[str, int]]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        size = 1
        for length in leaf.shape:
            size *= length
        members.setdefault(_seen(rules[path_name(path)]), []).append((path_name(path), size))
    return [
        ParameterGroup(
            name=_group_name(rule),
            rule=rule,
            tensors=len(found),
            values=sum(size for _, size in found),
            examples=tuple(path for path, _ in found[:3]),
        )
        for rule, found in members.items()
    ]


def groups_table(groups: Sequence[ParameterGroup]) -> str:
    """The groups as text, one a line, for the log of a run."""
    rows = [("parameters", "tensors", "values", "for example")]
    rows += [(group.name, f"{group.tensors:,}", f"{group.values:,}", group.examples[0]) for group in groups]
    rows += [("total", f"{sum(g.tensors for g in groups):,}", f"{sum(g.values for g in groups):,}", "")]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{name:<{widths[0]}}  {tensors:>{widths[1]}}  {values:>{widths[2]}}  {example}".rstrip()
        for name, tensors, values, example in rows
    )


def _compiled(field: str, patterns: Sequence[str]) -> list[re.Pattern[str]]:
    if isinstance(patterns, str):
        raise ValueError(f"optimizer.{field} is the text {patterns!r}; expected a sequence of patterns")
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise ValueError(
                f"optimizer.{field} pattern {pattern!r} is no regular expression: {error}"
            ) from error
    return compiled


def _layer_scales(
    paths: Sequence[str], layer_decay: Real | None, layer_of: Callable[[str], int] | None
) -> dict[str, float]:
    if layer_decay is None:
        return dict.fromkeys(paths, 1.0)
    if not 0 < layer_decay <= 1:
        raise ValueError(f"optimizer.layer_decay is {layer_decay}; expected above 0 and at most 1")
    if layer_of is None:
        raise ValueError(f"optimizer.layer_decay is {layer_decay}, but the model has no layer_of(path)")
    layers = {path: layer_of(path) for path in paths}
    last = max(layers.values())
    return {path: layer_decay ** (last - layer) for path, layer in layers.items()}


def _seen(rule: Rule) -> Rule:
    """The rule as a reader sees it: nothing else matters once a parameter is frozen."""
    return Rule(True, False, 0.0) if rule.frozen else rule


def _group_name(rule: Rule) -> str:
    if rule.frozen:
        return "frozen"
    name = "decay" if rule.decay else "no decay"
    return name if rule.lr_scale == 1 else f"{name}, lr x {rule.lr_scale:.4g}"


def _mask(rules: dict[str, Rule], choose: Callable[[Rule], bool]) -> Callable[[Any], Any]:
    # A function of the tree rather than a tree: optax.partition hands over trees with pieces taken out.
    return lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: choose(rules[path_name(path)]), tree)


def _scale_by_learning_rates(
    schedule: Schedule, rules: dict[str, Rule]
) -> optax.GradientTransformationExtraArgs:
    """Multiplies each update by minus its parameter's learning rate at `step`, the number of steps before it.

    The step is the run's, not a count of updates: a skipped update does not shift the schedule.
    """
    factors = {rule.lr_scale for rule in rules.values() if not rule.frozen}
    schedules = {factor: schedule.scaled(factor) for factor in factors}

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if "step" not in extra:
            raise TypeError("update needs the keyword step, the number of steps before this one")
        rates = {factor: schedules[factor](extra["step"]) for factor in schedules}

        def scale(path: tuple[Any, ...], value: jax.Array) -> jax.Array:
            return -rates[rules[path_name(path)].lr_scale] * value

        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Runs `inner` on f32 copies, so that its state is f32 for parameters and gradients of any type."""
    extended = optax.with_extra_args_support(inner)

    def cast(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

    return optax.GradientTransformationExtraArgs(
        lambda params: extended.init(cast(params)),
        lambda updates, state, params=None, **extra: extended.update(
            cast(updates), state, cast(params), **extra
        ),
    )
