"""Makes the streams of MERLOT Reserve of a window's words: what is masked, what is read, and what is heard."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.data.transforms.reserve.ids import PAPER_IDS, ReserveIds, WordPieces
from mmjax.data.transforms.reserve.masks import blocks_of, drawn_sets, grown, heard_slots, next_to
from mmjax.data.transforms.reserve.rows import NOTHING, POINTERS, RowPart, fitted, laid_out
from mmjax.data.transforms.reserve.subsegments import SpokenWords
from mmjax.data.transforms.values import Labelled, Masked
from mmjax.errors import UserError

STREAMS = ("text2audio", "audio2text", "matching")


@dataclass(frozen=True)
class ReserveStreams(Transform):
    """Turns the words of a window (`SpokenWords`, of `CutSubsegments`) into the streams of tokens that MERLOT Reserve
    trains on, and the texts that were removed from them (Zellers et al. 2022, arXiv:2201.02639).

    A share `mask_rate` of all K = segments * each sub-segments is masked in the first stream, as many others are in the
    second; M is the number of one set. All arrays are int32 unless said otherwise. The entry, `words` say, is the
    spans: `[2 M, span_length]`, the first `span_length` ids of each masked sub-segment's words, those of the first
    stream before those of the second, each in the order of time; and its mask bool `[2 M]`, whether there are any. Its
    labels:

    - `lengths` `[2 M]`: the number of a span's ids. `places` `[2 M]`: the sub-segment that it was removed from.
    - `text2audio` `[groups, length]`: what is read. The words of each sub-segment, or `mask`, whose text is to be
      found, and `mask_audio`, whose sound is. The segments are cut into `groups`. A mask also takes the last word
      before it and the first behind it where the word's centre is at most `grow` seconds outside its sound; if it has
      none then, the nearer of the two.
    - `audio2text` `[groups, length]`: what is heard. `audio_tokens` times `audio_span` for each sub-segment, or `mask`,
      whose text is to be found; a neighbour of a mask has its words, with the probability `neighbour_text`, instead.
    - `matching` `[1, matching_length]`: the text before all, then for each segment `pool`, which is to match its frame,
      and its sound, with the probability `matching_audio`, or its words.

    For each of these streams S, of the same shape, -1 where there is none:

    - `S_segments`: the segment of the window, 0 for padding. `S_blocks`: two places of a row see each other where these
      numbers are equal; -1 for padding. In the first two streams they differ for segments of different videos, and with
      the probability `split` before and behind a random place of a group; `matching` is one block.
    - `S_audio_ptr`: which token of the sound fills the place: sub-segment * `audio_tokens` + token.
    - `S_text_ptr`: the span that a `mask` must match. `S_target_ptr`: the sub-segment whose sound a `mask_audio` must.
      `S_frame_ptr`: the segment whose frame a `pool` must match.
    - `S_frame_blocks`, `[groups, segments / groups]` or `[1, segments]`: the block of each segment's frame.

    With `mask_each` each id of a removed text leaves a `mask` of its own, as many as a span has, all with the same
    pointer (BERT's way, for `Reserve(masked_words=True)`). With `prefer_spoken` both sets are drawn among sub-segments
    with words, as far as there are enough: the paper's aren't, and where few words are said many masks have no text.

    A masked sub-segment without words keeps its tokens, and its `mask` has no span to match. Without a sound there is
    no `mask_audio`, and words stand for every `audio_span`. Where a row is too long, its ends lose tokens up to its
    masks, then sub-segments (of `matching`, what is of a segment) are left out at random; no mask and no `pool` is. The
    text before all gets the room that the segments leave.

    Sound that the batch lacks, where decoding fails or it ends early, is known to its own entry alone: whoever reads
    these pointers reads its mask with them. In evaluation the draws are a function of the words. A tokenizer's ids are
    raised by `ids.shift`.

    Raises UserError for fields that can't be, or words that were cut for others.
    """

    random: ClassVar[bool] = True

    tokenizer: TokenizerSpec | Tokenizer
    segments: int = 16
    each: int = 3
    groups: int = 2
    length: int = 160
    matching_length: int = 640
    span_length: int = 15
    audio_tokens: int = 6
    mask_rate: float = 0.25
    grow: float = 0.125
    neighbour_text: float = 0.8
    matching_audio: float = 0.5
    split: float = 0.1
    ids: ReserveIds = PAPER_IDS
    mask_each: bool = False
    prefer_spoken: bool = False

    def __post_init__(self) -> None:
        for name in ("segments", "each", "groups", "length", "matching_length", "span_length", "audio_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"ReserveStreams({name}={value!r}): it is a whole number from 1 on")
        for name in ("mask_rate", "neighbour_text", "matching_audio", "split"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"ReserveStreams({name}={getattr(self, name)}): a share lies between 0 and 1")
        if self.segments % self.groups:
            raise UserError(f"ReserveStreams(groups={self.groups}): it divides the {self.segments} segments")
        if not 1 <= self.masked <= self._subsegments // 2:
            raise UserError(
                f"ReserveStreams(mask_rate={self.mask_rate}): two sets of {self.masked} of {self._subsegments} "
                "sub-segments: a set has one at least, and both have room beside each other"
            )
        of_mask = 1 + (self.span_length if self.mask_each else 1)
        if (needed := of_mask * min(self.masked, self._subsegments // self.groups)) > self.length:
            raise UserError(f"ReserveStreams(length={self.length}): a group's masks may take {needed} tokens")
        if self.segments > self.matching_length:
            raise UserError(
                f"ReserveStreams(matching_length={self.matching_length}): each of {self.segments} segments takes one"
            )

    @property
    def masked(self) -> int:
        """The number of sub-segments that are masked in each of the first two streams."""
        return round(self.mask_rate * self._subsegments)

    @property
    def _subsegments(self) -> int:
        return self.segments * self.each

    def __call__(self, value: Any, rng: Rng) -> Labelled:
        if not isinstance(value, SpokenWords):
            raise BadExample(f"there are no words by sub-segment but {value!r:.40}", "unfit")
        if len(value.times.starts) != self._subsegments or value.times.segments != self.segments:
            raise UserError(
                f"ReserveStreams(segments={self.segments}, each={self.each}) got words of {value.times.segments} "
                f"segments with {len(value.times.starts)} sub-segments: give CutSubsegments the same numbers"
            )
        words = value.words
        if rng is None:
            rng = np.random.default_rng(zlib.crc32(" ".join(words).encode(errors="replace")))
        return _Window(self, value, words, rng).streams()

    def spec(self, before: Spec | None) -> Spec:
        count = 2 * self.masked
        shapes = {"lengths": (count,), "places": (count,)}
        for name in STREAMS:
            rows, length = (1, self.matching_length) if name == "matching" else (self.groups, self.length)
            shapes |= {name: (rows, length)} | {f"{name}_{pointer}": (rows, length) for pointer in POINTERS}
            shapes[f"{name}_frame_blocks"] = (rows, self.segments // rows)
        labels = tuple((name, shape, "int32") for name, shape in shapes.items())
        return Spec((count, self.span_length), "int32", masked=True, labels=labels)

    def vocabulary(self) -> TokenizerSpec | Tokenizer:
        return self.tokenizer

    def with_tokenizer(self, tokenizer: Tokenizer) -> "ReserveStreams":
        return replace(self, tokenizer=tokenizer)

    @cached_property
    def pieces(self) -> WordPieces:
        """The ids of words."""
        if not isinstance(self.tokenizer, Tokenizer):
            raise TypeError(f"{self.tokenizer} has no model yet: mmjax.data.pipeline.prepare() trains or loads it")
        return WordPieces(self.ids, self.tokenizer)

    def whole(self, text: str) -> list[int]:
        """The ids of a text that isn't to be remembered."""
        return self.ids.pieces(self.pieces.tokenizer, text) if text.strip() else []


class _Window:
    """One window's words, as pieces, and the draws of its streams."""

    def __init__(self, step: ReserveStreams, spoken: SpokenWords, words: Sequence[str], rng: np.random.Generator):
        self._step, self._spoken, self._rng = step, spoken, rng
        pieces = [step.pieces[word] for word in words]
        kept = [place for place, part in enumerate(pieces) if part]  # cleaning may leave nothing of a word
        self._flat = [id for part in pieces for id in part]
        self._begins = [0, *accumulate(len(pieces[place]) for place in kept)]
        self._centres = spoken.centres[kept]
        self._bounds = np.searchsorted(spoken.places[kept], np.arange(len(spoken.times.starts) + 1)).tolist()
        self._audio = [step.ids.audio_span] * step.audio_tokens

    def streams(self) -> Labelled:
        step, rng, times = self._step, self._rng, self._spoken.times
        spoken = np.diff(self._bounds) > 0 if step.prefer_spoken else None
        sets = drawn_sets(len(times.starts), step.masked, rng, spoken)
        arrays: dict[str, np.ndarray] = {}
        rows: dict[str, list[list[RowPart]]] = {}
        removed: list[list[int]] = []
        for name, masked in zip(STREAMS[:2], sets, strict=True):
            blocks = blocks_of(times.sources, step.groups, step.split, rng)
            rooms, bounds, heard = self._rooms(blocks), self._bounds, None
            if name == "text2audio":
                bounds = grown(bounds, masked, self._centres, times, rooms, step.grow)
            elif self._spoken.heard:
                heard = heard_slots(rng, next_to(masked, rooms), len(rooms), step.neighbour_text).tolist()
            texts = [self._text(bounds, k, k + 1) for k in range(len(rooms))]
            rows[name] = self._rows(texts, masked, len(removed), heard, blocks.tolist(), name == "text2audio")
            removed += [texts[k] for k in masked]
            arrays[f"{name}_frame_blocks"] = blocks.reshape(step.groups, -1).astype(np.int32)
        rows["matching"] = [self._matching()]
        arrays["matching_frame_blocks"] = np.zeros((1, step.segments), np.int32)
        for name in STREAMS:  # at last, so that nothing else depends on the lengths
            length = step.matching_length if name == "matching" else step.length
            short = [fitted(row, length, rng) for row in rows[name]]
            if name == "matching" and (before := self._before(short[0])):
                short = [[RowPart(before, 0, 0), *short[0]]]
            found = laid_out(short, length, step.ids.pad)
            arrays |= {f"{name}_{pointer}" if pointer else name: array for pointer, array in found.items()}
        lengths = np.asarray([min(len(text), step.span_length) for text in removed], np.int32)
        spans = np.full((len(removed), step.span_length), step.ids.pad, np.int32)
        for span, text, length in zip(spans, removed, lengths.tolist(), strict=True):
            span[:length] = text[:length]
        places = np.asarray([*sets.heard, *sets.read], np.int32)
        return Labelled(Masked(spans, lengths > 0), {"lengths": lengths, "places": places, **arrays})

    def _rooms(self, blocks: np.ndarray) -> list[int]:
        """A number for each sub-segment, the same for those that stand in one row and see each other."""
        rows = np.repeat(np.arange(self._step.groups), len(blocks) // self._step.groups)
        return np.repeat(rows * (blocks.max() + 1) + blocks, self._step.each).tolist()

    def _text(self, bounds: Sequence[int], first: int, last: int) -> list[int]:
        """The ids of the words of sub-segments from `first` to before `last`."""
        return self._flat[self._begins[bounds[first]] : self._begins[bounds[last]]]

    def _rows(
        self,
        texts: Sequence[list[int]],
        masked: Sequence[int],
        span: int,
        heard: Sequence[bool] | None,
        blocks: Sequence[int],
        sound: bool,
    ) -> list[list[RowPart]]:
        """The groups' rows of one stream, of any length.

        span: the number of the first masked sub-segment's span. heard: the sub-segments that are given as sound; None:
        none is. sound: whether the sound of the masked ones is to be found too.
        """
        step, of_span = self._step, {k: span + place for place, k in enumerate(masked)}
        rows: list[list[RowPart]] = [[] for _ in range(step.groups)]
        for k, text in enumerate(texts):
            segment = k // step.each
            row, block = rows[segment * step.groups // step.segments], blocks[segment]
            if k in of_span:
                found = of_span[k] if text else NOTHING
                masks = min(len(text), step.span_length) if step.mask_each and text else 1
                row.append(RowPart([step.ids.mask] * masks, segment, block, text=found, kept=True))
                if sound and self._spoken.heard:
                    row.append(RowPart([step.ids.mask_audio], segment, block, target=k, kept=True))
            elif heard is not None and heard[k]:
                row.append(RowPart(self._audio, segment, block, audio=k * step.audio_tokens))
            elif text:
                row.append(RowPart(text, segment, block))
        return rows

    def _matching(self) -> list[RowPart]:
        step = self._step
        audible = (self._rng.random(step.segments) < step.matching_audio).tolist()
        row = []
        for segment in range(step.segments):
            row.append(RowPart([step.ids.pool], segment, 0, frame=segment, kept=True))
            first = segment * step.each
            if audible[segment] and self._spoken.heard:
                row.append(RowPart(self._audio * step.each, segment, 0, audio=first * step.audio_tokens))
            elif text := self._text(self._bounds, first, first + step.each):
                row.append(RowPart(text, segment, 0))
        return row

    def _before(self, row: Sequence[RowPart]) -> list[int]:
        """The ids of the text before all, as far as the row of matching leaves room."""
        return self._step.whole(self._spoken.before)[: self._step.matching_length - sum(len(part.ids) for part in row)]
