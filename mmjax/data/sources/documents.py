"""Documents: texts of several sentences, of which a transform may take a part, or a part of another one."""

import re
from dataclasses import dataclass
from typing import Any

from mmjax.data.sources.contract import Records, Source
from mmjax.data.sources.fingerprints import Fingerprint, fingerprint
from mmjax.data.transforms.document import Document


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
