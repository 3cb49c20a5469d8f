"""Tokenizers as files of a workdir, with their digests."""

import os
from collections.abc import Mapping
from pathlib import Path

from etils import epath

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.data.tokenizers.subwords import SubwordTokenizer
from mmjax.data.tokenizers.word_tree import TreeTokenizer
from mmjax.errors import UserError
from mmjax.runtime.files import digests, output
from mmjax.runtime.files.names import plain

_KINDS: tuple[type[Tokenizer], ...] = (PieceTokenizer, SubwordTokenizer, TreeTokenizer)


def to_files(tokenizers: Mapping[str, Tokenizer]) -> dict[str, bytes]:
    """Each modality's model by its file's name, such as `text.model` for SentencePiece, `text.json` for
    others, `video.safetensors` for a tree of visual words."""
    return {f"{modality}{tokenizer.SUFFIX}": tokenizer.model for modality, tokenizer in tokenizers.items()}


def from_files(files: Mapping[str, bytes]) -> dict[str, Tokenizer]:
    """Restores the tokenizers of `to_files`, by modality.

    Raises UserError where a file isn't what its name says, or a modality has two.
    """
    tokenizers: dict[str, Tokenizer] = {}
    for name, model in sorted(files.items()):
        modality, suffix = os.path.splitext(name)
        if modality in tokenizers:
            raise UserError(f"{modality!r} has two tokenizers, {name} and another one: take one of the files away")
        for kind in _KINDS:
            if suffix == kind.SUFFIX:
                tokenizers[modality] = kind(model)
    return tokenizers


def save_tokenizers(tokenizers: Mapping[str, Tokenizer], folder: str | os.PathLike[str]) -> None:
    """Writes each modality's model as `<folder>/<modality>.model`, `.json` or `.safetensors`; and the digests of all
    files there.
    """
    for name, model in to_files(tokenizers).items():
        output.write(Path(folder) / plain(name, "the file of a tokenizer"), model)
    if tokenizers:
        output.write(Path(folder) / digests.NAME, digests.listed(epath.Path(folder)))


def load_tokenizers(folder: str | os.PathLike[str]) -> dict[str, Tokenizer]:
    """Loads what `save_tokenizers` wrote into the folder, by modality; empty where there is nothing.

    Raises UserError for a file that isn't in the folder itself (a link that leads away), for a pipe, and for a file
    whose digest differs.
    """
    listed = Path(folder) / digests.NAME
    files = [file for kind in _KINDS for file in Path(folder).glob(f"*{kind.SUFFIX}") if file != listed]
    home = Path(os.path.realpath(Path(folder).parent))  # the workdir
    for file in files:
        if not file.is_file() or not Path(os.path.realpath(file)).is_relative_to(home):
            raise UserError(
                f"{file} is no file of {Path(folder).parent} itself, and isn't read: put the file in its place"
            )
    if listed.is_file() and (problems := digests.problems(epath.Path(folder))):
        raise UserError(f"in {folder}, {problems[0]}: bring back what was there")
    return from_files({file.name: file.read_bytes() for file in files})
