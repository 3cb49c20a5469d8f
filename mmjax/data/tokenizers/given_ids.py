"""Texts that come as ids: of models whose folder brings no tokenizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.errors import UserError


@dataclass(frozen=True)
class GivenIds(TokenizerSpec):
    """There is no tokenizer. eos: the id that ends a text; None: the highest that the text holds."""

    vocab_size: int
    eos: int | None = None

    def load(self, captions: Iterable[str] | None, folder: Path) -> Tokenizer:
        """Raises UserError: there is none."""
        del captions, folder
        raise UserError(
            f"{self}: the model that was read has no tokenizer, which texts are read by: put its files beside it, or "
            "name another one in the text's transforms"
        )


class IdsAlone(Tokenizer):
    """Stands for the tokenizer that a model lacks: what is known of its ids, and no way to cut a text.

    spec: what the model's chain says of the tokenizer.  whose: the model, for messages.
    `pad` stands where it must; which id fills up, `Tokenize.pad` alone says.
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
        """What to say to whoever gives a string."""
        return (
            f"{self._whose} has no tokenizer, which the {modality} tower needs to read strings: give token ids, an "
            "array of ints [L]"
        )

    def reach(self, ids: np.ndarray, pad: int | None, ended: bool) -> int:
        """How many of the ids are the text's: up to the first that ends it, or else to the last that doesn't fill up.

        pad: the id that fills up.  ended: whether the model looks for an end.
        """
        words = np.flatnonzero(ids != pad)
        last = words[-1] if len(words) else 0
        if ended and self._highest:
            last = np.argmax(ids)
        elif ended and (ids == self.eos).any():
            last = np.argmax(ids == self.eos)
        return int(last) + 1
