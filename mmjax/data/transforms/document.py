"""A document as the field that sentence pairs are drawn from."""

import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import Transform
from mmjax.errors import UserError

TRIES = 10  # draws of an empty document in a row, after which the split counts as having no other document


class DocumentReader(Protocol):
    """The split that a document belongs to: a regular expression between its sentences, and each document's text."""

    between: str

    def __len__(self) -> int: ...

    def text(self, index: int) -> Any:
        """The text of a document as stored."""
        ...


class Document:
    """One document of a split: its sentences, and access to other documents. It is a handle that holds no other
    document in memory.

    text: as stored: a list of sentences, or a string. cleaning: the transforms that each sentence goes through.
    """

    def __init__(self, records: DocumentReader, index: int, text: Any, cleaning: tuple[Transform, ...] = ()):
        self._records, self._index, self._text, self._cleaning = records, index, text, cleaning

    @property
    def sentences(self) -> list[str]:
        """The sentences that aren't empty, in order. Raises `BadExample` where the document is no text."""
        parts = re.split(self._records.between, self._text) if isinstance(self._text, str) else self._text
        if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
            raise BadExample(f"the document is no text but {self._text!r:.40}", "undecodable")
        return [sentence for part in parts if (sentence := self._cleaned(part)).strip()]

    def other(self, rng: np.random.Generator) -> "Document":
        """Another document of the split that holds a sentence, drawn uniformly, cleaned like this one.

        Raises:
            UserError: the split holds no other document.
            BadExample: none of ten that were drawn holds a sentence.
        """
        count = len(self._records)
        if count < 2:
            raise UserError("the split has one document alone, and half of the pairs need a sentence of another one")
        for _ in range(TRIES):
            place = int(rng.integers(count - 1))
            text = self._records.text(place + (place >= self._index))
            found = Document(self._records, place + (place >= self._index), text, self._cleaning)
            try:
                if text is not None and found.sentences:
                    return found
            except BadExample:
                continue
        raise BadExample(f"{TRIES} documents in a row hold no sentence to put behind this one's", "empty")

    def mapped(self, transform: Transform) -> "Document":
        """The document, and the others that it gives, with every sentence transformed as in evaluation."""
        return Document(self._records, self._index, self._text, (*self._cleaning, transform))

    def _cleaned(self, sentence: str) -> str:
        for transform in self._cleaning:
            sentence = transform(sentence, None)
        return sentence

    def __str__(self) -> str:
        return "\n".join(self.sentences)
