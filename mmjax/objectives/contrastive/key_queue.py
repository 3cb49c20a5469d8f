"""A queue of the keys of earlier batches, first in, first out (MoCo: He et al. 2019, arXiv:1911.05722)."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt

from mmjax.errors import UserError
from mmjax.objectives.numerics import unit

QUEUE = "queue"  # Linen's collection of the queues: a part of the train state, and of no exported model

# Of each input `<input>_keys` [Q,E] and `<input>_valid` [Q], which of them are keys; `next`, the place of the oldest;
# where examples are told apart `id` [Q,2], and `known` [Q], which places have one.
KeyQueue = Mapping[str, Array]


def random_queue(
    key: PRNGKeyArray, pair: Sequence[str], size: int, like: Float[Array, "b e"], with_ids: bool
) -> dict[str, Array]:
    """A queue of random unit vectors, as `like` in dimension and dtype, which are no example's keys."""
    queue: dict[str, Array] = {"next": jnp.zeros((), jnp.int32)}
    for name, own in zip(pair, jax.random.split(key, len(pair)), strict=True):
        queue[f"{name}_keys"] = unit(jax.random.normal(own, (size, like.shape[-1]), like.dtype))
        queue[f"{name}_valid"] = jnp.ones(size, bool)
    if with_ids:
        queue |= {"id": jnp.zeros((size, 2), jnp.uint32), "known": jnp.zeros(size, bool)}
    return queue


def enqueued(
    queue: KeyQueue,
    keys: Mapping[str, Float[Array, "b e"]],
    valid: Mapping[str, Bool[Array, " b"]],
    id: UInt[Array, "b 2"] | None = None,
) -> dict[str, Array]:
    """The queue with a batch's keys, by input, in the place of its oldest. id: of the examples, where it has ids."""
    rows = len(next(iter(valid.values())))
    places = len(next(array for name, array in queue.items() if name.endswith("_valid")))
    here = (queue["next"] + jnp.arange(rows)) % places
    new = {f"{name}_keys": found for name, found in keys.items()} | {f"{name}_valid": x for name, x in valid.items()}
    if id is not None:
        new |= {"id": id, "known": jnp.ones(rows, bool)}
    moved = {name: queue[name].at[here].set(found) for name, found in new.items()}
    return moved | {"next": (queue["next"] + rows) % places}


def check_divides(owner: str, size: int, rows: int) -> None:
    """Raises UserError where a batch of so many rows doesn't divide the queue of `owner`."""
    if size % rows:
        below, above = size // rows * rows, (size // rows + 1) * rows
        would_do = f"{below:,} or {above:,}" if below else f"{above:,}"
        raise UserError(
            f"{owner}(queue={size:,}) with a batch of {rows:,}, which doesn't divide it, so that the oldest keys "
            f"couldn't leave batch by batch: queue={would_do} would do"
        )
