"""SentencePiece tokenizers (Kudo and Richardson 2018, arXiv:1808.06226), trained from the captions on first use.

The ids of the special pieces are the same for every model trained here: pad 0, bos 1, eos 2, unk 3, [MASK] 4.
"""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import sentencepiece

PAD, BOS, EOS, UNKNOWN, MASK = range(5)
SPECIAL = 5  # ids below this stand for no text


class Tokenizer:
    """A trained model: `encode` gives ids. It travels to worker processes as its bytes."""

    def __init__(self, model: bytes):
        """Raises ValueError where `model` isn't a SentencePiece model with a padding piece."""
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"these {len(model)} bytes are not a SentencePiece model: {error}") from error
        self.vocab_size: int = self._processor.vocab_size()
        self.pad, self.bos, self.eos = self._processor.pad_id(), self._processor.bos_id(), self._processor.eos_id()
        if self.pad < 0 or self.eos < 0:
            raise ValueError("the SentencePiece model lacks a padding or an end piece: train it with pad_id and eos_id")

    def encode(self, text: str) -> list[int]:
        """The ids of the text's pieces, without bos and eos."""
        return self._processor.encode(text)

    def segmentations(self, text: str, best: int) -> list[list[int]]:
        """The `best` likeliest ways to cut the text into pieces, or as many as there are.

        Raises ValueError where the model isn't a unigram model: others know one way only.
        """
        try:
            return self._processor.nbest_encode(text, nbest_size=best)
        except RuntimeError as error:
            raise ValueError(
                "this tokenizer knows one way to cut a text: several take a SentencePiece with model_type='unigram'"
            ) from error

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; special ones stand for nothing."""
        return self._processor.decode([int(i) for i in ids if i >= SPECIAL])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.model == other.model

    def __hash__(self) -> int:
        return hash(self.model)

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[bytes]]:
        return Tokenizer, (self.model,)


@dataclass(frozen=True)
class SentencePiece:
    """What tokenizer to have: trained from the training captions on first use, or the one in the file `path`.

    `vocab_size` is what the text tower's table has room for. Where the captions don't hold as many pieces, the model is
    smaller, which does no harm. `name` only names the file under `<data_dir>/tokenizers`.
    """

    vocab_size: int = 2048
    name: str = "captions"
    model_type: Literal["unigram", "bpe", "word", "char"] = "unigram"
    coverage: float = 0.9995  # the share of the characters that get a piece: SentencePiece's default
    max_captions: int = 1_000_000  # of more than this, evenly spaced ones are read
    path: str | None = None

    def load(self, captions: Iterable[str] | None, folder: Path) -> Tokenizer:
        """The tokenizer: from `path`; else from `folder`, if it was trained before on these captions; else trained now.

        Raises FileNotFoundError for a missing `path`, ValueError where the model doesn't fit `vocab_size`.
        """
        if self.path is not None:
            if not Path(self.path).is_file():
                raise FileNotFoundError(f"SentencePiece(path={self.path!r}): there is no such file")
            return self.check(Tokenizer(Path(self.path).read_bytes()))
        lines = [caption for caption in captions or () if caption.strip() and _is_text(caption)]
        file = folder / f"{self.name}-{self._key(lines)}.model"
        if not file.is_file():
            _write(file, self.train(lines))
        return self.check(Tokenizer(file.read_bytes()))

    def train(self, captions: list[str]) -> bytes:
        """Trains a model, a pure function of the captions and the fields. Raises ValueError where that can't be."""
        if not captions:
            raise ValueError(f"there are no captions to train the tokenizer {self.name!r} on")
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
                control_symbols=["[MASK]"],  # a control symbol never comes out of a text that happens to hold "[MASK]"
                hard_vocab_limit=False,
                num_threads=1,  # the sums of several threads come in any order, and the pieces with them
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"SentencePiece(vocab_size={self.vocab_size}, model_type={self.model_type!r}) can't be trained on the "
                f"{len(captions)} captions: {error} (it must hold at least the characters and {SPECIAL} special pieces)"
            ) from error
        return model.getvalue()

    def check(self, tokenizer: Tokenizer) -> Tokenizer:
        """Gives `tokenizer` back. Raises ValueError where it has more pieces than `vocab_size`."""
        if tokenizer.vocab_size > self.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} pieces, and SentencePiece(vocab_size={self.vocab_size}) has "
                f"room for fewer: set vocab_size, and the text tower's, to {tokenizer.vocab_size} or more"
            )
        return tokenizer

    def _key(self, captions: list[str]) -> str:
        # The path of a file says nothing about what is in it: the name is the hash of all that decides the model.
        settings = {name: value for name, value in asdict(self).items() if name not in ("name", "path")}
        digest = hashlib.sha256(json.dumps([settings, sentencepiece.__version__], sort_keys=True).encode())
        for caption in captions:
            digest.update(caption.encode() + b"\0")
        return digest.hexdigest()[:16]


def _is_text(caption: str) -> bool:
    """Whether it can be written as UTF-8: half a surrogate pair, as a broken JSON gives it, can't."""
    try:
        caption.encode()
    except UnicodeEncodeError:
        return False
    return True


def save_tokenizers(tokenizers: Mapping[str, Tokenizer], folder: str | os.PathLike[str]) -> None:
    """Writes each modality's model as `<folder>/<modality>.model`."""
    for modality, tokenizer in tokenizers.items():
        _write(Path(folder) / f"{modality}.model", tokenizer.model)


def load_tokenizers(folder: str | os.PathLike[str]) -> dict[str, Tokenizer]:
    """What `save_tokenizers` wrote into the folder, by modality; empty where there is nothing."""
    return {file.stem: Tokenizer(file.read_bytes()) for file in sorted(Path(folder).glob("*.model"))}


def _write(file: Path, content: bytes) -> None:
    """All or nothing, also with two processes at once: each writes a file of its own, the last rename stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(part, file)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
