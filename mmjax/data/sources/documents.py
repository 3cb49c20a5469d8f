"""Documents: texts of several sentences, of which a transform may take a part, or a part of another one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmjax.data.sources.contract import Records, Source, media_columns
from mmjax.data.transforms.document import Document
from mmjax.errors import UserError


@dataclass(frozen=True)
class Documents(Source):
    r"""A source whose texts are documents: `Documents(Tfds("wikipedia/..."))`, for `SentencePair` at the chain's end.

    A text is a list of sentences, or one string, cut where the regular expression `between` matches: at line breaks, or
    at r"\n+|(?<=[.!?])\s+", which also takes each full stop before a space for a sentence's end, "U.S. " too.
    modality: the texts' name in a record.
    """

    source: Any
    between: str = r"\n+"
    modality: str = "text"

    def open(self, split: str, data_dir: str | None = None) -> "DocumentRecords":
        """Opens a split. Raises as the source does; UserError where it has no text, or `between` is no expression."""
        source: Source = self.source
        try:
            re.compile(self.between)
        except re.error as error:
            raise UserError(f"Documents(between={self.between!r}) is no regular expression: {error}") from error
        records = source.open(split, data_dir)
        if self.modality not in records.columns:
            raise UserError(f"Documents: the source has no {self.modality}, but {', '.join(records.columns)}")
        return DocumentRecords(records, self.between, self.modality)


class DocumentRecords(Records):
    """A split of `Documents`: the source's records, each text (of `modality`) a `Document`."""

    def __init__(self, records: Records, between: str, modality: str = "text"):
        self._records, self.between, self._modality = records, between, modality
        self.columns, self.media = records.columns, media_columns(records)
        self.class_names, self.named = records.class_names, records.named
        self.tells_apart, self.distinct = records.tells_apart, records.distinct

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        text = record[self._modality]
        return {**record, self._modality: None if text is None else Document(self, index, text)}

    def fingerprint(self, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """The source's."""
        return self._records.fingerprint(columns)

    def text(self, index: int) -> Any:
        """The text of a document as stored."""
        return self._records[index][self._modality]
