"""Reads a user's texts: strings, or token ids."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.given_ids import IdsAlone
from mmjax.data.transforms.input import Input, Read, value_kind
from mmjax.data.transforms.values import prefix_mask
from mmjax.errors import UserError


class TextInput(Input):
    """Reads texts. An empty string is a valid text. Warns once about texts that are cut off."""

    one, several, unit, words, amount = "text", "texts", "tokens", True, "replaced"

    def __init__(self, modality: str, chain: Sequence[Any], spec: Any, upright: bool = True):
        super().__init__(modality, chain, spec, upright)
        self._warned = False

    @classmethod
    def disturbed(
        cls,
        values: np.ndarray,
        mask: np.ndarray | None,
        amount: float,
        random: np.random.Generator,
        chain: Sequence[Any],
    ) -> np.ndarray:
        """Ids of which each is replaced, with the probability `amount`, by another one that is drawn uniformly from the
        tokenizer's; those that begin and end a text and fill it up are neither replaced nor drawn."""
        if not 0 <= amount <= 1:
            raise UserError(f"the share of tokens that are replaced={amount} must be from 0 to 1")
        tokenizer = next((step.tokenizer for step in chain if step.vocabulary() is not None), None)
        if not isinstance(tokenizer, Tokenizer):
            raise UserError("texts are disturbed by other tokens of their tokenizer, and this model has none")
        kept = [token for token in (tokenizer.pad, tokenizer.bos, tokenizer.eos) if token is not None]
        words = np.setdiff1d(np.arange(tokenizer.vocab_size), kept)
        ordinary = np.isin(values, words) & (True if mask is None else mask)
        below, drawn = random.random(values.shape) < amount, random.integers(len(words) - 1, size=values.shape)
        # One of the others: those from its own place on count one more.
        other = words[drawn + (drawn >= np.searchsorted(words, values))]
        return np.where(ordinary & below, other, values).astype(values.dtype)

    @property
    def takes(self) -> str:
        return "it takes a string, or token ids as an array of ints [L]"

    def read(self, value: Any, where: str) -> Read:
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            return self._ids(value, where)
        if not isinstance(value, str):
            raise UserError(f"{where} is {value_kind(value)}; {self.takes}")
        values, mask = self.run(str(value))
        if mask is not None and mask.all():
            self._warn_if_cut(str(value), where)
        return values, mask

    def _ids(self, ids: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Given token ids, padded to the chain's length."""
        (length,) = self.spec.shape
        transform = next((t for t in self.chain if t.vocabulary() is not None), None)
        if transform is None or not isinstance(transform.tokenizer, Tokenizer):
            raise UserError(f"{where} is token ids, but the model has no tokenizer")
        if ids.ndim != 1 or not 0 < len(ids) <= length:
            raise UserError(f"{where} is ids {list(ids.shape)}; ids are an array [L] of 1 to {length}")
        alone = isinstance(transform.tokenizer, IdsAlone)
        vocab, whose = transform.tokenizer.vocab_size, "model" if alone else "tokenizer"
        if ids.min() < 0 or ids.max() >= vocab:
            raise UserError(f"{where} holds ids from {ids.min()} to {ids.max()}; the {whose}'s are 0 to {vocab - 1}")
        if alone and transform.pad is None and len(ids) < length:
            raise UserError(
                f"{where} is {len(ids)} ids of {length}, and which id fills up the rest, neither a tokenizer nor the "
                f"model's config says: give all {length}"
            )
        pad = transform.pad if transform.pad is not None else transform.tokenizer.pad
        row = np.full(length, pad, np.int32)
        row[: len(ids)] = ids
        if isinstance(transform.tokenizer, IdsAlone):
            return row, prefix_mask(length, transform.tokenizer.reach(ids, pad, transform.eos))
        return row, prefix_mask(length, transform.reach(ids))

    def _warn_if_cut(self, text: str, where: str) -> None:
        for transform in self.chain:
            if self._warned:
                return
            if transform.vocabulary() is None:
                text = transform(text, None)
            elif isinstance(transform.tokenizer, Tokenizer):
                room = transform.length - transform.bos - transform.eos
                pieces = len(transform.tokenizer.encode(text))
                if pieces > room:
                    self._warned = True
                    warnings.warn(
                        f"{where} has {pieces} tokens, of which the model reads the first {room}; further texts that "
                        "are cut off aren't named",
                        stacklevel=2,
                    )
                return
