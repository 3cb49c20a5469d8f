"""The contract of tokenizers, and of an experiment's description of one; the other files of this folder hold the
kinds.
"""

from collections.abc import Iterable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, ClassVar

from mmjax.errors import UserError


class Tokenizer:
    """A model that cuts texts into pieces, ready to use. It is pickled as its bytes.

    model: the content of its file, which a workdir keeps as `<modality><SUFFIX>`.
    vocab_size: one more than the largest id.
    pad, bos, eos: the ids of padding, and of a text's begin and end; None where the model has none.
    separates: whether `eos` also stands between the two texts of a pair, whose tokens are of two types (BERT's [SEP]);
        one within a text ends nothing then.
    """

    SUFFIX: ClassVar[str]

    model: bytes
    vocab_size: int
    pad: int | None
    bos: int | None
    eos: int | None
    separates: bool = False

    def __init__(self, model: bytes):
        """Raises UserError where `model` isn't one of this kind."""
        raise NotImplementedError(f"{type(self).__name__} is what tokenizers have in common, none by itself")

    def encode(self, text: str) -> list[int]:
        """The ids of the text's pieces, without bos and eos. Raises UnicodeError where the text isn't Unicode."""
        raise NotImplementedError

    def encode_after(self, text: str) -> list[int]:
        """The ids of a text that goes on behind other text: of " cat" and "s", where `encode` may put a space before
        the first word. Here, as of tokenizers that put none: those of `encode`.
        """
        return self.encode(text)

    def encode_sized(self, text: str) -> tuple[list[int], list[int]]:
        """The ids of `encode`, and for each the bytes of the text, in UTF-8, that it stands for; they add up to the
        text's. Here, of tokenizers that don't tell: spread evenly.
        """
        ids, size = self.encode(text), len(text.encode())
        return ids, sizes_of([size * (place + 1) // len(ids) for place in range(len(ids))], size)

    def id_of(self, piece: str) -> int | None:
        """The id of a piece by its name, such as `</s>` or `<|im_end|>`; None where there is none."""
        del piece
        return None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; special ids are left out."""
        raise NotImplementedError

    def segmentations(self, text: str, best: int) -> list[list[int]]:
        """The `best` likeliest ways to cut the text into pieces, or as many as there are.

        Raises UserError where the model isn't a unigram model: others know one way only.
        """
        del text, best
        raise UserError(
            "this tokenizer knows one way to cut a text: several take a SentencePiece with model_type='unigram'"
        )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Tokenizer) and self.model == other.model

    def __hash__(self) -> int:
        return hash(self.model)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model,)


class TokenizerSpec:
    """An experiment's description of a tokenizer: which one, and the size of the text tower's table."""

    vocab_size: int

    @property
    def captions(self) -> int:
        """The number of training captions that `load` reads; 0 where it needs none."""
        return 0

    def load(self, captions: Iterable[str] | None, folder: Path) -> Tokenizer:
        """Makes the tokenizer, where neither a checkpoint nor an exported folder has it already.

        captions: of the training split; None where `captions` is 0.
        folder: where tokenizers are kept that were made from captions.
        """
        raise NotImplementedError

    def check(self, tokenizer: Tokenizer) -> Tokenizer:
        """Returns `tokenizer`. Raises UserError where it has more pieces than `vocab_size`."""
        if tokenizer.vocab_size > self.vocab_size:
            kind = type(self).__name__
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} pieces, and {kind}(vocab_size={self.vocab_size}) has "
                f"room for fewer: set vocab_size, and the text tower's, to {tokenizer.vocab_size} or more"
            )
        return tokenizer


def sizes_of(ends: Iterable[int], whole: int) -> list[int]:
    """The sizes of consecutive parts of `whole` that end at `ends`, of which the last takes what is left over. An end
    before that of a part before is that one's.
    """
    reached = list(accumulate((min(end, whole) for end in ends), max))
    reached[-1:] = [whole] * bool(reached)
    return [end - begin for begin, end in pairwise([0, *reached])]
