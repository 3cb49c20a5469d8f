"""FLOPs of a traced function: its products of matrices, with the trip counts of its loops."""

import math
from typing import Any


def count(jaxpr: Any) -> int:
    """FLOPs of all matrix products and convolutions in a jaxpr: a product of [m, k] and [k, n] has 2 m n k.

    A scan's body counts as often as it runs, what stands in a `shard_map` on every device that runs it, the dearest of
    a `cond`'s branches once. All else (norms, activations, the optimiser) is left out, as papers do.

    Raises:
        ValueError: a `while` with products in it, whose number of rounds isn't known before it runs.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(_of(equation) for equation in jaxpr.eqns)


def _of(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        lhs = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(lhs[d] for d in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
    if name == "scan":
        return params["length"] * count(params["jaxpr"])
    if name == "cond":
        return max(count(branch) for branch in params["branches"])
    inner = sum(count(jaxpr) for jaxpr in _jaxprs(params))
    if name == "while" and inner:
        raise ValueError("a while loop with matrix products in it: how often it runs isn't known before it does")
    if name == "shard_map":
        mesh = params["mesh"]
        return inner * math.prod(mesh.shape[axis] for axis in params.get("manual_axes", mesh.axis_names))
    return inner


def _jaxprs(params: dict[str, Any]) -> list[Any]:
    """The jaxprs among an equation's parameters (of jit, remat, a custom derivative, ...)."""
    values = [item for value in params.values() for item in (value if isinstance(value, tuple | list) else (value,))]
    return [value for value in values if hasattr(getattr(value, "jaxpr", value), "eqns")]
