"""Rows of a corpus that is one stream of tokens."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.transforms.contract import Rng, Spec
from mmjax.data.transforms.text import Tokenize
from mmjax.data.transforms.values import Labelled
from mmjax.errors import UserError


class StreamRow(NamedTuple):
    """A row of `TokenRows`, on the way to `ReadRow`.

    ids: the tokens. size: the bytes of text, in UTF-8, of all but the first. cut_by: the `tokenizer_key`.
    """

    ids: Int[np.ndarray, " n"]
    size: int
    cut_by: str


@dataclass(frozen=True)
class ReadRow(Tokenize):
    """Gives the tokens of a row of `TokenRows` as int32 ids `[length]` and their mask, with a label `bytes`, int32
    `[]`: the bytes of text that the tokens but the first stand for, which are those that are predicted. So the bits per
    byte of a batch are its summed loss in bits by its summed bytes.

    A string, of a user's, is encoded as `Tokenize` does, with the end token before it, as a document stands in a row.

    Raises UserError for a row that another tokenizer cut, or of another length.
    """

    bos: bool = False
    eos: bool = False

    def __call__(self, value: Any, rng: Rng) -> Labelled:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not isinstance(value, StreamRow):
            if not isinstance(value, str):
                raise BadExample(f"{value!r:.40} is no row of TokenRows, and no text", "undecodable")
            ids, sizes = self._sized(value)
            row = [end_token(self._model(), "ReadRow"), *ids][: self.length]
            return Labelled(self._filled(row), {"bytes": np.array(sum(sizes[: len(row) - 1]), np.int32)})
        if value.cut_by != self._key:
            raise UserError(
                "the rows of TokenRows are cut by another tokenizer than that of ReadRow: give both the same one; a "
                "run that goes on keeps the tokenizer that it began with"
            )
        if len(value.ids) > self.length:
            raise UserError(
                f"a row of TokenRows has {len(value.ids)} tokens, and ReadRow(length={self.length}) room for fewer: "
                "give both the same length"
            )
        return Labelled(self._filled(value.ids.tolist()), {"bytes": np.array(value.size, np.int32)})

    def spec(self, before: Spec | None) -> Spec:
        return super().spec(before)._replace(labels=(("bytes", (), "int32"),))

    @cached_property
    def _key(self) -> str:
        return tokenizer_key(self._model())

    def _first_end(self, row: Any) -> int:
        return len(row)  # the end token stands between documents

    def _sized(self, text: str) -> tuple[list[int], list[int]]:
        try:
            return self._model().encode_sized(text)
        except (UnicodeError, RuntimeError) as error:
            raise BadExample(f"the text is no text: {error}", "undecodable") from error


def tokenizer_key(tokenizer: Tokenizer) -> str:
    """A digest of a tokenizer: equal for equal ones."""
    return hashlib.blake2b(type(tokenizer).__name__.encode() + tokenizer.model, digest_size=16).hexdigest()


def end_token(tokenizer: Tokenizer, who: str) -> int:
    """The id of the end token. Raises UserError where there is none; `who` needs it, for the message."""
    if tokenizer.eos is None:
        raise UserError(f"{who}: the tokenizer has no end token, which stands between documents: take one that has")
    return tokenizer.eos
