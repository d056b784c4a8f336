"""Parameter formats of other ecosystems: names and trees, no modules."""

from swin_jax.weights.exchange import (
    FORMATS,
    OURS,
    Weights,
    read_weights,
    sort_state,
    state_of,
    write_weights,
)
from swin_jax.weights.fit import Fitted, fit
from swin_jax.weights.heads import FRESH
from swin_jax.weights.trees import flatten, unflatten

__all__ = [
    "FORMATS",
    "FRESH",
    "OURS",
    "Fitted",
    "Weights",
    "fit",
    "flatten",
    "read_weights",
    "sort_state",
    "state_of",
    "unflatten",
    "write_weights",
]
