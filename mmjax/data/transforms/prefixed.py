"""Prompted texts: a prefix that is read, and a suffix that is written, as of PaliGemma."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.transforms.contract import RecordTransform, Rng, Spec, Transform
from mmjax.data.transforms.document import Document
from mmjax.data.transforms.labels import is_missing_label
from mmjax.data.transforms.text import PickCaption, Tokenize
from mmjax.data.transforms.values import Cut, Labelled, real_ids
from mmjax.errors import UserError

_COLUMN = re.compile(r"\{(\w+)\}")


class PrefixedText(Document):
    """A prefix and the suffix that belongs to it, on the way to `TokenizePrefixed`."""

    def __init__(self, prefix: str, suffix: str):
        self.prefix, self.suffix = prefix, suffix

    @property
    def sentences(self) -> list[str]:
        """The prefix and the suffix."""
        return [self.prefix, self.suffix]

    def other(self, rng: np.random.Generator) -> Document:
        """Always raises UserError: it belongs to no document."""
        del rng
        raise UserError("a text with a prefix belongs to no document, and has no other beside it: use TokenizePrefixed")

    def mapped(self, transform: Transform) -> "PrefixedText":
        """Both parts transformed, as in evaluation."""
        return PrefixedText(transform(self.prefix, None), transform(self.suffix, None))

    def __str__(self) -> str:
        return f"{self.prefix}\n{self.suffix}"


@dataclass(frozen=True)
class PrefixText(RecordTransform):
    """Makes the input `text` of a prefix, in which `{question}` stands for the record's column of that name, and of the
    suffix in a column: of several captions or answers a random one in training, else the first.

    A record that lacks one of these columns keeps its text. Raises `BadExample` where one of them holds no text.
    """

    random = True

    prefix: str
    suffix: str = "text"
    text: str = "text"

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        asked = {name: record.get(name) for name in self._named}
        if any(is_missing_label(value) for value in (*asked.values(), record.get(self.suffix))):
            return record
        if unfit := [name for name, value in asked.items() if not isinstance(value, str)]:
            raise BadExample(f"the column {unfit[0]} is no text but {asked[unfit[0]]!r:.40}", "undecodable")
        suffix = PickCaption()(record[self.suffix], rng)
        prefix = _COLUMN.sub(lambda found: str(asked[found[1]]), self.prefix)
        return {**record, self.text: PrefixedText(prefix, suffix)}

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        there = all(name in before for name in (*self._named, self.suffix))
        return (*before, self.text) if there and self.text not in before else before

    @property
    def _named(self) -> list[str]:
        """The columns in the prefix."""
        return _COLUMN.findall(self.prefix)


@dataclass(frozen=True)
class TokenizePrefixed(Tokenize):
    r"""Encodes a `PrefixedText` as int32 ids `[length]` of `bos prefix separator suffix eos` and their mask, with two
    labels: `prefix`, int32 `[]`, the number of tokens up to the suffix, which see each other; and `loss`, bool
    `[length]`, True at the suffix and `eos`, which are to be predicted (Beyer et al. 2024, arXiv:2407.07726).

    The separator is cut on its own, so that it never joins a word of the prefix. What is too long loses its end, with
    `eos`: nothing tells the model that a text ends where it was cut. A string is a suffix behind the field `prefix`; of
    a user, by hand, it is the prefix, and the empty one is the field.

    With `together=False` the words of the prefix see those before them alone, and there is no label `prefix` (BLIP's
    prompt: Li et al. 2022, arXiv:2201.12086).

    Plain captions, all of which is predicted, need no labels: `Tokenize(bos=True)` is enough.

    Raises UserError for a separator that is no piece of the tokenizer; BadExample for a prefix that leaves no room.
    """

    bos: bool = True
    separator: str = "\n"
    prefix: str = ""
    prompts: bool = False
    together: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.tokenizer, Tokenizer):
            self._separator  # noqa: B018 (the tokenizer has it)

    def __call__(self, value: Any, rng: Rng) -> Labelled:  # pyright: ignore[reportIncompatibleMethodOverride]
        tokenizer = self._model()
        prefix, suffix = self._parts(value)
        begin = [tokenizer.bos] * self.bos + self._encoded(prefix, rng) + self._separator
        end = [] if suffix is None else [*self._encoded(suffix, rng), *([tokenizer.eos] * self.eos)]
        if len(begin) > self.length - (suffix is not None):
            raise BadExample(
                f"the prefix has {len(begin)} tokens, and a row of {self.length} has no room behind it: {prefix!r:.60}",
                "unfit",
            )
        whole = [*begin, *end]
        row = self._filled(whole[: self.length])
        loss = np.zeros(self.length, bool)
        loss[len(begin) : len(whole)] = True
        labels = ({"prefix": np.array(len(begin), np.int32)} if self.together else {}) | {"loss": loss}
        return Labelled(Cut(*row, len(whole)) if len(whole) > self.length else row, labels)

    def spec(self, before: Spec | None) -> Spec:
        labels = ("prefix", (), "int32"), ("loss", (self.length,), "bool")
        return super().spec(before)._replace(labels=labels if self.together else labels[1:])

    def _first_end(self, row: Any) -> int:
        return len(row)  # an end token's name in a text ends nothing

    def _parts(self, value: Any) -> tuple[str, str | None]:
        """The prefix and the suffix; None for a prompt, which has none."""
        if isinstance(value, str) and self.prompts:
            return value or self.prefix, None
        prefix, suffix = (value.prefix, value.suffix) if isinstance(value, PrefixedText) else (self.prefix, value)
        if not isinstance(suffix, str) or not suffix.strip():
            raise BadExample(f"there is no text behind the prefix, but {suffix!r:.40}", "empty")
        return prefix, suffix

    @cached_property
    def _separator(self) -> list[int]:
        if (ids := self._model().encode_after(self.separator) if self.separator else []) or not self.separator:
            return ids
        raise UserError(
            f"TokenizePrefixed(separator={self.separator!r}): the tokenizer has no piece for it; a SentencePiece "
            "that is trained here has none for white space: take a word, such as ':', or ''"
        )

    def prompt(self, value: Any) -> tuple[list[int], int, list[int]]:
        """The ids of a user's prefix with what frames it; how many of them see each other, all or none; and -1 of
        each, for no picture's token stands among them."""
        ids = real_ids(self.by_hand(True)(value, None))
        return ids, len(ids) if self.together else 0, [-1] * len(ids)

    def by_hand(self, upright: bool) -> "TokenizePrefixed":
        return replace(self, empty="keep", prompts=True)
