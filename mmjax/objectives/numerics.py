"""Numerics that objectives share: unit vectors, weighted means, at least fp32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

EPSILON = 1e-12  # added to the squared norm: the gradient at a zero vector stays finite


def unit(x: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
    """Unit vectors along the last axis, in fp32 at least; a zero vector stays zero, with a finite gradient."""
    x = at_least_fp32(x)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + EPSILON)


def at_least_fp32(x: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Casts `x` to fp32, unless it is fp64: the dtype of losses and normalisations."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def weighted_mean(total: Float[Array, " b"], count: Shaped[Array, " b"], weight: Bool[Array, " b"]) -> Float[Array, ""]:
    """Divides the sum of `total` by the sum of `count`, both over the rows with weight; 0 where there is nothing to
    count.

    Rows without weight are selected away, not multiplied by 0: whatever they hold (NaN too) changes nothing.
    """
    total, count = (jnp.sum(jnp.where(weight, x, 0)) for x in (total, count))
    return total / jnp.maximum(count, 1)
