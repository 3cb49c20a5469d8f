"""Texts whose words have tags, those of named entities say: a tag per word, aligned to the tokenizer's pieces."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import RecordTransform, Rng, Spec, Transform
from mmjax.data.transforms.document import Document
from mmjax.data.transforms.labels import ClassNumbers, is_missing_label
from mmjax.data.transforms.text import Prompt, Tokenize
from mmjax.data.transforms.values import Labelled
from mmjax.errors import UserError

UNSCORED = -1  # the tag of a place that isn't to be scored


class TaggedWords(Document):
    """The words of one text and their tags, on the way to `TokenizeTagged`. The transforms before that clean each word
    by itself, as they clean a document's sentences, so that words and tags stay together.

    words, tags: as stored: a list each, or a text with white space between; tags may be None, which tags no word.
    """

    def __init__(self, words: Any, tags: Any, cleaning: tuple[Transform, ...] = ()):
        self._stored, self._cleaning = (words, tags), cleaning

    @property
    def words(self) -> list[str]:
        """The words, cleaned: "" where nothing is left of one. Raises `BadExample` where they are no texts."""
        words = _listed(self._stored[0])
        if words is None or not all(isinstance(word, str) for word in words):
            raise BadExample(f"the words are no texts but {self._stored[0]!r:.40}", "undecodable")
        return [self._cleaned(word).strip() if word.strip() else "" for word in words]

    @property
    def tags(self) -> list[Any]:
        """The tag of each word; None for one that has none. Raises `BadExample` where words and tags differ in
        number.
        """
        words, tags = _listed(self._stored[0]), _listed(self._stored[1])
        if is_missing_label(self._stored[1]):
            return [None] * len(words or ())
        if tags is None:
            raise BadExample(f"the tags are no list but {self._stored[1]!r:.40}", "unfit")
        if words is None or len(words) != len(tags):
            raise BadExample(f"there are {len(words or ())} words and {len(tags)} tags, and each word has one", "unfit")
        return tags

    @property
    def sentences(self) -> list[str]:
        """The whole text, as the one sentence that a tokenizer learns from."""
        text = str(self)
        return [text] if text else []

    def other(self, rng: np.random.Generator) -> Document:
        """Always raises UserError: tagged words are a text by itself."""
        del rng
        raise UserError("tagged words belong to no document, and have no other one beside them: use TokenizeTagged")

    def mapped(self, transform: Transform) -> "TaggedWords":
        """The words, each transformed as in evaluation, with their tags. Raises UserError for a `Prompt`, which stands
        before a whole text.
        """
        if isinstance(transform, Prompt):
            raise UserError(f"{transform} before tagged words would stand in front of every one of them: leave it out")
        return TaggedWords(*self._stored, (*self._cleaning, transform))

    def __str__(self) -> str:
        return " ".join(word for word in self.words if word)


@dataclass(frozen=True)
class TagWords(RecordTransform):
    """Makes the input `text` of two columns, the words of an example and a tag for each (`TaggedWords`).

    A record without words keeps its `text`. The words stand in a column of their own, since a list of texts in a column
    of captions is several captions.
    """

    words: str = "words"
    tags: str = "tags"
    text: str = "text"

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        del rng
        words = record.get(self.words)
        return record if is_missing_label(words) else {**record, self.text: TaggedWords(words, record.get(self.tags))}

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        return (*before, self.text) if self.words in before and self.text not in before else before


@dataclass(frozen=True)
class TokenizeTagged(Tokenize):
    """Encodes a text like `Tokenize`, with a label `tags`, int32 `[length]`: at the first piece of each word the number
    of its tag's class; -1 at other pieces, special ids and padding, and for a word without a tag.

    It takes `TaggedWords`, or a dict of `words` and `tags`; the ids are those of the words with a space between them,
    and no piece may reach over two words. In a string nothing is tagged. A word that is cut off with the end
    of a text that is too long, or of which cleaning leaves nothing, has no piece and isn't scored.

    classes: the tags, `("O", "B-PER", "I-PER")`, by number; in the data they stand by name or by number, as `Label`
    reads them. In a row that isn't valid all tags are 0: read them with `<text>_mask`.

    Raises UserError for classes that can't be, and as `Tokenize` does.
    """

    classes: tuple[str, ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._numbers  # noqa: B018 (the classes are checked)

    def __call__(self, value: Any, rng: Rng) -> Labelled:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(value, Mapping) and {"words", "tags"} <= set(value):
            value = TaggedWords(value["words"], value["tags"])
        tags = np.full(self.length, UNSCORED, np.int32)
        if not isinstance(value, TaggedWords):
            return Labelled(super().__call__(value, rng), {"tags": tags})  # pyright: ignore[reportArgumentType]
        numbers = [self._numbers.number(tag) for tag in value.tags]
        kept = [(word, number) for word, number in zip(value.words, numbers, strict=True) if word]
        words = [word for word, _ in kept]
        ids, mask = filled = super().__call__(" ".join(words), rng)
        pieces = [self._encoded(" " * (place > 0) + word, rng) for place, word in enumerate(words)]
        room = self.length - self.bos - self.eos
        whole = [piece for part in pieces for piece in part][:room]
        if (ids != self._filled(self._framed(whole)).values).any():
            raise BadExample(f"a piece reaches from one word into the next in {' '.join(words)!r:.60}", "unfit")
        begin = int(self.bos)
        for part, (_, number) in zip(pieces, kept, strict=True):
            if part and begin < self.bos + room and number is not None:
                tags[begin] = number
            begin += len(part)
        tags[~mask] = UNSCORED
        return Labelled(filled, {"tags": tags})

    def spec(self, before: Spec | None) -> Spec:
        return super().spec(before)._replace(labels=(("tags", (self.length,), "int32"),))

    @cached_property
    def _numbers(self) -> ClassNumbers:
        return ClassNumbers("TokenizeTagged", self.classes)


def _listed(value: Any) -> list[Any] | None:
    """The items of a list, or of a text with white space between; None for anything else."""
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        return list(value)
    return None
