"""Transforms of captions: from one or several strings to token ids of one length."""

import html
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, Int32

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.given_ids import GivenIds
from mmjax.data.tokenizers.sentence_piece import SPACE_MARK, PieceTokenizer, SentencePiece, split_names
from mmjax.data.tokenizers.subwords import Subwords
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.data.transforms.text_input import TextInput
from mmjax.data.transforms.values import Cut, Masked, prefix_mask
from mmjax.errors import UserError

Empty = Literal["bad", "keep"]  # an empty caption is a bad example, as in training, or is kept as the empty text


@dataclass(frozen=True)
class PickCaption(Transform):
    """Picks one caption of several: a string is unchanged; of a list or a dict by language, a random one in training.

    In evaluation it is the one in `language`, or else the first. Empty captions are never picked, unless
    `empty` is "keep" and there are no others.
    """

    random = True
    picks = True

    language: str = "en"
    empty: Empty = "bad"

    def __call__(self, value: Any, rng: Rng) -> str:
        captions = self.every(value)
        if not captions and self.empty == "keep":
            captions = [caption for caption in _several(value) if isinstance(caption, str)]
        if not captions:
            raise _no_caption(value)
        if rng is not None:
            return captions[int(rng.integers(len(captions)))] if len(captions) > 1 else captions[0]
        preferred = value.get(self.language) if isinstance(value, Mapping) else None
        return preferred if preferred and preferred.strip() else captions[0]

    def every(self, value: str | Sequence[str] | Mapping[str, str]) -> list[str]:
        """All captions of an example that aren't empty."""
        return [caption for caption in _several(value) if isinstance(caption, str) and caption.strip()]

    def spec(self, before: Spec | None) -> None:
        return None

    def by_hand(self, upright: bool) -> None:
        return None


@dataclass(frozen=True)
class Lowercase(Transform):
    """Lower-cases a text; `join` says whether runs of white space become one space, and are cut off at the ends."""

    join: bool = True

    def __call__(self, value: str, rng: Rng) -> str:
        del rng
        if not isinstance(value, str):
            raise _no_caption(value)
        return " ".join(value.lower().split()) if self.join else value.lower()


@dataclass(frozen=True)
class Canonicalize(Transform):
    """Lower-cases a text, removes ASCII punctuation and joins white space, as for SigLIP's prompts and texts.

    `spaced` are characters written as spaces first. big_vision's `canonicalize_text`, and open_clip's, has "_" there;
    Hugging Face's SiglipTokenizer has none, so that `a_b` becomes `ab`. `names` stay as they are where a text holds
    them: those of SiglipTokenizer's special pieces, for `Tokenize(names=...)`. The others strip `</s>` to `s`.
    """

    spaced: str = "_"
    names: tuple[str, ...] = ()

    def __call__(self, value: str, rng: Rng) -> str:
        del rng
        if not isinstance(value, str):
            raise _no_caption(value)
        if not self.names:
            return self._part(value)
        parts = split_names(value.replace(SPACE_MARK, " "), self.names)  # it would begin a word behind a name
        return " ".join(self._part(part) if place % 2 == 0 else part for place, part in enumerate(parts))

    def _part(self, text: str) -> str:
        table = dict.fromkeys(map(ord, string.punctuation)) | dict.fromkeys(map(ord, self.spaced), " ")
        return " ".join(text.translate(table).lower().split())


@dataclass(frozen=True)
class Prompt(Transform):
    """Puts `before` in front of a text, unchanged: "query: ", say, for a model that was trained with it."""

    before: str

    def __call__(self, value: str, rng: Rng) -> str:
        del rng
        if not isinstance(value, str):
            raise _no_caption(value)
        return self.before + value


@dataclass(frozen=True)
class CleanText(Transform):
    """Cleans a text from the web as OpenAI's CLIP and open_clip do: repairs it, decodes HTML entities, joins white
    space.

    `repair` applies ftfy (wrongly decoded characters, curly quotes, control characters; NFC), which needs
    `pip install "mmjax[interop]"`. Both projects need ftfy too; Hugging Face's CLIPTokenizer cleans nothing of this.
    """

    repair: bool = True

    def __call__(self, value: str, rng: Rng) -> str:
        del rng
        if not isinstance(value, str):
            raise _no_caption(value)
        text = _repaired(value) if self.repair else value
        return " ".join(html.unescape(html.unescape(text)).split())  # twice: captions have "&amp;lt;"


@dataclass(frozen=True)
class Tokenize(Transform):
    """Encodes a caption as int32 ids `[length]` and their mask: `bos`, pieces, `eos`, then padding.

    A caption that is too long loses its last pieces (`Cut`), never `eos`: a pooling that reads the last token finds it.
    A caption may hold the end token's own name: its first end token ends it then, and the mask with it, as CLIP and
    open_clip read it; all of it is text where that token separates texts as well (`Tokenizer.separates`).
    `pad` is the padding id; None means the tokenizer's own. `names` are special pieces of a SentencePiece model
    that become their ids where a text holds them, as SiglipTokenizer reads it: a text that ends in its end token gets
    no other one. (Other tokenizers know their special pieces' names by themselves.) Raises UserError for a piece that
    it lacks.
    """

    tokenizer: SentencePiece | Subwords | GivenIds | Tokenizer
    length: int
    bos: bool = False
    eos: bool = True
    pad: int | None = None
    empty: Empty = "bad"
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.tokenizer, Tokenizer):
            return
        if self.names and not isinstance(self.tokenizer, PieceTokenizer):
            raise UserError(f"Tokenize(names={self.names}) is for SentencePiece models: leave it out")
        for name in ("bos", "eos"):
            if getattr(self, name) and getattr(self.tokenizer, name) is None:
                raise UserError(f"Tokenize({name}=True), but the tokenizer has no such piece: set {name}=False")
        pad = self.tokenizer.pad if self.pad is None else self.pad
        if pad is None:
            raise UserError("the tokenizer has no piece for padding: say which id fills up, Tokenize(pad=...)")
        if not 0 <= pad < self.tokenizer.vocab_size:
            raise UserError(f"Tokenize(pad={pad}) is none of the tokenizer's {self.tokenizer.vocab_size} ids")

    def __call__(self, value: str, rng: Rng) -> Masked:
        if not isinstance(value, str) or not (value.strip() or self.empty == "keep"):
            raise _no_caption(value)
        room = self.length - self.bos - self.eos
        pieces = self._encoded(value, rng)
        filled = self._filled(self._framed(pieces[:room]))
        if len(pieces) <= room:
            return filled
        whole = self._first_end(self._framed(pieces))
        return Cut(*filled, whole) if whole > self.length else filled

    def reach(self, ids: Int[np.ndarray, " n"]) -> int:
        """The number of given ids that are text, at least one, without padding that they already have."""
        tokenizer, row = self._model(), ids.tolist()
        pad = tokenizer.pad if self.pad is None else self.pad
        end = last = self._first_end(row)
        while end > 1 and row[end - 1] == pad:
            end -= 1
        return end + (pad == tokenizer.eos and end < last)  # padded with the end token, the first of which counts

    def _model(self) -> Tokenizer:
        if not isinstance(self.tokenizer, Tokenizer):
            raise TypeError(f"{self.tokenizer} has no model yet: mmjax.data.pipeline.prepare() trains or loads it")
        return self.tokenizer

    def _encoded(self, text: str, rng: Rng) -> list[int]:
        """The pieces of a text. Raises `BadExample` where it isn't valid text."""
        try:
            return self._pieces(self._model(), text, rng)
        except (UnicodeError, RuntimeError) as error:  # half a surrogate pair, as a broken JSON gives it
            raise BadExample(f"the caption is no text: {error}", "undecodable") from error

    def _first_end(self, row: Sequence[int | None]) -> int:
        """The number of a row's ids up to the one that ends the text."""
        tokenizer = self._model()
        if not self.eos or tokenizer.separates:
            return len(row)
        begin = int(self.bos and row[0] == tokenizer.bos)  # bos and eos may be the same piece
        return next((place + 1 for place in range(begin, len(row)) if row[place] == tokenizer.eos), len(row))

    def _framed(self, pieces: list[int]) -> list[int | None]:
        """The pieces between the ids that begin and end a text."""
        tokenizer = self._model()
        ended = bool(self.names and pieces and pieces[-1] == tokenizer.eos)
        return [tokenizer.bos] * self.bos + pieces + [tokenizer.eos] * (self.eos and not ended)

    def _filled(self, row: Sequence[int | None]) -> Masked:
        """The ids, padded to the length, and the mask of those that are text."""
        ids: Int32[np.ndarray, " length"] = np.full(
            self.length, self._model().pad if self.pad is None else self.pad, np.int32
        )
        ids[: len(row)] = row
        return Masked(ids, prefix_mask(self.length, self._first_end(row)))

    def _pieces(self, tokenizer: Tokenizer, text: str, rng: Rng) -> list[int]:
        del rng
        if isinstance(tokenizer, PieceTokenizer) and self.names:
            return tokenizer.encode_named(text, self.names)
        return tokenizer.encode(text)

    def spec(self, before: Spec | None) -> Spec:
        return Spec((self.length,), "int32", masked=True, kind=TextInput)

    def vocabulary(self) -> SentencePiece | Subwords | GivenIds | Tokenizer:
        return self.tokenizer

    def with_tokenizer(self, tokenizer: Tokenizer) -> "Tokenize":
        return replace(self, tokenizer=tokenizer)

    def by_hand(self, upright: bool) -> "Tokenize":
        return replace(self, empty="keep")


@dataclass(frozen=True)
class RandomTokenize(Tokenize):
    """Encodes like `Tokenize`, with a random one of the `best` likeliest segmentations in training (Kudo 2018,
    arXiv:1804.10959).

    A word is then cut in many ways, so that parts of unseen words have trained embeddings too.
    """

    random = True

    best: int = 8

    def _pieces(self, tokenizer: Tokenizer, text: str, rng: Rng) -> list[int]:
        if rng is None:
            return tokenizer.encode(text)
        segmentations = tokenizer.segmentations(text, self.best)
        return segmentations[int(rng.integers(len(segmentations)))]


def keep_empty(chain: Sequence[Transform]) -> tuple[Transform, ...]:
    """The chain for a user's texts: the empty text is encoded like others (to bos and eos), instead of left out."""
    return tuple(replace(t, empty="keep") if isinstance(t, PickCaption | Tokenize) else t for t in chain)


def _several(value: Any) -> Sequence[Any]:
    """The captions of an example that may have one, several, or several by language."""
    if isinstance(value, str):
        return [value]
    return list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()


def _repaired(text: str) -> str:
    try:
        import ftfy
    except ImportError as error:
        raise UserError(
            'CleanText(repair=True) needs ftfy: pip install "mmjax[interop]"; repair=False does without'
        ) from error
    return ftfy.fix_text(text)


def _no_caption(value: Any) -> BadExample:
    """The error for a caption that can't be read: bytes that are no UTF-8, a number, or nothing at all."""
    if isinstance(value, bytes | int | float):
        return BadExample(f"the caption is no text but {value!r:.40}", "undecodable")
    if any(isinstance(caption, str) and caption.strip() for caption in _several(value)) and not isinstance(value, str):
        reason = "there are several captions: begin the chain of 'text' with PickCaption(), which takes one"
        return BadExample(reason, "unfit")
    return BadExample("the caption is empty", "empty")
