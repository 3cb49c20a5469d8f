"""Writes with a decoder: prompts in batches of a few sizes, one program that reads them and one that writes on."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError
from mmjax.evaluate.writing.sampling import GREEDY, Sampling, next_words, row_keys, word_keys
from mmjax.models.decoders.any_decoder import AnyCache, AnyDecoder
from mmjax.models.decoders.text import NO_VIEWS, Cache, Views, last_word
from mmjax.models.layers.decoder_layers import unstacked
from mmjax.runtime.mesh import Mesh, batch_sharding, replicated

LEAST = 16  # tokens: the smallest size of a prompt that is compiled


class Texts(NamedTuple):
    """Texts while they are written, on the device."""

    cache: AnyCache
    ids: Int[Array, "b m"]
    """The words so far, in the first places."""
    scores: Float[Array, "b m"]
    """Their log-probabilities in the model's own distribution."""
    done: Bool[Array, " b"]
    counts: Int[Array, " b"]
    """The number of words of each row."""
    count: Int[Array, ""]
    """The number of words of a row that isn't done."""
    seen: Bool[Array, "b v"] | None
    """The words that a row has, where a penalty needs them."""


class News(NamedTuple):
    """The news of a step for the host, apart from the texts, whose arrays the next step takes and changes."""

    ids: Int[Array, " b"]
    """The last words."""
    done: Bool[Array, " b"]


class Task(NamedTuple):
    """The settings of a batch, the same while its texts are written."""

    sampling: Sampling
    keys: Key[Array, " b"]
    most: Int[Array, " b"]
    """The number of words that each row may have."""


class Read(NamedTuple):
    """Prompts that were read: the logits of the words that come next, and the memory."""

    logits: Float[Array, "b v"]
    cache: AnyCache
    most: Int[np.ndarray, " b"]
    """The number of words for which each row has room, or that it is to have at most."""
    seen: Bool[Array, "b v"]
    """The words of each prompt."""


class Writer:
    """Writes texts with a decoder and its parameters; each program is compiled once for a size of batch, prompt and
    memory, and those are powers of two.

    decoder: a `TextDecoder` or a `RecurrentDecoder`, bound or not. params: its own. eos: the ids that end a text.
    vocab: the number of ids that are words; the decoder's table may have more rows.
    """

    def __init__(
        self, decoder: AnyDecoder, params: Mapping[str, Any], eos: Sequence[int] = (), vocab: int | None = None
    ):
        self.decoder = decoder = decoder.clone(parent=None)
        self._host_params, self.eos = params, tuple(eos)
        self.vocab = decoder.vocab if vocab is None else min(vocab, decoder.vocab)
        self.prefill = jax.jit(self._prefill, static_argnames="slots")
        self.advance = jax.jit(self._advance, donate_argnames="texts")
        self.further = jax.jit(self._further, donate_argnames="cache")
        self._begin = jax.jit(self._begun, donate_argnames="cache")
        self._programs: dict[Any, Any] = {}

    @cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices of this machine."""
        return Mesh().build(jax.local_devices())

    @cached_property
    def params(self) -> dict[str, Any]:
        """The parameters on every device, those of each layer of a stack as arrays of their own."""
        held = self._host_params
        apart = {**held, "layers": unstacked(held["layers"])} if "layers" in held else {**held}
        return jax.device_put(apart, replicated(self.mesh))

    def program(self, key: Any, function: Callable[..., Any]) -> Any:
        """The compiled function, kept under a key as long as the writer is."""
        if key not in self._programs:
            self._programs[key] = jax.jit(function)
        return self._programs[key]

    def put(self, tree: Any, rows: int) -> Any:
        """Arrays on the devices, each with its part of the rows where these are as many as devices, or a multiple."""
        whole = rows % self.mesh.size == 0
        return jax.device_put(tree, batch_sharding(self.mesh) if whole else replicated(self.mesh))

    def read(
        self,
        prompts: Sequence[Sequence[int]],
        views: Views = NO_VIEWS,
        *,
        most: int,
        together: Sequence[int] | None = None,
        inserts: Sequence[Sequence[int]] | None = None,
        copies: int = 1,
        slots: int = 0,
    ) -> Read:
        """Reads prompts, of one id at least, each followed by up to `most` words.

        views: what the decoder reads, of as many rows. together: how many of each prompt's first words see each other.
        inserts: which of the views' tokens stands in the place of each of a prompt's ids, -1: none; None: none does.
        copies: the number of texts of each prompt, which stand side by side. The rows are filled up to a power of two
        of prompts, with the first one. slots: the least of the memory.

        Raises:
            UserError: a prompt is longer than the decoder's positions; `most` is below 1; a token is to stand in a
                prompt that the views don't have.
        """
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise UserError(f"max_new_tokens={most!r} must be a whole number of at least 1")
        count, longest = len(prompts), max(map(len, prompts))
        rows = 1 << (count - 1).bit_length()
        views = {name: tuple(filled_rows(one, rows) for one in pair) for name, pair in views.items()}
        ahead = self.ahead(views)
        room = self.decoder.room(ahead)
        lengths = filled_rows(np.array([len(prompt) for prompt in prompts], np.int32), rows)
        limits = np.full(rows, most, np.int32)
        if room is not None:
            if longest > room:
                raise UserError(
                    f"a prompt of {longest} tokens is {longest - room} more than the {room} that the decoder reads"
                    + (f" behind {ahead} tokens of what stands before it" if ahead else "")
                    + ": shorten it"
                )
            limits = np.minimum(limits, room + 1 - lengths)
        words = int((lengths + limits).max()) - 1  # the last one is never read
        slots = self.slots(ahead, words, slots)
        size = min(max(LEAST, 1 << (longest - 1).bit_length()), slots - ahead)
        ids = np.zeros((rows, size), np.int32)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
        ids[count:] = ids[0]
        mask = np.arange(size) < lengths[:, None]
        places = self._places(inserts, ids.shape, views)
        first = None if together is None else filled_rows(np.asarray(together, np.int32), rows)
        given = self.put((ids, mask, views, first, places), rows)
        logits, cache, seen = self.prefill(self.params, *given, slots=slots)
        limits[count:] = 0
        if copies > 1:
            logits, cache, seen = repeated_rows((logits, cache, seen), copies)
            limits = limits.repeat(copies)
        return Read(logits, cache, limits, seen)

    def slots(self, ahead: int, words: int, least: int = 0) -> int:
        """The slots of a memory for so many words behind `ahead` tokens: a size that is compiled, `least` or more."""
        slots = max(least, (1 << (ahead + words).bit_length()) - 1)  # with the one behind them a power of two
        room = self.decoder.room(ahead)
        return slots if room is None else min(slots, ahead + room)

    def ahead(self, views: Views) -> int:
        """The number of tokens that stand before a text."""
        shape = jax.eval_shape(lambda p, v: self.decoder.apply({"params": p}, v, method="before"), self.params, views)
        return shape.shape[1]

    def _places(
        self, inserts: Sequence[Sequence[int]] | None, shape: tuple[int, int], views: Views
    ) -> Int[np.ndarray, "b l"] | None:
        """`inserts` as an array, where any token stands within a prompt."""
        most = max((place for row in inserts or () for place in row), default=-1)
        if inserts is None or most < 0:
            return None
        self.decoder.check_views(views, inserts)
        shapes = jax.eval_shape(lambda p, v: self.decoder.apply({"params": p}, v, method="within"), self.params, views)
        if most >= (count := shapes[0].shape[1]):
            raise UserError(
                f"a prompt has places for {most + 1} tokens of {', '.join(self.decoder.inserted)}, and there are "
                f"{count}: set the slots of its tokenizer to their numbers"
            )
        found = np.full(shape, -1, np.int32)
        for row, some in enumerate(inserts):
            found[row, : len(some)] = some
        found[len(inserts) :] = found[0]
        return found

    def begin(
        self,
        read: Read,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        rows: Sequence[int] = (),
        samples: Sequence[int] = (),
    ) -> tuple[Texts, News, Task]:
        """The first words of texts whose prompts were read, and what `advance` is told. The memory that was read
        becomes theirs.

        rows, samples: of each text the number of its prompt and of the text of that prompt, by which, with the seed, it
        is drawn; without them the prompts have the numbers from 0.
        """
        size = len(read.most)
        numbers = np.zeros((2, size), np.int32)
        numbers[0] = np.arange(size)
        numbers[0, : len(rows)], numbers[1, : len(samples)] = rows, samples
        keys = row_keys(jax.random.key(seed), *jnp.asarray(numbers))
        keys, most = self.put((keys, read.most), size)
        given = Task(jax.device_put(sampling.settings(), replicated(self.mesh)), keys, most)
        return *self._begin(read.cache, read.logits, read.seen, given), given

    def _prefill(
        self,
        params: Any,
        ids: Int[Array, "b l"],
        mask: Bool[Array, "b l"],
        views: Views,
        together: Int[Array, " b"] | None,
        inserts: Int[Array, "b l"] | None,
        *,
        slots: int,
    ) -> tuple[Float[Array, "b v"], AnyCache, Bool[Array, "b v"]]:
        given = ids, mask, views, together, inserts
        result: Any = self.decoder.apply({"params": params}, *given, slots=slots, method="prefill")
        states, cache = result
        words = jnp.where(mask if inserts is None else mask & (inserts < 0), ids, self.decoder.vocab)
        seen = jnp.zeros((len(ids), self.decoder.vocab), bool)
        seen = seen.at[jnp.arange(len(ids))[:, None], words].set(True, mode="drop")
        return self.logits(params, last_word(states, mask)), cache, seen

    def logits(self, params: Any, states: Float[Array, "b d"]) -> Float[Array, "b v"]:
        """The logits of the words that come next."""
        return self.decoder.apply({"params": params}, states, method="logits")  # pyright: ignore[reportReturnType]

    def extended(
        self, params: Any, ids: Int[Array, " b"], cache: AnyCache, mask: Bool[Array, " b"]
    ) -> tuple[Float[Array, "b v"], AnyCache]:
        """The logits behind one more word of each row that `mask` has, and the memory with it."""
        result: Any = self.decoder.apply({"params": params}, ids[:, None], cache, mask[:, None], method="extend")
        states, cache = result
        return self.logits(params, states[:, 0]), cache

    def _further(
        self,
        params: Any,
        ids: Int[Array, "1 n"],
        mask: Bool[Array, "1 n"],
        views: Views,
        inserts: Int[Array, "1 n"] | None,
        cache: Cache,
        slot: int | Int[Array, ""],
    ) -> tuple[Float[Array, "1 v"], Cache]:
        """The logits behind the words that come next in a row, and the memory with them. What the memory has from
        `slot` on is left out."""
        left_out = cache.real & (jnp.arange(cache.slots) >= slot)
        cache = cache._replace(
            real=cache.real & ~left_out,
            slot=jnp.full_like(cache.slot, slot),
            place=cache.place - left_out.sum(axis=1),
        )
        given = ids, cache, mask, views, inserts
        result: Any = self.decoder.apply({"params": params}, *given, method="extend")
        states, cache = result
        return self.logits(params, last_word(states, mask)), cache

    def _begun(
        self, cache: AnyCache, logits: Float[Array, "b v"], seen: Bool[Array, "b v"], given: Task
    ) -> tuple[Texts, News]:
        rows, slots = len(logits), cache.slots
        penalty = given.sampling.repetition_penalty is not None
        texts = Texts(
            cache,
            jnp.zeros((rows, slots), jnp.int32),
            jnp.zeros((rows, slots), jnp.float32),
            given.most < 1,
            jnp.zeros(rows, jnp.int32),
            jnp.int32(0),
            seen if penalty else None,
        )
        texts = self._with_word(texts, logits, given)
        return texts, _news(texts)

    def _with_word(self, texts: Texts, logits: Float[Array, "b v"], given: Task) -> Texts:
        """The texts with the next word of those that aren't done."""
        allowed = jnp.arange(self.decoder.vocab) < self.vocab
        keys, going = word_keys(given.keys, texts.count), ~texts.done
        ids, scores = next_words(logits, given.sampling, keys, allowed, texts.seen)
        ids, scores = jnp.where(going, ids, 0), jnp.where(going, scores, 0)
        counts = texts.counts + going
        ended = jnp.isin(ids, jnp.array(self.eos, jnp.int32)) if self.eos else False
        seen = texts.seen
        if seen is not None:
            at = jnp.arange(len(ids)), jnp.where(going, ids, seen.shape[1])
            seen = seen.at[at].set(True, mode="drop")
        return Texts(
            texts.cache,
            texts.ids.at[:, texts.count].set(ids),
            texts.scores.at[:, texts.count].set(scores),
            texts.done | ended | (counts >= given.most),
            counts,
            texts.count + 1,
            seen,
        )

    def _advance(self, params: Any, texts: Texts, given: Task, until: int | Int[Array, ""]) -> tuple[Texts, News]:
        """The texts with as many words as `until`, or all that they have where they are done before."""

        def step(texts: Texts) -> Texts:
            last = jnp.take(texts.ids, texts.count - 1, axis=1)
            logits, cache = self.extended(params, last, texts.cache, ~texts.done)
            return self._with_word(texts._replace(cache=cache), logits, given)

        texts = jax.lax.while_loop(lambda texts: (texts.count < until) & ~texts.done.all(), step, texts)
        return texts, _news(texts)


def _news(texts: Texts) -> News:
    return News(jnp.take(texts.ids, texts.count - 1, axis=1), texts.done)


def filled_rows(array: Any, rows: int) -> Any:
    """The array with its first row again and again behind its own, up to so many rows."""
    more = rows - len(array)
    if not more:
        return array
    return (jnp if isinstance(array, jax.Array) else np).concatenate([array, array[:1].repeat(more, 0)])


@partial(jax.jit, static_argnames="copies")
def repeated_rows(tree: Any, copies: int) -> Any:
    """Arrays with each row so many times, side by side."""
    return jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), tree)
