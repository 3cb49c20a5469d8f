"""Documents: texts of several sentences, of which a transform may take a part, or a part of another one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data.fingerprints import Fingerprint, fingerprint
from mmjax.data.sources import Records, Source
from mmjax.data.transforms import BadExample, Transform
from mmjax.errors import UserError

TRIES = 10  # documents that hold nothing, drawn in a row, before there is taken to be none that does


class Document:
    """One document of a split: its sentences, and a way to the others. A handle, which holds no other document.

    text: as it lies in the data: a list of sentences, or a string. cleaning: what each sentence goes through.
    """

    def __init__(self, records: "DocumentRecords", index: int, text: Any, cleaning: tuple[Transform, ...] = ()):
        self._records, self._index, self._text, self._cleaning = records, index, text, cleaning

    @property
    def sentences(self) -> list[str]:
        """The sentences that hold something, in order. Raises `BadExample` where the document is no text."""
        parts = re.split(self._records.between, self._text) if isinstance(self._text, str) else self._text
        if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
            raise BadExample(f"the document is no text but {self._text!r:.40}", "undecodable")
        return [sentence for part in parts if (sentence := self._cleaned(part)).strip()]

    def other(self, rng: np.random.Generator) -> "Document":
        """Another document of the split that holds a sentence, drawn uniformly, cleaned like this one.

        Raises:
            UserError: the split holds no other document.
            BadExample: of ten that were drawn none holds a sentence.
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
        """The document, and those that it leads to, with every sentence transformed as in evaluation."""
        return Document(self._records, self._index, self._text, (*self._cleaning, transform))

    def _cleaned(self, sentence: str) -> str:
        for transform in self._cleaning:
            sentence = transform(sentence, None)
        return sentence

    def __str__(self) -> str:
        return "\n".join(self.sentences)


@dataclass(frozen=True)
class Documents:
    r"""A source whose texts are documents: `Documents(Tfds("wikipedia/..."))`, for `SentencePair` at the chain's end.

    A text is a list of sentences, or one string, cut where the regular expression `between` matches: at line breaks, or
    at r"\n+|(?<=[.!?])\s+", which also takes each full stop before a space for a sentence's end, "U.S. " too.
    """

    source: Any
    between: str = r"\n+"

    def open(self, split: str, data_dir: str | None = None) -> "DocumentRecords":
        """Opens a split. Raises as the source does; ValueError where it has no text, or `between` is no expression."""
        source: Source = self.source
        try:
            re.compile(self.between)
        except re.error as error:
            raise ValueError(f"Documents(between={self.between!r}) is no regular expression: {error}") from error
        records = source.open(split, data_dir)
        if "text" not in records.columns:
            raise ValueError(f"Documents: the source has no text, but {', '.join(records.columns)}")
        return DocumentRecords(records, self.between)


class DocumentRecords:
    """A split of `Documents`: the source's records, each text a `Document`."""

    def __init__(self, records: Records, between: str):
        self._records, self.between = records, between
        self.columns = records.columns
        self.class_names: dict[str, tuple[str, ...]] = getattr(records, "class_names", {})

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        text = record["text"]
        return {**record, "text": None if text is None else Document(self, index, text)}

    def fingerprint(self) -> Fingerprint:
        """The source's."""
        return fingerprint(self._records)

    def text(self, index: int) -> Any:
        """The text of a document as it lies in the data."""
        return self._records[index]["text"]
