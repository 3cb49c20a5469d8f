"""A batch in parts, one after the other, for what is done row by row."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# What a part reads and no part changes: the statistics are those of towers that are frozen, the average a teacher's.
SHARED = ("params", "batch_stats", "ema")


def each_part(module: nn.Module, function: Callable[..., Any], microbatches: int, rows: Any, *whole: Any) -> Any:
    """`function(module, rows, *whole)`, over one part of the rows after another; it is run again in the backward pass.

    rows: a tree of `[B, ...]`; whole: what every part gets. As init makes parameters, and with one part, all at once.
    """
    if microbatches == 1 or module.is_initializing():
        return function(module, rows, *whole)
    scan = nn.scan(
        nn.remat(
            lambda module, _, part, *whole: (None, function(module, part, *whole)),
            prevent_cse=False,  # the scan itself keeps the recomputation apart
        ),
        variable_broadcast=list(SHARED),
        split_rngs={"params": False},
        in_axes=(0, *[nn.broadcast] * len(whole)),  # pyright: ignore[reportArgumentType] (flax says int, and means a tree)
    )
    _, outputs = scan(module, None, cut(rows, microbatches), *whole)
    return glue(outputs)


def cut(batch: Any, n: int) -> Any:
    """`[B, ...]` -> `[n, B/n, ...]`. Row i goes to part i % n, so that every part has rows from every device."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, n, *x.shape[1:]), 1, 0), batch)


def glue(parts: Any) -> Any:
    """The inverse of `cut`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), parts)
