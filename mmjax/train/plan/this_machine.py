"""Measures this machine's processor and memory, for a plan of `cpu:N`."""

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SIDE = 1_536  # side of the square matrices that are multiplied
ROWS = 4_096  # side of the square array that is passed through memory, 64 MiB: larger than the caches
PASSES = 8
REPEATS = 5


class Rates(NamedTuple):
    """The speed of a machine. flops: fp32 products, FLOP/s. memory: bytes. bandwidth: of the operations between a
    transformer's products, bytes/s read and written; its normalisations and softmaxes are no faster on a CPU, where
    memory could deliver three times that.
    """

    flops: float
    bandwidth: float
    memory: float


@functools.cache
def machine_rates() -> Rates:
    """Measures the whole machine, as one jax device uses it (all its cores); the median of five short runs."""
    with jax.default_device(jax.devices("cpu")[0]):
        square = jnp.asarray(np.random.default_rng(0).standard_normal((SIDE, SIDE)), jnp.float32)
        flops = 2 * SIDE**3 / _seconds(jax.jit(jnp.matmul), square, square)
        rows = jnp.asarray(np.random.default_rng(1).standard_normal((ROWS, ROWS)), jnp.float32)
        # A loop writes into the same memory again, as the layers of a step do: fresh pages would cost more.
        passes = jax.jit(lambda x: jax.lax.fori_loop(0, PASSES, lambda _, x: _normalised(x), x))
        bandwidth = PASSES * 2 * rows.nbytes / _seconds(passes, rows)
    return Rates(flops, bandwidth, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _normalised(x: Any) -> Any:
    """Each row with mean 0 and variance 1."""
    return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    jax.block_until_ready(function(*arguments))  # the first call compiles
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))
