"""Texts that hold the answer to a question: where it stands, in the tokenizer's pieces."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import RecordTransform, Rng, Spec, Transform
from mmjax.data.transforms.document import Document
from mmjax.data.transforms.labels import is_missing_label
from mmjax.data.transforms.text import Tokenize
from mmjax.data.transforms.values import Labelled
from mmjax.errors import UserError

UNKNOWN, NOWHERE = (-1, -1), (0, 0)
SPECIAL = 3  # [CLS] question [SEP] text [SEP]


class AnsweredText(Document):
    """A question, a text, and the answer in it, on the way to `TokenizeAnswer`.

    answer: its words; None: the text holds none. start: the place of its first character.
    """

    def __init__(self, question: str, context: str, answer: str | None, start: int = -1):
        self.question, self.context, self.answer, self.start = question, context, answer, start

    @property
    def sentences(self) -> list[str]:
        """The question and the text."""
        return [self.question, self.context]

    def other(self, rng: np.random.Generator) -> Document:
        """Always raises UserError: it belongs to no document."""
        del rng
        raise UserError("a text with an answer belongs to no document, and has no other beside it: use TokenizeAnswer")

    def mapped(self, transform: Transform) -> Document:
        """Always raises UserError: cleaned texts have their answers elsewhere."""
        raise UserError(f"{transform} before TokenizeAnswer would move the answer: clean the texts of the data instead")

    def __str__(self) -> str:
        return f"{self.question} {self.context}"


@dataclass(frozen=True)
class AnswerInText(RecordTransform):
    """Makes the input `text` of four columns: a question, a text, the answer in it and the place of its first character
    (SQuAD: Rajpurkar et al. 2016, arXiv:1606.05250). An answer that is lacking stands nowhere in the text (SQuAD 2.0:
    Rajpurkar et al. 2018, arXiv:1806.03822).

    question, context, answer, start: the columns. A record without a question or a text keeps its `text`.
    """

    question: str = "question"
    context: str = "text"
    answer: str = "answer"
    start: str = "start"
    text: str = "text"

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        del rng
        asked, within, answer, start = (
            record.get(name) for name in (self.question, self.context, self.answer, self.start)
        )
        if is_missing_label(asked) or is_missing_label(within):
            return record
        if not isinstance(asked, str) or not isinstance(within, str):
            raise BadExample(f"the question or its text is no text: {asked!r:.40}, {within!r:.40}", "undecodable")
        if is_missing_label(answer) or is_missing_label(start):
            return {**record, self.text: AnsweredText(asked, within, None)}
        try:
            place = int(start)  # pyright: ignore[reportArgumentType] (a column holds anything)
        except (TypeError, ValueError):
            raise BadExample(f"the answer's place is {start!r:.40}, and no number", "unfit") from None
        return {**record, self.text: AnsweredText(asked, within, str(answer), place)}

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        return (*before, self.text) if self.context in before and self.text not in before else before


@dataclass(frozen=True)
class TokenizeAnswer(Tokenize):
    """Encodes an `AnsweredText` as int32 ids `[length]` of `[CLS] question [SEP] text [SEP]` and their mask, with two
    labels: `span`, int32 `[2]`, the places of the answer's first and last token, and `types`, int8 `[length]`, 1 for
    the text and the [SEP] behind it.

    Without an answer the span is 0 and 0, the [CLS]; it is -1 and -1 where the answer is cut off with the end of a text
    that is too long, and of a plain string. [CLS] and [SEP] are the tokenizer's bos and eos. A question loses what is
    beyond half of the room. An answer that isn't in its place in the text, or that shares a piece with its neighbours,
    is bad.

    Raises UserError without bos and eos, and as `Tokenize` does.
    """

    bos: bool = True
    eos: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.bos and self.eos) or self.length < SPECIAL + 2:
            raise UserError(
                f"TokenizeAnswer(length={self.length}, bos={self.bos}, eos={self.eos}): a row is [CLS] question [SEP] "
                f"text [SEP], of {SPECIAL + 2} ids at least"
            )

    def __call__(self, value: Any, rng: Rng) -> Labelled:  # pyright: ignore[reportIncompatibleMethodOverride]
        types = np.zeros(self.length, np.int8)
        if not isinstance(value, AnsweredText):
            found = super().__call__(value, rng)
            return Labelled(found, {"span": np.array(UNKNOWN, np.int32), "types": types})
        tokenizer, room = self._model(), self.length - SPECIAL
        question = self._encoded(value.question, rng)[: room // 2]
        context = self._encoded(value.context, rng)
        begin = [tokenizer.bos, *question, tokenizer.eos]
        kept = context[: room - len(question)]
        first, last = NOWHERE if value.answer is None else self._places(value, context, rng)
        if value.answer is not None:
            first, last = (first + len(begin), last + len(begin)) if last < len(kept) else UNKNOWN
        row = [*begin, *kept, tokenizer.eos]
        types[len(begin) : len(row)] = 1
        return Labelled(self._filled(row), {"span": np.array((first, last), np.int32), "types": types})

    def _places(self, value: AnsweredText, context: list[int], rng: Rng) -> tuple[int, int]:
        """The answer's first and last piece among those of the text."""
        assert value.answer is not None
        end = value.start + len(value.answer)
        if value.start < 0 or value.context[value.start : end] != value.answer:
            raise BadExample(f"the answer {value.answer!r:.40} isn't at {value.start} in its text", "unfit")
        before, whole = (self._encoded(value.context[:to].rstrip(), rng) for to in (value.start, end))
        if context[: len(before)] != before or context[: len(whole)] != whole or len(whole) == len(before):
            raise BadExample(f"the answer {value.answer!r:.40} shares a piece with the text around it", "unfit")
        return len(before), len(whole) - 1

    def _first_end(self, row: Any) -> int:
        return len(row)  # a separator ends no text

    def spec(self, before: Spec | None) -> Spec:
        return super().spec(before)._replace(labels=(("span", (2,), "int32"), ("types", (self.length,), "int8")))
