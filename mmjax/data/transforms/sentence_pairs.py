"""Pairs of segments, the second of which follows the first or not, as in BERT's pretraining."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int8

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import Rng, Spec
from mmjax.data.transforms.document import Document
from mmjax.data.transforms.text import Tokenize
from mmjax.data.transforms.values import Labelled
from mmjax.errors import UserError

Pieces = list[int]
SPECIAL = 3  # [CLS] A [SEP] B [SEP]


class Pair(NamedTuple):
    """Two segments, and whether the second one follows the first in their document."""

    first: Pieces
    second: Pieces
    follows: bool


@dataclass(frozen=True)
class SentencePair(Tokenize):
    """Turns a `Document` into int32 ids `[length]` of `[CLS] A [SEP] B [SEP]`, their mask, and two labels: `next`, a
    bool, whether B follows A; and `types`, int8 `[length]`, 1 for B and the [SEP] behind it, else 0 (Devlin et al.
    2018, arXiv:1810.04805). [CLS] and [SEP] are the tokenizer's bos and eos; a [SEP] within A or B ends nothing.

    In training a run of whole sentences is drawn that fills the length (of a share `shorter` of the pairs, a length
    drawn from 2 on) and cut in two at a sentence's end. With probability `follow` B is its second part; else, and
    wherever the run is a single sentence, it is as much of another document of the split, from a random sentence on.
    A pair that is too long loses pieces of the longer segment, each at its begin or end at random.

    In evaluation A and B are the document's beginning, cut in the middle. A string is a single segment,
    `[CLS] A [SEP]`; its `next` is False, and its types are 0.

    Each document yields one pair an epoch; BERT's released code yields as many as the document fills.

    Raises UserError for a string in training.
    """

    random: ClassVar[bool] = True

    bos: bool = True
    eos: bool = True
    follow: float = 0.5
    shorter: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("follow", "shorter"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"SentencePair({name}={getattr(self, name)}): a share lies between 0 and 1")
        if self.length < SPECIAL + 2:
            raise UserError(f"SentencePair(length={self.length}): a pair takes {SPECIAL + 2} ids at least")
        if not (self.bos and self.eos):
            raise UserError(f"SentencePair(bos={self.bos}, eos={self.eos}): a pair is [CLS] A [SEP] B [SEP]")

    def __call__(self, value: Any, rng: Rng) -> Labelled:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not isinstance(value, Document):
            if rng is not None and isinstance(value, str):
                raise UserError(
                    f"SentencePair makes pairs of documents, and the data holds {value[:40]!r}: wrap its source, "
                    "sources={...: Documents(...)}"
                )
            return Labelled(super().__call__(value, rng), {"next": np.False_, "types": self._types(self.length)})
        tokenizer = self._model()
        sentences = value.sentences
        pair = self._beginning(sentences) if rng is None else self._drawn(value, sentences, rng)
        first, second = truncated(pair, self.length - SPECIAL, rng)
        begin = [tokenizer.bos, *first, tokenizer.eos]
        row = [*begin, *([*second, tokenizer.eos] if second else [])]
        labels = {"next": np.bool_(pair.follows), "types": self._types(len(begin), len(row))}
        return Labelled(self._filled(row), labels)

    def _first_end(self, row: Sequence[int | None]) -> int:
        return len(row)  # a separator ends no text

    def _types(self, second: int, end: int = 0) -> Int8[np.ndarray, " length"]:
        """An array with 1 from `second` to `end`, else 0."""
        types = np.zeros(self.length, np.int8)
        types[second:end] = 1
        return types

    def _drawn(self, document: Document, sentences: list[str], rng: np.random.Generator) -> Pair:
        target = self.length - SPECIAL
        if rng.random() < self.shorter:
            target = int(rng.integers(2, target + 1))
        run = self._run(sentences, target, start=int(rng.integers(len(sentences))) if sentences else 0)
        middle = int(rng.integers(1, len(run))) if len(run) > 1 else 1
        first = _joined(run[:middle])
        if rng.random() < self.follow and len(run) > 1:
            return Pair(first, _joined(run[middle:]), True)
        others = document.other(rng).sentences
        rest = others[int(rng.integers(len(others))) :]
        return Pair(first, _joined(until(rest, target - len(first), self._cut)), False)

    def _beginning(self, sentences: list[str]) -> Pair:
        run = self._run(sentences, self.length - SPECIAL, start=0)
        middle = max(1, len(run) // 2)
        return Pair(_joined(run[:middle]), _joined(run[middle:]), len(run) > 1)

    def _run(self, sentences: list[str], target: int, start: int) -> list[Pieces]:
        """The pieces of sentences from `start` on, at least `target` of them; where too few are left, of sentences
        before too.

        So the end of a document is a run as long as others, and a short document is always seen whole.
        """
        run = until(sentences[start:], target, self._cut)
        missing = target - sum(map(len, run))
        before = until(sentences[:start][::-1], missing, self._cut) if missing > 0 else []
        if not (run := before[::-1] + run):
            raise BadExample("the document holds no sentence", "empty")
        return run

    def _cut(self, sentence: str) -> Pieces:
        return self._encoded(sentence, None)

    def spec(self, before: Spec | None) -> Spec:
        return super().spec(before)._replace(labels=(("next", (), "bool"), ("types", (self.length,), "int8")))


def until(sentences: Iterable[str], target: int, cut: Callable[[str], Pieces]) -> list[Pieces]:
    """Collects the pieces of sentences until there are `target` or more, at least one sentence; empty ones are left
    out.
    """
    found: list[Pieces] = []
    count = 0
    for sentence in sentences:
        if pieces := cut(sentence):
            found.append(pieces)
            count += len(pieces)
            if count >= target:
                break
    return found


def truncated(pair: Pair, room: int, rng: Rng) -> tuple[Pieces, Pieces]:
    """Shortens both segments to at most `room` pieces together: the longer one loses first, and the second where they
    are equal. Each lost piece is the first or the last one with equal chance, the last one where `rng` is None.
    """
    first = min(len(pair.first), max(room - len(pair.second), (room + 1) // 2))
    second = min(len(pair.second), room - first)
    return _shortened(pair.first, first, rng), _shortened(pair.second, second, rng)


def _shortened(pieces: Pieces, length: int, rng: Rng) -> Pieces:
    lost = len(pieces) - length
    front = int(rng.binomial(lost, 0.5)) if rng is not None and lost else 0
    return pieces[front : front + length]


def _joined(parts: Iterable[Pieces]) -> Pieces:
    return [piece for part in parts for piece in part]
