"""Drops inputs of examples in training, so that a fusion learns to do without each (ModDrop: Neverova et al. 2014,
arXiv:1501.00102)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from mmjax.errors import UserError

INPUTS = 2**31 - 2  # the place of this draw among those of an example's key (`layers.dropout.drop`): no layer's number


def check_drop_rate(rate: float) -> None:
    """Raises UserError where `drop_inputs` is no rate."""
    if not 0 <= rate < 1:
        raise UserError(
            f"drop_inputs={rate} is not a rate at which inputs are dropped: it is at least 0 and below 1; 0 drops none"
        )


def present_inputs(there: Bool[Array, "b m"], rate: float, keys: Key[Array, " b"] | None) -> Bool[Array, "b m"]:
    """The inputs of each example that it is fused from: those that are there, without those that are dropped.

    Each input of an example draws a number, uniform in [0, 1), by the example's own key. An input whose number is below
    `rate` is dropped, except for the one with the highest number of those that are there. So of k inputs that are there
    each is dropped with the same probability, `rate - rate**k / k`; one always stays; and what stays depends neither on
    the other examples nor on how the batch is cut up. All stay where `keys` is None.

    Raises:
        UserError: `rate` isn't at least 0 and below 1.
    """
    check_drop_rate(rate)
    if keys is None or rate == 0:
        return there

    def drawn(key: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, INPUTS), there.shape[1:])

    numbers = jnp.where(there, jax.vmap(drawn)(keys), -1)
    highest = jnp.argmax(numbers, axis=1)[:, None] == jnp.arange(there.shape[1])
    return there & ((numbers >= rate) | highest)
