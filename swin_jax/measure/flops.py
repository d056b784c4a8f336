"""Floating-point operations of the matrix products in a traced program."""

import math
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr


def matmul_flops(program: ClosedJaxpr | Jaxpr) -> int:
    """Two for each multiply-accumulate of every matrix product, as often as it runs: loops and recomputation count.

    Of a `cond` the dearest branch counts. A `while` without a fixed number of iterations counts once.
    """
    total = 0
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            total += _product(equation)
        elif equation.primitive.name == "cond":
            total += max(matmul_flops(branch) for branch in equation.params["branches"])
        else:
            inner = sum(matmul_flops(value) for value in equation.params.values() if hasattr(value, "eqns"))
            total += inner * equation.params.get("length", 1)
    return total


def _product(equation: Any) -> int:
    ((contracted, _), _) = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
