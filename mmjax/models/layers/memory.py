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
    """Slots without a token."""
    zeros = constrain(jnp.zeros((batch, heads, slots, size), dtype), "batch", "heads", None, None)
    return KeysValues(zeros, zeros)


def written(memory: KeysValues, new: KeysValues, slots: Int[Array, "b n"]) -> KeysValues:
    """The memory with `new` tokens in the slots of each row; what falls beyond the last slot is left out."""
    rows = jnp.arange(len(slots))[:, None]

    def put(kept: Float[Array, "b g m k"], fresh: Float[Array, "b g n k"]) -> Float[Array, "b g m k"]:
        # Advanced indices on both sides of a slice come first: [b, n, g, k].
        return kept.at[rows, :, slots].set(jnp.moveaxis(fresh, 1, 2).astype(kept.dtype), mode="drop")

    return KeysValues(put(memory.key, new.key), put(memory.value, new.value))


def attend_memory(
    query: Float[Array, "b h n k"], memory: KeysValues, seen: Bool[Array, "#b #n m"]
) -> Float[Array, "b h n k"]:
    """Scaled dot-product attention over the slots that each query sees, each head of the memory read by its share of
    the queries' heads without being copied; logits and softmax in fp32. A query that sees none gives zeros."""
    batch, heads, length, size = query.shape
    groups = memory.key.shape[1]
    query = (query * size**-0.5).reshape(batch, groups, heads // groups, length, size)
    logits = jnp.einsum("bgrnk,bgmk->bgrnm", query, memory.key, preferred_element_type=jnp.float32)
    seen = seen[:, None, None]
    weights = jax.nn.softmax(jnp.where(seen, logits, jnp.finfo(logits.dtype).min), axis=-1)
    attended = jnp.einsum("bgrnm,bgmk->bgrnk", weights.astype(memory.value.dtype), memory.value)
    attended = jnp.where(seen.any(axis=-1, keepdims=True), attended, 0)
    return attended.reshape(batch, heads, length, size)
