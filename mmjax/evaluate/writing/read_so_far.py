"""Reads a text that grows, such as a conversation's, with one memory: what was read already isn't read again."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.evaluate.writing.writer import Read, Texts, Writer
from mmjax.models.decoders.any_decoder import AnyCache
from mmjax.models.decoders.text import Cache, Views

LEAST, SPARE = 8, 10  # tokens: the smallest size; of so many one more may go through the decoder, to fill one up
SLOTS = 255  # the least of a memory, so that few sizes of them are compiled


class Token(NamedTuple):
    """A token of a text: its id; which of the views' tokens stands in its place, -1: none; and of which picture that
    is, by a number that no other picture has."""

    id: int
    insert: int = -1
    picture: int = -1


class ReadSoFar:
    """A text as far as a decoder has read it: its tokens, and the memory of them.

    passed: the sizes of what went through the decoder at the last reading, in tokens.
    """

    def __init__(self, writer: Writer):
        self._writer = writer
        self._cache: AnyCache | None = None
        self._ahead, self._beside = 0, None
        self.tokens: list[Token] = []
        self.passed: list[int] = []

    def read(self, text: Sequence[Token], views: Views, beside: Any, *, most: int) -> Read:
        """Reads a text of one token at least, which is followed by up to `most` words. The first tokens that are those
        of the text read before stay in the memory, which becomes the texts' that are written: `written` gives it back.

        views: what the decoder reads. beside: says which of them stand before or beside the text, not within it; where
        that isn't equal to what it was, all is read again.

        Raises UserError as `Writer.read` does.
        """
        cache, kept = self._cache, min(same_first(self.tokens, text), len(text) - 1)
        self._cache, writer = None, self._writer
        room = writer.decoder.room(self._ahead)
        if (
            not kept
            or beside != self._beside
            or not isinstance(cache, Cache)
            or (room is not None and len(text) > room)
        ):
            self.passed, self._ahead, self._beside = [len(text)], writer.ahead(views), beside
            ids, inserts, _ = zip(*text, strict=True)
            return writer.read([ids], views, most=most, inserts=[inserts], slots=SLOTS)
        left = most if room is None else min(most, room + 1 - len(text))
        slots = writer.slots(self._ahead, len(text) + left - 1, SLOTS)
        if slots > cache.slots:
            cache = with_slots(cache, slots)
        within, logits = {name: views[name] for name in writer.decoder.inserted}, None
        self.passed = sizes(len(text) - kept)
        for size in self.passed:
            part = [*text[kept : kept + size], *[Token(0)] * (kept + size - len(text))]
            ids, inserts, _ = np.array(part, np.int32).T[:, None]
            given = writer.put((ids, np.arange(size)[None] < len(text) - kept), 1)
            shown = writer.put((within, inserts), 1) if (inserts >= 0).any() else ({}, None)
            logits, cache = writer.further(writer.params, *given, *shown, cache, self._ahead + kept)
            kept += size
        assert logits is not None
        seen = np.zeros((1, writer.decoder.vocab), bool)
        seen[0, [token.id for token in text if token.insert < 0]] = True
        return Read(logits, cache, np.array([left], np.int32), writer.put(seen, 1))

    def written(self, texts: Texts, text: Sequence[Token], words: Sequence[int]) -> None:
        """Takes the memory back: of the text that was read, and of the words that were written behind it."""
        self._cache = texts.cache
        self.tokens = [*text, *map(Token, words[:-1])]  # the last one wasn't read

    def copy(self) -> "ReadSoFar":
        """Another one of the same text, with a memory of its own."""
        found = ReadSoFar(self._writer)
        found.tokens, found._ahead, found._beside = list(self.tokens), self._ahead, self._beside
        found._cache = jax.tree.map(jnp.copy, self._cache)
        return found


def sizes(count: int) -> list[int]:
    """The powers of two in which so many tokens are read: few, and not many more tokens than there are."""
    found, spare = [], max(LEAST - 1, count // SPARE)
    while count > 0:
        above = max(LEAST, 1 << (count - 1).bit_length())
        if above - count > spare:
            above //= 2
        found.append(above)
        count -= above
    return found


def same_first(one: Sequence[Token], other: Sequence[Token]) -> int:
    """The number of first tokens that are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


@partial(jax.jit, static_argnames="slots")
def with_slots(cache: Cache, slots: int) -> Cache:
    """The memory with room for so many tokens of each row."""
    more = slots - cache.slots
    memories = tuple(
        memory._replace(own=jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0))), memory.own))
        for memory in cache.memories
    )
    return cache._replace(memories=memories, real=jnp.pad(cache.real, ((0, 0), (0, more))))
