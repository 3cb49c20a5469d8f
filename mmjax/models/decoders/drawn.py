"""Texts drawn from a decoder within another computation, such as a training step: several of each example at once."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from mmjax.models.decoders.any_decoder import AnyCache, AnyDecoder
from mmjax.models.decoders.text import Views


class DrawnTexts(NamedTuple):
    """Texts of one example after the other, of each as many as copies were asked for."""

    ids: Int[Array, "b*c m"]
    """Without the id that they begin with; 0 behind their end."""
    lengths: Int[Array, " b*c"]
    """The number of ids of each, with the one that ends it, where that came within `most`."""


def draw_texts(
    decoder: AnyDecoder,
    variables: Any,
    begin: Int[Array, " b"],
    end: Int[Array, " b"],
    views: Views,
    keys: Key[Array, " b"],
    likeliest: Bool[Array, " c"],
    most: int,
) -> DrawnTexts:
    """Texts of up to `most` ids, each word drawn from the decoder's own distribution, or the likeliest; no dropout acts
    and no gradient is taken. The beginning is read once for all copies.

    decoder: unbound. variables: its own. begin, end: the ids with which each example's texts begin and end. views: what
    it reads. keys: of each example; a text depends on its example's key and its number among the copies alone.
    likeliest: of each copy, whether its words are the likeliest.

    Raises UserError where the texts are longer than the decoder's positions.
    """
    variables, views = jax.lax.stop_gradient((variables, views))
    copies = len(likeliest)
    ahead = jax.eval_shape(lambda: decoder.apply(variables, views, method="before")).shape[1]  # pyright: ignore

    def logits_of(states: Array) -> Array:
        return decoder.apply(variables, states[:, -1], method="logits")  # pyright: ignore[reportReturnType]

    first = begin[:, None]
    read: Any = decoder.apply(variables, first, first >= 0, views, slots=ahead + most, method="prefill")
    cache, logits = jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), (read[1], logits_of(read[0])))
    keys = jax.vmap(lambda key: jax.vmap(lambda copy: jax.random.fold_in(key, copy))(jnp.arange(copies)))(keys)
    keys, ends, best = keys.reshape(-1), jnp.repeat(end, copies), jnp.tile(likeliest, len(begin))

    def word(logits: Array, count: Array) -> Array:
        drawn = jax.vmap(lambda key, own: jax.random.categorical(jax.random.fold_in(key, count), own))(keys, logits)
        return jnp.where(best, jnp.argmax(logits, axis=-1), drawn).astype(jnp.int32)

    def with_word(ids: Array, lengths: Array, done: Array, logits: Array, count: Array) -> tuple[Array, Array, Array]:
        new = jnp.where(done, 0, word(logits, count))
        return ids.at[:, count].set(new), lengths + ~done, done | (new == ends)

    def step(state: Any, count: Array) -> tuple[Any, None]:
        def grown(state: tuple[AnyCache, Array, Array, Array]) -> tuple[AnyCache, Array, Array, Array]:
            cache, ids, lengths, done = state
            last = jnp.take(ids, count - 1, axis=1)[:, None]
            found: Any = decoder.apply(variables, last, cache, ~done[:, None], method="extend")
            return found[1], *with_word(ids, lengths, done, logits_of(found[0]), count)

        return jax.lax.cond(state[3].all(), lambda state: state, grown, state), None

    rows = len(ends)
    empty = jnp.zeros((rows, most), jnp.int32), jnp.zeros(rows, jnp.int32), jnp.zeros(rows, bool)
    start = (cache, *with_word(*empty, logits, jnp.int32(0)))
    # As many rounds as there may be words, of which the last do nothing: the cost of a step can be told beforehand.
    (_, ids, lengths, _), _ = jax.lax.scan(step, start, jnp.arange(1, most))
    return DrawnTexts(ids, lengths)
