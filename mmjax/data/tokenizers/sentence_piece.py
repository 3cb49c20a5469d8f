"""SentencePiece tokenizers (Kudo and Richardson 2018, arXiv:1808.06226), trained from the captions on first use, or
others' models; and the files that keep tokenizers of any kind.

The ids of the special pieces are the same for every model trained here: pad 0, bos 1, eos 2, unk 3, [MASK] 4.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Literal

import sentencepiece

from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec, sizes_of
from mmjax.errors import UserError
from mmjax.runtime.files import output
from mmjax.runtime.files.names import plain

PAD, BOS, EOS, UNKNOWN, MASK = range(5)
SPECIAL = 5  # ids below this are special pieces
SPACE_MARK = "\u2581"  # represents a space in a piece
# A model's file with these bytes behind it is the same model, which puts no space before a text: messages of protobuf
# add up, and this one is ModelProto.normalizer_spec.add_dummy_prefix = false.
NO_SPACE_BEFORE = b"\x1a\x02\x18\x00"


class PieceTokenizer(Tokenizer):
    """A SentencePiece model, trained here or elsewhere; one from elsewhere may lack a padding, begin or end piece."""

    SUFFIX = ".model"

    def __init__(self, model: bytes):
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError(f"these {len(model)} bytes are not a SentencePiece model: {error}") from error
        self.vocab_size = self._processor.vocab_size()
        ids = self._processor.pad_id(), self._processor.bos_id(), self._processor.eos_id()
        self.pad, self.bos, self.eos = (None if i < 0 else i for i in ids)

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def encode_after(self, text: str) -> list[int]:
        if text.startswith(" ") and self._adds_space:
            return self._processor.encode(text[1:])  # the space that is added is this one
        return self._spaceless.encode(text)

    def encode_sized(self, text: str) -> tuple[list[int], list[int]]:
        ids, whole = self._processor.encode(text), len(text.encode())
        sizes = [self._size(id) for id in ids]
        sizes[:1] = [sizes[0] - (self._adds_space and sizes[0] > 0)] if ids else []  # the space that was added
        return ids, sizes_of(accumulate(sizes), whole)

    def _size(self, id: int) -> int:
        """The bytes of text that a piece stands for; one of what is unknown."""
        if self._processor.is_byte(id) or self._processor.is_unknown(id):
            return 1
        return len(self.piece(id).replace(SPACE_MARK, " ").encode())

    @cached_property
    def _spaceless(self) -> sentencepiece.SentencePieceProcessor:
        """The model without a space before a text."""
        return sentencepiece.SentencePieceProcessor(model_proto=self.model + NO_SPACE_BEFORE)

    @cached_property
    def _adds_space(self) -> bool:
        return self._processor.encode("a") != self._spaceless.encode("a")

    def encode_named(self, text: str, names: Sequence[str]) -> list[int]:
        """The ids of a text in which names of these special pieces become their ids, without the white space round
        them.

        The text behind a name is cut as if it stood right behind a word, as Hugging Face's SiglipTokenizer cuts it.
        Raises UserError for a name that is no piece.
        """
        first, *rest = split_names(text, names)
        ids = self.encode(first)
        unknown = self.piece(self._processor.unk_id())
        before = len(self.encode(unknown))
        for place, part in enumerate(rest):
            if place % 2:
                ids += self.encode(unknown + part)[before:]
            elif (id := self.id_of(part)) is not None:
                ids.append(id)
            else:
                raise UserError(f"{part!r} is no piece of this SentencePiece model")
        return ids

    def segmentations(self, text: str, best: int) -> list[list[int]]:
        try:
            return self._processor.nbest_encode(text, nbest_size=best)
        except RuntimeError:
            return super().segmentations(text, best)

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.decode([int(i) for i in ids if not self._is_special(int(i))])

    def id_of(self, piece: str) -> int | None:
        id = self._processor.piece_to_id(piece)
        return id if self._processor.id_to_piece(id) == piece else None

    def piece(self, id: int) -> str:
        """The piece of an id."""
        return self._processor.id_to_piece(id)

    def _is_special(self, i: int) -> bool:
        return self._processor.is_control(i) or self._processor.is_unknown(i)


@dataclass(frozen=True)
class SentencePiece(TokenizerSpec):
    """Describes a SentencePiece tokenizer: trained on the training captions on first use, or read from the file `path`.

    `vocab_size` is the size of the text tower's table. Where the captions don't hold as many pieces, the model is
    smaller, which does no harm. `name` only names the file under `<data_dir>/tokenizers`. A workdir and an exported
    folder keep the model, and take it from there; with an empty `path` they always do, and a new run takes that of the
    model that its text tower starts from (`init`).
    """

    vocab_size: int = 2048
    name: str = "captions"
    model_type: Literal["unigram", "bpe", "word", "char"] = "unigram"
    coverage: float = 0.9995  # the share of the characters that get a piece (SentencePiece's default)
    max_captions: int = 1_000_000  # of more than this, evenly spaced ones are read
    path: str | None = None

    def __post_init__(self) -> None:
        plain(self.name, "SentencePiece(name=...)")

    @property
    def captions(self) -> int:
        return 0 if self.path is not None else self.max_captions

    def load(self, captions: Iterable[str] | None, folder: Path) -> Tokenizer:
        """Makes the tokenizer: from `path`; else from `folder`, if it was trained before on these captions; else by
        training.

        Raises UserError for a missing `path`, or where the model doesn't fit `vocab_size`.
        """
        if self.path is not None:
            if not self.path:
                raise UserError(
                    f"{self} takes its model from the tokenizers of a workdir or an exported folder, and there is "
                    "none: give the path of a SentencePiece model"
                )
            if not Path(self.path).is_file():
                raise UserError(
                    f"SentencePiece(path={self.path!r}): there is no such file: give that of a SentencePiece model, or "
                    "no path, and one is trained on the captions"
                )
            return self.check(PieceTokenizer(Path(self.path).read_bytes()))
        lines = [caption for caption in captions or () if caption.strip() and _is_text(caption)]
        file = folder / f"{self.name}-{self._key(lines)}.model"
        seal = file.with_name(f"{file.name}.blake2b")
        if not file.is_file() or (seal.is_file() and seal.read_bytes() != _seal(file.read_bytes())):
            output.write(file, model := self.train(lines))  # a damaged one is trained again
            output.write(seal, _seal(model))
        return self.check(PieceTokenizer(file.read_bytes()))

    def train(self, captions: list[str]) -> bytes:
        """Trains a model, a pure function of the captions and the fields. Raises UserError where
        SentencePiece can't.
        """
        if not captions:
            raise UserError(
                f"there are no captions to train the tokenizer {self.name!r} on: no example that trains has one"
            )
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(captions),
                model_writer=model,
                vocab_size=self.vocab_size,
                model_type=self.model_type,
                character_coverage=self.coverage,
                pad_id=PAD,
                bos_id=BOS,
                eos_id=EOS,
                unk_id=UNKNOWN,
                control_symbols=["[MASK]"],  # a text that happens to hold "[MASK]" doesn't give the control symbol
                hard_vocab_limit=False,
                num_threads=1,  # several threads would add in random order, and give other pieces
                minloglevel=2,
            )
        except RuntimeError as error:
            raise UserError(
                f"SentencePiece(vocab_size={self.vocab_size}, model_type={self.model_type!r}) can't be trained on the "
                f"{len(captions)} captions: {error} (it must hold at least the characters and {SPECIAL} special pieces)"
            ) from error
        return model.getvalue()

    def _key(self, captions: list[str]) -> str:
        # The name is a hash of all that decides the model.
        settings = {name: value for name, value in asdict(self).items() if name not in ("name", "path")}
        digest = hashlib.sha256(json.dumps([settings, sentencepiece.__version__], sort_keys=True).encode())
        for caption in captions:
            digest.update(caption.encode() + b"\0")
        return digest.hexdigest()[:16]


def _seal(model: bytes) -> bytes:
    return hashlib.blake2b(model, digest_size=16).hexdigest().encode()


def split_names(text: str, names: Sequence[str]) -> list[str]:
    """The parts of a text between names, with the names at odd places, without the white space round them."""
    return re.split(rf"\s*({'|'.join(map(re.escape, names))})\s*", text)


def _is_text(caption: str) -> bool:
    """True if a caption can be encoded as UTF-8: half a surrogate pair, as a broken JSON gives it, can't."""
    try:
        caption.encode()
    except UnicodeEncodeError:
        return False
    return True
