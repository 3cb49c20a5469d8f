"""Computes a batch in parts, one after the other, for functions that work row by row."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Collections that every part reads and none changes: the statistics are those of frozen towers, the average a
# teacher's, the frequencies those of the training split.
SHARED = ("params", "batch_stats", "ema", "frequencies")
KEPT = "kept"  # the name (`checkpoint_name`) of what the backward pass reads instead of computing it again


def each_part(module: nn.Module, function: Callable[..., Any], microbatches: int, rows: Any, *whole: Any) -> Any:
    """Computes `function(module, rows, *whole)` for one part of the rows after another; recomputes it in the backward
    pass.

    rows: a tree of `[B, ...]`; whole: arguments that every part gets. With one part, and in init, it runs once.
    """
    if microbatches == 1 or module.is_initializing():
        return function(module, rows, *whole)
    scan = nn.scan(
        nn.remat(
            lambda module, _, part, *whole: (None, function(module, part, *whole)),
            prevent_cse=False,  # the scan itself keeps the recomputation apart
            policy=jax.checkpoint_policies.save_only_these_names(KEPT),
        ),
        variable_broadcast=list(SHARED),
        split_rngs={"params": False},
        in_axes=(0, *[nn.broadcast] * len(whole)),  # pyright: ignore[reportArgumentType] (flax says int, and means a tree)
    )
    _, outputs = scan(module, None, cut(rows, microbatches), *whole)
    return glue(outputs)


def cut(batch: Any, n: int) -> Any:
    """Cuts a batch `[B, ...]` into parts `[n, B/n, ...]`. Row i goes to part i % n, so that every part has rows from
    every device.
    """
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, n, *x.shape[1:]), 1, 0), batch)


def glue(parts: Any) -> Any:
    """The inverse of `cut`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), parts)
