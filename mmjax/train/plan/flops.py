"""FLOPs of a traced function: its products of matrices, with the trip counts of its loops."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmjax.errors import UserError

ATTENTIONS = ("dot_product_attention_fwd", "dot_product_attention_bwd")  # jax's names of cuDNN's
PALLAS = "pallas_call"


class Product(NamedTuple):
    """A matrix product, a convolution, cuDNN's attention or a kernel by Pallas: its equation in the jaxpr, and the
    number of its runs on all devices together.
    """

    equation: Any
    times: int

    @property
    def fused(self) -> bool:
        """True for an attention, which is several products in one kernel."""
        return self.equation.primitive.name.startswith(ATTENTIONS)

    @property
    def flops(self) -> int:
        """FLOPs of all its runs; a product of [m, k] and [k, n] has 2 m n k. cuDNN's attention has two of them, its
        gradient four (the kernel, which makes the logits again, has five). A kernel by Pallas says what it has.
        """
        if self.equation.primitive.name == PALLAS:
            cost = self.equation.params["cost_estimate"]
            return 0 if cost is None else cost.flops * self.times
        params, (lhs, rhs) = self.equation.params, (variable.aval.shape for variable in self.equation.invars[:2])
        outputs = math.prod(self.equation.outvars[0].aval.shape)
        if self.fused:  # queries [b, n, h, k], keys [b, m, h, k]
            return (4 if "fwd" in self.equation.primitive.name else 8) * math.prod(lhs) * rhs[1] * self.times
        if self.equation.primitive.name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            summed = math.prod(lhs[d] for d in contracted)
        else:
            summed = math.prod(rhs) // rhs[params["dimension_numbers"].rhs_spec[0]]
        return 2 * outputs * summed * self.times


def count(jaxpr: Any) -> int:
    """FLOPs of all matrix products and convolutions in a jaxpr.

    Everything else (norms, activations, the optimiser) is left out, as in papers.

    Raises:
        UserError: as `products`.
    """
    return sum(product.flops for product in products(jaxpr))


def products(jaxpr: Any, times: int = 1) -> Iterator[Product]:
    """Iterates over all matrix products and convolutions in a jaxpr, which itself runs `times` times.

    A scan's body counts as often as it runs, the body of a `shard_map` on every device that runs it, the most expensive
    of a `cond`'s branches once.

    Raises:
        UserError: a `while` with products in it, whose number of rounds isn't known before it runs.
    """
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        if name in ("dot_general", "conv_general_dilated", PALLAS) or name.startswith(ATTENTIONS):
            yield Product(equation, times)
        elif name == "cond":
            yield from products(max(params["branches"], key=count), times)
        else:
            rounds = 1
            if name == "scan":
                rounds = params["length"]
            elif name == "shard_map":
                mesh = params["mesh"]
                rounds = math.prod(mesh.shape[axis] for axis in params.get("manual_axes", mesh.axis_names))
            for inner in _jaxprs(params):
                for product in products(inner, times * rounds):
                    if name == "while":
                        raise UserError(
                            "a while loop with matrix products in it: how often it runs isn't known before it does"
                        )
                    yield product


def _jaxprs(params: dict[str, Any]) -> list[Any]:
    """The jaxprs among an equation's parameters (of jit, remat, a custom derivative, ...)."""
    values = [item for value in params.values() for item in (value if isinstance(value, tuple | list) else (value,))]
    return [value for value in values if hasattr(getattr(value, "jaxpr", value), "eqns")]
