"""The memory of a decoder's layer while it writes: keys and values of the tokens so far, in slots of a fixed number."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.models.layers.parameters import constrain


class KeysValues(NamedTuple):
    """Keys and values of `m` tokens, of `g` heads."""

    key: Float[Array, "b g m k"]
    value: Float[Array, "b g m k"]


class LayerMemory(NamedTuple):
    """The memory of one layer."""

    own: KeysValues
    """Of the text (and what stands before or within it), one slot a token."""
    context: KeysValues | None = None
    """Of the tokens that the layer reads beside it; None where it reads none."""


def empty(batch: int, heads: int, slots: int, size: int, dtype: jax.typing.DTypeLike) -> KeysValues:
    """Slots without a token, and one more behind them that takes what falls beyond the last: no write needs a check
    then, for which a program would read, and copy, what it writes to."""
    zeros = constrain(jnp.zeros((batch, heads, slots + 1, size), dtype), "batch", "heads", None, None)
    return KeysValues(zeros, zeros)


def stored(memory: KeysValues, new: KeysValues, slots: Int[Array, "b n"]) -> KeysValues:
    """The memory of `empty` with `new` tokens in the slots of each row; what falls beyond the last slot is lost."""
    batch, heads, size = memory.key.shape[:3]
    # A head is an index too: a single update of a batch of one would become a slice's, and XLA would copy the memory.
    rows, each = jnp.arange(batch)[:, None, None], jnp.arange(heads)[:, None]
    place = jnp.minimum(slots, size - 1)[:, None]

    def put(kept: Float[Array, "b g m k"], fresh: Float[Array, "b g n k"]) -> Float[Array, "b g m k"]:
        return kept.at[rows, each, place].set(fresh.astype(kept.dtype), mode="promise_in_bounds")

    return KeysValues(put(memory.key, new.key), put(memory.value, new.value))


def attend_memory(
    query: Float[Array, "b h n k"], memory: KeysValues, seen: Bool[Array, "#b #n s"]
) -> Float[Array, "b h n k"]:
    """Scaled dot-product attention over the slots that each query sees, each head of the memory read by its share of
    the queries' heads without being copied; logits and softmax in fp32. A query that sees none gives zeros.

    seen: of the first slots; none of the others is seen.
    """
    batch, heads, length, size = query.shape
    groups, slots = memory.key.shape[1:3]
    query = (query * size**-0.5).reshape(batch, groups, heads // groups, length, size)
    # The keys stand first: read row by row, where XLA would transpose them for the other order.
    logits = jnp.einsum("bgmk,bgrnk->bgmrn", memory.key, query, preferred_element_type=jnp.float32)
    logits = jnp.moveaxis(logits, 2, -1)
    seen = jnp.pad(seen, ((0, 0), (0, 0), (0, slots - seen.shape[-1])))[:, None, None]
    weights = jax.nn.softmax(jnp.where(seen, logits, jnp.finfo(logits.dtype).min), axis=-1)
    attended = jnp.einsum("bgrnm,bgmk->bgrnk", weights.astype(memory.value.dtype), memory.value)
    attended = jnp.where(seen.any(axis=-1, keepdims=True), attended, 0)
    return attended.reshape(batch, heads, length, size)
