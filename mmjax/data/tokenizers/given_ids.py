"""Texts that come as ids: of models whose folder brings no tokenizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.errors import UserError


@dataclass(frozen=True)
class GivenIds(TokenizerSpec):
    """Describes texts that come as token ids, without a tokenizer. eos: the id that ends a text; None: the highest in
    the text.
    """

    vocab_size: int
    eos: int | None = None

    def load(self, captions: Iterable[str] | None, folder: Path) -> Tokenizer:
        """Always raises UserError: there is no tokenizer."""
        del captions, folder
        raise UserError(
            f"{self}: the model that was read has no tokenizer, which texts are read by: put its files beside it, or "
            "name another one in the text's transforms"
        )


class IdsAlone(Tokenizer):
    """Stands in for a tokenizer that a model lacks: it knows the ids, but can't cut a text.

    spec: the description in the model's chain. whose: the model's name, for messages. `pad` is a placeholder:
    `Tokenize.pad` alone sets the padding id.
    """

    def __init__(self, spec: TokenizerSpec, whose: str):
        self.model, self.vocab_size, self._whose = b"", spec.vocab_size, whose
        self._highest = not isinstance(spec, GivenIds) or spec.eos is None
        end = spec.eos if isinstance(spec, GivenIds) else None
        self.pad, self.bos, self.eos = 0, 0, spec.vocab_size - 1 if end is None else end

    def encode(self, text: str) -> list[int]:
        del text
        raise UserError(self.missing("text"))

    def missing(self, modality: str) -> str:
        """The message for a string given as input."""
        return (
            f"{self._whose} has no tokenizer, which the {modality} tower needs to read strings: give token ids, an "
            "array of ints [L]"
        )

    def reach(self, ids: np.ndarray, pad: int | None, ended: bool) -> int:
        """The number of ids that belong to the text: up to the first that ends it, or else to the last that isn't
        padding.

        pad: the padding id. ended: whether the model looks for an end.
        """
        words = np.flatnonzero(ids != pad)
        last = words[-1] if len(words) else 0
        if ended and self._highest:
            last = np.argmax(ids)
        elif ended and (ids == self.eos).any():
            last = np.argmax(ids == self.eos)
        return int(last) + 1
