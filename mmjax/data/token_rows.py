"""A corpus as rows of tokens, as GPT is trained on them: one stream of all documents, cut into rows of one length."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmjax.data.sources.contract import Records, Source
from mmjax.data.sources.fingerprints import Fingerprint
from mmjax.data.token_store import TokenStream, opened_stream, stored_stream
from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.data.transforms.token_row import StreamRow, tokenizer_key
from mmjax.errors import UserError


@dataclass(frozen=True)
class TokenRows(Source):
    """The documents of `source` as one stream of tokens, in their order, each followed by the end token, cut into rows
    of `length`: full rows without padding, whose documents see each other (Radford et al. 2019, GPT-2). `ReadRow` ends
    the chain.

    A row begins with the last token of the row before, since a row's first token isn't predicted: so every token of the
    stream but its first, an end token, is predicted once an epoch, and there are `(tokens - 1) / (length - 1)` rows,
    the last of which is padded. The rows are addressed by their numbers: they are the same on any number of hosts, and
    after any resumption.

    The first opening cuts all documents and keeps the stream in `tokens` beside the tokenizers (`token_store.py`); it
    is read from there, so that it takes no memory but the system's cache.

    Attributes:
        source: its records have a text, such as `TextFiles`.
        tokenizer: the same as `ReadRow`'s. It must be readable before captions are: from a file, not trained here.
        length: tokens of a row, 2 or more.
        modality: the texts' name in a record.
    """

    source: Any
    tokenizer: Any
    length: int
    modality: str = "text"

    def open(self, split: str, data_dir: str | None = None) -> "RowRecords":
        """Opens a split. Raises as the source does; UserError where it has no text, or for a tokenizer that can't be
        read, that has no end token, or that is to be trained.
        """
        source: Source = self.source
        if self.length < 2:
            raise UserError(f"TokenRows(length={self.length}): a row has 2 tokens or more, of which all but one count")
        records = source.open(split, data_dir)
        if self.modality not in records.columns:
            raise UserError(f"TokenRows: the source has no {self.modality}, but {', '.join(records.columns)}")
        root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
        tokenizer = ready_tokenizer(self.tokenizer, root, "TokenRows")
        files = stored_stream(records, self.modality, tokenizer, root / "tokens")
        return RowRecords(files, self.length, self.modality, tokenizer_key(tokenizer), records.fingerprint())


class RowRecords(Records):
    """A split of `TokenRows`."""

    media = ()
    named = False

    def __init__(self, files: tuple[Path, Path], length: int, modality: str, key: str, known: Fingerprint):
        self._files, self._length, self._modality, self._key, self._known = files, length, modality, key, known
        self._stream: TokenStream | None = None
        self.columns = ("id", modality)
        self._rows = -(-(len(self._opened().ids) - 1) // (length - 1))

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        begin = range(self._rows)[index] * (self._length - 1)
        ids, sizes = (array[begin : begin + self._length] for array in self._opened())
        return {"id": str(index), self._modality: StreamRow(ids.astype("int32"), int(sizes[1:].sum()), self._key)}

    def fingerprint(self, columns: Sequence[str] | None = None) -> Fingerprint:
        """The number of rows, and that of the source."""
        del columns
        return {**self._known, "rows": len(self), "tokens": self._files[0].name}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_stream": None}  # another process opens the files anew

    def _opened(self) -> TokenStream:
        if self._stream is None:
            self._stream = opened_stream(self._files)
        return self._stream


def ready_tokenizer(tokenizer: Any, data_dir: Path, who: str) -> Tokenizer:
    """The tokenizer that a source's field describes, with its model. Raises UserError where it is to be trained on
    captions, or is none; `who` is the source, for messages.
    """
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if not isinstance(tokenizer, TokenizerSpec):
        raise UserError(f"{who}(tokenizer={tokenizer!r:.60}) is no tokenizer: give Subwords(...) or SentencePiece(...)")
    if tokenizer.captions:
        raise UserError(
            f"{who}(tokenizer={tokenizer}): it would be trained on the texts, which are cut before: train it first "
            "(`SentencePiece.train`), and give its path"
        )
    return tokenizer.load(None, data_dir / "tokenizers")
