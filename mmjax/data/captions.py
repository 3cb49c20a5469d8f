"""Transforms of captions: from one or several strings to token ids of one length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32

from mmjax.data.tokenizers import SentencePiece, Tokenizer
from mmjax.data.transforms import BadExample, Masked, Rng, Spec, Transform, prefix_mask


@dataclass(frozen=True)
class PickCaption(Transform):
    """One caption of several: a string is itself; of a list or a dict by language, a random one in training.

    In evaluation it is `language`'s, or the first where there is none such. Empty captions are never picked.
    """

    random = True

    language: str = "en"

    def __call__(self, value: Any, rng: Rng) -> str:
        captions = self.every(value)
        if not captions:
            raise _no_caption(value)
        if rng is not None:
            return captions[int(rng.integers(len(captions)))] if len(captions) > 1 else captions[0]
        preferred = value.get(self.language) if isinstance(value, Mapping) else None
        return preferred if preferred and preferred.strip() else captions[0]

    def every(self, value: str | Sequence[str] | Mapping[str, str]) -> list[str]:
        """All captions of an example that aren't empty."""
        several = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
        captions = [value] if isinstance(value, str) else several
        return [caption for caption in captions if isinstance(caption, str) and caption.strip()]

    def spec(self, before: Spec | None) -> None:
        return None


@dataclass(frozen=True)
class Lowercase(Transform):
    """Lower case, with runs of white space made one space."""

    def __call__(self, value: str, rng: Rng) -> str:
        del rng
        if not isinstance(value, str):
            raise _no_caption(value)
        return " ".join(value.lower().split())


@dataclass(frozen=True)
class Tokenize(Transform):
    """A caption -> int32 ids `[length]` and their mask: `bos`, pieces, `eos`, then padding.

    A caption that is too long loses its last pieces, never `eos`: a pooling that reads the last token finds it.
    """

    tokenizer: SentencePiece | Tokenizer
    length: int
    bos: bool = False
    eos: bool = True

    def __call__(self, value: str, rng: Rng) -> Masked:
        if not isinstance(self.tokenizer, Tokenizer):
            raise TypeError(f"{self.tokenizer} has no model yet: mmjax.data.pipeline.prepare() trains or loads it")
        if not isinstance(value, str) or not value.strip():
            raise _no_caption(value)
        room = self.length - self.bos - self.eos
        try:
            pieces = self._pieces(self.tokenizer, value, rng)[:room]
        except (UnicodeError, RuntimeError) as error:  # half a surrogate pair, as a broken JSON gives it
            raise BadExample(f"the caption is no text: {error}", "undecodable") from error
        row = [self.tokenizer.bos] * self.bos + pieces + [self.tokenizer.eos] * self.eos
        ids: Int32[np.ndarray, " length"] = np.full(self.length, self.tokenizer.pad, np.int32)
        ids[: len(row)] = row
        return Masked(ids, prefix_mask(self.length, len(row)))

    def _pieces(self, tokenizer: Tokenizer, text: str, rng: Rng) -> list[int]:
        del rng
        return tokenizer.encode(text)

    def spec(self, before: Spec | None) -> Spec:
        return Spec((self.length,), "int32", masked=True)


@dataclass(frozen=True)
class RandomTokenize(Tokenize):
    """`Tokenize`, with a random one of the `best` likeliest segmentations in training (Kudo 2018, arXiv:1804.10959).

    A name is then seen cut in many ways, so that the parts of a word that training lacks mean something too.
    """

    random = True

    best: int = 8

    def _pieces(self, tokenizer: Tokenizer, text: str, rng: Rng) -> list[int]:
        if rng is None:
            return tokenizer.encode(text)
        segmentations = tokenizer.segmentations(text, self.best)
        return segmentations[int(rng.integers(len(segmentations)))]


def _no_caption(value: Any) -> BadExample:
    """What to raise for a caption that can't be read: bytes that are no UTF-8, a number, or nothing at all."""
    if isinstance(value, bytes | int | float):
        return BadExample(f"the caption is no text but {value!r:.40}", "undecodable")
    return BadExample("the caption is empty", "empty")
