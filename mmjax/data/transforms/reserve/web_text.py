"""Masks spans of a text that belongs to no video: MERLOT Reserve's stream of text from the web."""

import math
import zlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.data.transforms.document import Document
from mmjax.data.transforms.reserve.ids import PAPER_IDS, ReserveIds
from mmjax.data.transforms.reserve.rows import NOTHING
from mmjax.data.transforms.values import Cut, Labelled, Masked, prefix_mask
from mmjax.errors import UserError

RATIO = 0.906454  # of one length's weight to that before: lengths of 1 to 15 have the mean 6.23 then, as the paper's
LENGTHS = tuple(RATIO**more for more in range(15))


@dataclass(frozen=True)
class MaskSpans(Transform):
    """Replaces `spans` runs of a text's pieces by one `mask` each, whose text is to be found (Zellers et al. 2022,
    arXiv:2201.02639): int32 ids `[length]` and their mask, of a part of the text that fills the length. Labels, int32:

    - `spans` `[spans, longest]`: the removed ids, in order; `longest` is the length of `histogram`. `lengths`
      `[spans]`: the number of a span's ids, 0 for a row that is none.
    - `text_ptr` `[length]`: the span that a `mask` must match, else -1.

    histogram: the weights of the spans' lengths from 1 on. Of the paper's, for 15 lengths, the mean 6.23 alone is known
    here: the default is a falling geometric row with that mean, and our own. Spans are placed uniformly, with
    a piece or more between two; the released code prefers spans of words that videos have, and this one doesn't.

    A text that is too long for the length is a random part in training, the beginning in evaluation. One that is
    shorter has fewer spans in proportion, and a text of a single piece none. In evaluation the draws are a function of
    the text. A tokenizer's ids are raised by `ids.shift`.

    Raises `BadExample` for what is no text; UserError for fields that can't be.
    """

    random: ClassVar[bool] = True

    tokenizer: TokenizerSpec | Tokenizer
    spans: int = 38
    length: int = 640
    histogram: tuple[float, ...] = LENGTHS
    ids: ReserveIds = PAPER_IDS

    def __post_init__(self) -> None:
        for name in ("spans", "length"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"MaskSpans({name}={value!r}): it is a whole number from 1 on")
        if 2 * self.spans > self.length:
            raise UserError(f"MaskSpans(spans={self.spans}, length={self.length}): a span takes two of the places")
        total = math.fsum(self.histogram)
        if not (self.histogram and min(self.histogram) >= 0 and 0 < total < math.inf):
            raise UserError(f"MaskSpans(histogram={self.histogram!r:.60}): weights aren't below 0, and one is above")

    def __call__(self, value: Any, rng: Rng) -> Labelled:
        value = str(value) if isinstance(value, Document) else value
        if not isinstance(value, str):
            raise BadExample(f"the text is no text but {value!r:.40}", "undecodable")
        if not isinstance(self.tokenizer, Tokenizer):
            raise TypeError(f"{self.tokenizer} has no model yet: mmjax.data.pipeline.prepare() trains or loads it")
        pieces = self.ids.pieces(self.tokenizer, value) if value.strip() else []
        if not pieces:
            raise BadExample("the text is empty", "empty")
        training = rng is not None
        rng = rng if training else np.random.default_rng(zlib.crc32(value.encode()))
        lengths = self._lengths(len(pieces), rng)
        whole, room = len(pieces), self.length - len(lengths) + sum(lengths)
        start = int(rng.integers(whole - room + 1)) if training and whole > room else 0
        row, removed, pointers = _masked(pieces[start : start + room], lengths, self.ids.mask, rng)
        found = np.full(self.length, self.ids.pad, np.int32)
        found[: len(row)] = row
        text_ptr = np.full(self.length, NOTHING, np.int32)
        text_ptr[pointers] = np.arange(len(pointers))
        spans = np.full((self.spans, len(self.histogram)), self.ids.pad, np.int32)
        for place, span in enumerate(removed):
            spans[place, : len(span)] = span
        counts = np.zeros(self.spans, np.int32)
        counts[: len(lengths)] = lengths
        mask = prefix_mask(self.length, len(row))
        text = Cut(found, mask, whole) if whole > room else Masked(found, mask)
        return Labelled(text, {"spans": spans, "lengths": counts, "text_ptr": text_ptr})

    def _lengths(self, pieces: int, rng: np.random.Generator) -> list[int]:
        """The lengths of the spans of a text of that many pieces."""
        weights = np.asarray(self.histogram) / math.fsum(self.histogram)
        lengths = (rng.choice(len(weights), self.spans, p=weights) + 1).tolist()
        filling = self.length - self.spans + sum(lengths)
        if pieces >= filling:
            return lengths
        lengths = lengths[: max(1, self.spans * pieces // filling)]
        while len(lengths) > 1 and sum(lengths) + len(lengths) - 1 > pieces:
            lengths.pop()
        return [min(lengths[0], pieces - 1), *lengths[1:]] if pieces > 1 else []

    def spec(self, before: Spec | None) -> Spec:
        labels = (
            ("spans", (self.spans, len(self.histogram)), "int32"),
            ("lengths", (self.spans,), "int32"),
            ("text_ptr", (self.length,), "int32"),
        )
        return Spec((self.length,), "int32", masked=True, labels=labels)

    def vocabulary(self) -> TokenizerSpec | Tokenizer:
        return self.tokenizer

    def with_tokenizer(self, tokenizer: Tokenizer) -> "MaskSpans":
        return replace(self, tokenizer=tokenizer)


def _masked(
    pieces: list[int], lengths: list[int], mask: int, rng: np.random.Generator
) -> tuple[list[int], list[list[int]], list[int]]:
    """The pieces with runs of these lengths replaced by `mask`, the runs, and the places of their masks. The runs lie
    in different ones of the gaps before, between and behind what stays.
    """
    left = len(pieces) - sum(lengths)
    gaps = np.sort(rng.permutation(left + 1)[: len(lengths)]).tolist()
    row: list[int] = []
    removed, pointers, read, visible = [], [], 0, 0
    for gap, length in zip(gaps, lengths, strict=True):
        row += pieces[read : read + gap - visible]
        read, visible = read + gap - visible, gap
        removed.append(pieces[read : read + length])
        pointers.append(len(row))
        row.append(mask)
        read += length
    return row + pieces[read:], removed, pointers
