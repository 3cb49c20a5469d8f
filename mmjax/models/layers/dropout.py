"""Drops out activations by each example's own key, however the batch is cut (Srivastava et al. 2014)."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.errors import UserError

BEFORE_BLOCKS = 2**31 - 1  # the place of the dropout there (see `drop`): no number of a layer
AFTER_PARTS = 2**31 - 2  # folded into the keys of what reads an example's parts: no number of a part


def drop(x: Float[Array, "b *n"], rate: float, keys: Key[Array, " b"] | None, place: int) -> Float[Array, "b *n"]:
    """Dropout (Srivastava et al. 2014) of each example by its own key, so that it depends neither on the other examples
    nor on how the batch is cut up. `place`: tells apart what is dropped by the same keys. No keys: nothing is dropped.
    """
    if keys is None:
        return x

    def kept(key: Array) -> Array:
        return jax.random.bernoulli(jax.random.fold_in(key, place), 1 - rate, x.shape[1:])

    return jnp.where(jax.vmap(kept)(keys), x / (1 - rate), 0)


def dropout_keys(
    module: nn.Module, rate: float, train: bool, keys: Key[Array, " b"] | None, batch: int
) -> Key[Array, " b"] | None:
    """The examples' keys for dropout: those given, or else made of `module`'s `dropout` key; None where none acts."""
    if not 0 <= rate < 1:
        raise UserError(f"dropout={rate} is not a rate: it is at least 0 and below 1")
    if not train or rate == 0:
        return None
    if keys is None:
        keys = jax.vmap(partial(jax.random.fold_in, module.make_rng("dropout")))(jnp.arange(batch))
    return keys


def part_keys(keys: Key[Array, " b"] | None, parts: int) -> Key[Array, " bp"] | None:
    """Keys of each example's parts (the frames of a video), those of an example one after the other."""
    if keys is None:
        return None
    return jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(parts)))(keys).reshape(-1)


def whole_keys(keys: Key[Array, " b"] | None) -> Key[Array, " b"] | None:
    """Each example's key for what reads all its parts, independent of those of `part_keys`."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, AFTER_PARTS))(keys)
