"""Activations of MLPs by name."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ActivationName = Literal["gelu", "gelu_tanh", "quick_gelu", "silu"]


def keeping_input(
    function: Callable[[Array], Array], short: Callable[[Array], Array] | None = None
) -> Callable[[Array], Array]:
    """`function`, of each element alone, with a backward pass that keeps its input and nothing else.

    What autodiff keeps beside it is as large and costs more to write and to read than to compute again. Both passes
    compute in fp32 at least, and round once. There is no forward-mode derivative (`jax.jvp`) of the result.

    short: for inputs of 16 bits, equal to `function` in their precision; None: `function`.
    """

    def rounded(x: Float[Array, "..."]) -> Float[Array, "..."]:
        chosen = short if short is not None and x.dtype.itemsize == 2 else function
        return chosen(x.astype(jnp.promote_types(x.dtype, jnp.float32))).astype(x.dtype)

    def backward(x: Float[Array, "..."], gradient: Float[Array, "..."]) -> tuple[Float[Array, "..."]]:
        (back,) = jax.vjp(rounded, x)[1](gradient)
        return (back,)

    kept = jax.custom_vjp(rounded)
    kept.defvjp(lambda x: (rounded(x), x), backward)
    return kept


def _gelu_by_erf(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU by erf, which a GPU's compiler computes in both passes. `jax.nn.gelu`'s erfc, more exact far below zero, it
    keeps in fp32 for the backward pass, twice the size of the input."""
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def _gelu_tanh_by_sigmoid(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU's approximation once more, for (1 + tanh z) / 2 is the sigmoid of 2z: of tanh the same holds as of erfc."""
    return x * jax.nn.sigmoid((8 / jnp.pi) ** 0.5 * (x + 0.044715 * x**3))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": keeping_input(partial(jax.nn.gelu, approximate=False), short=_gelu_by_erf),
    "gelu_tanh": keeping_input(partial(jax.nn.gelu, approximate=True), short=_gelu_tanh_by_sigmoid),
    "quick_gelu": keeping_input(lambda x: x * jax.nn.sigmoid(1.702 * x)),  # CLIP's
    "silu": keeping_input(jax.nn.silu),
}
