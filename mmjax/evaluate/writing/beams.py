"""Beam search: the texts of the best score that are found by keeping the best beginnings of each length."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import UserError, not_among
from mmjax.evaluate.writing.writer import Read, Writer, repeated_rows
from mmjax.models.decoders.any_decoder import AnyCache

LengthRule = Literal["power", "gnmt"]
GNMT_FIVE = 5  # of the formula of its length penalty
NEVER = -1e30  # the score of a beam that there isn't; finite, so that sums and quotients of it are


@dataclass(frozen=True)
class Beams:
    """The settings of a beam search.

    A text's score is the sum of its words' log-probabilities, that which ends it among them, over its length L to the
    power of alpha (`power`), or over ((5 + L) / 6) to that power (`gnmt`: Wu et al. 2016, arXiv:1609.08144, equation
    14, without the coverage). A search ends when there are `width` ended texts, and no beginning can become better than
    the worst of these, whatever its further words and its length: nothing is lost by that. With a width of 1 it ends
    with the first text that does: that is greedy writing.

    width: the number of beginnings that are kept.
    """

    width: int
    alpha: float = 1.0
    rule: LengthRule = "power"

    def check(self, vocab: int) -> None:
        """Raises UserError where a setting is out of its range; vocab: the number of words."""
        if isinstance(self.width, bool) or not isinstance(self.width, int) or self.width < 1:
            raise UserError(f"beams={self.width!r} must be a whole number of at least 1")
        if self.width > vocab:
            raise UserError(f"beams={self.width} are more than the {vocab} words that the model knows: take fewer")
        if not 0 <= self.alpha < float("inf"):
            raise UserError(f"length_penalty={self.alpha} must be at least 0: 0 compares sums, 1 means over words")
        if self.rule not in get_args(LengthRule):
            raise UserError(not_among("length_rule", self.rule, get_args(LengthRule)))

    def divisor(self, length: Int[Array, "*n"]) -> Float[Array, "*n"]:
        """The divisor of the sum of a text of so many words."""
        length = jnp.asarray(length, jnp.float32)
        return (length if self.rule == "power" else (GNMT_FIVE + length) / (GNMT_FIVE + 1)) ** self.alpha


class Hypotheses(NamedTuple):
    """Texts of a search, `w` of each prompt."""

    ids: Int[Array, "b w m"]
    words: Float[Array, "b w m"]
    """Their log-probabilities."""
    total: Float[Array, "b w"]
    """Their sum; in ended texts the score."""
    lengths: Int[Array, "b w"]


class Search(NamedTuple):
    """A search while it runs."""

    cache: AnyCache
    live: Hypotheses
    """Beginnings, of which the last word isn't in the memory yet."""
    ended: Hypotheses
    count: Int[Array, ""]
    """The number of words of the beginnings."""
    done: Bool[Array, " b"]


def search(writer: Writer, read: Read, beams: Beams) -> Hypotheses:
    """The best texts of each prompt, the best first; where there are fewer than `width`, those that lack have a length
    of 0. read: prompts, one row of each."""

    def run(params: Any, cache: AnyCache, logits: Float[Array, "b v"], most: Int[Array, " b"]) -> Hypotheses:
        cache, logits = repeated_rows((cache, logits), beams.width)
        grow = partial(_grown, writer=writer, beams=beams, most=most)

        def step(state: Search) -> Search:
            last = jnp.take(state.live.ids, state.count - 1, axis=2).reshape(-1)
            logits, cache = writer.extended(params, last, state.cache, jnp.repeat(~state.done, beams.width))
            return grow(state._replace(cache=cache), logits)

        state = grow(_start(cache, most, beams.width), logits)
        return jax.lax.while_loop(lambda state: ~state.done.all(), step, state).ended

    program = writer.program(beams, run)
    return program(writer.params, read.cache, read.logits, read.most)


def _start(cache: AnyCache, most: Int[Array, " b"], width: int) -> Search:
    rows, slots = len(most), cache.slots
    # Of the same beginnings but one counts: words would be chosen several times.
    first = jnp.where(jnp.arange(width) == 0, 0.0, NEVER)
    ids, words = jnp.zeros((rows, width, slots), jnp.int32), jnp.zeros((rows, width, slots), jnp.float32)
    empty = Hypotheses(ids, words, jnp.broadcast_to(first, (rows, width)), jnp.zeros((rows, width), jnp.int32))
    return Search(cache, empty, empty._replace(total=jnp.full((rows, width), NEVER)), jnp.int32(0), most < 1)


def _grown(
    state: Search, logits: Float[Array, "b*w v"], *, writer: Writer, beams: Beams, most: Int[Array, " b"]
) -> Search:
    """The search with one more word."""
    width, count = beams.width, state.count + 1
    allowed = jnp.arange(writer.decoder.vocab) < writer.vocab
    each = jnp.where(allowed, jax.nn.log_softmax(logits, axis=-1), NEVER)
    rows, vocab = len(most), each.shape[-1]
    total = (state.live.total[..., None] + each.reshape(rows, width, vocab)).reshape(rows, -1)
    # Each beginning may end in as many ways as there are ids that end it: of so many more, `width` go on.
    total, place = jax.lax.top_k(total, min(width * (1 + len(writer.eos)), total.shape[1]))
    parent, ids = place // vocab, (place % vocab).astype(jnp.int32)
    grown = _picked(state.live, parent)
    grown = Hypotheses(
        grown.ids.at[:, :, state.count].set(ids),
        grown.words.at[:, :, state.count].set(total - grown.total),
        jnp.maximum(total, NEVER),
        jnp.full_like(parent, count),
    )
    stops = jnp.isin(ids, jnp.array(writer.eos, jnp.int32)) if writer.eos else jnp.zeros(ids.shape, bool)
    last = (count >= most)[:, None]
    # Only the best `width` may end: an end that is worse than they are isn't what this beam would have written.
    ends = (stops | last) & (jnp.arange(ids.shape[1]) < width) & ~state.done[:, None] & (grown.total > NEVER / 2)
    fresh = grown._replace(
        total=jnp.where(ends, grown.total / beams.divisor(count), NEVER), lengths=jnp.where(ends, grown.lengths, 0)
    )
    both = Hypotheses(*(jnp.concatenate(pair, axis=1) for pair in zip(state.ended, fresh, strict=True)))
    ended = _picked(both, jax.lax.top_k(both.total, width)[1])
    place = jax.lax.top_k(jnp.where(stops, NEVER, grown.total), width)[1]
    live = _picked(grown, place)
    live = live._replace(total=jnp.where(jnp.take_along_axis(stops, place, axis=1), NEVER, live.total))
    hope = 0.0 if width == 1 else live.total.max(axis=1) / beams.divisor(most)  # further words only lower a sum
    full = ended.total.min(axis=1) > NEVER / 2
    done = state.done | last[:, 0] | (full & ((ended.total.min(axis=1) >= hope) | (width == 1)))
    cache = reordered(state.cache, jnp.take_along_axis(parent, place, axis=1))
    return Search(cache, live, ended, count, done)


def reordered(cache: AnyCache, parent: Int[Array, "b w"]) -> AnyCache:
    """The memory with the rows of the beginnings that go on; a context is the same for all of a prompt."""
    rows, width = parent.shape
    order = (jnp.arange(rows)[:, None] * width + parent).reshape(-1)
    return cache.reordered(order)


def _picked(texts: Hypotheses, places: Int[Array, "b n"]) -> Hypotheses:
    def pick(x: Array) -> Array:
        return jnp.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), axis=1)

    return Hypotheses(*map(pick, texts))
