"""Random keys of a step."""

import zlib

import jax
from jaxtyping import Array, Int, Key


def step_key(seed: Int[Array, ""] | int, step: Int[Array, ""] | int, name: str) -> Key[Array, ""]:
    """The random key of one step for one use, a pure function of its arguments."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), zlib.crc32(name.encode()))
