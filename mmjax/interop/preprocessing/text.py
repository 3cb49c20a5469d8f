"""Converts other projects' preprocessing of texts to our transforms: of Hugging Face's folders, and of open_clip's.

`image.py` is the same for pictures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer
from mmjax.data.tokenizers.tokenizer_json import lowers, options_of, piece_name, tokenizer_json, with_capitals
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.text import Canonicalize, CleanText, Lowercase, Tokenize
from mmjax.errors import UserError, unknown

# Of a tokenizer_config.json without a model_max_length: what the published models have.
_LENGTHS = {"CLIPTokenizer": 77, "SiglipTokenizer": 64, "Siglip2Tokenizer": 64, "GemmaTokenizer": 64}
SIGLIP_NAMES = {"eos": "</s>", "unk": "<unk>", "pad": "</s>"}  # SiglipTokenizer's special pieces, where it isn't said
_UNLIMITED = 10**6  # Hugging Face writes 10**30 where it knows no limit
_PIECES = ("spiece.model", "tokenizer.model")  # names of SentencePiece's files

# open_clip's names of how a text is cleaned, and the transforms that do it.
OPEN_CLIP_CLEANING: Mapping[str, tuple[Transform, ...]] = {
    "lower": (CleanText(), Lowercase()),
    "whitespace": (CleanText(),),
    "canonicalize": (CleanText(), Canonicalize()),
}


class TextPreprocessing(NamedTuple):
    """The chain of the text's transforms, which holds a spec without a path, and the tokenizer that belongs to it.

    The empty text is kept: it is encoded as the other project does. `tokenizer` goes where tokenizers are kept.
    """

    transforms: tuple[Transform, ...]
    tokenizer: Tokenizer


def from_hugging_face(folder: Path, length: int | None = None) -> TextPreprocessing:
    """The tokenizer of a model's folder, of CLIP, BERT, SigLIP or SigLIP 2.

    Gives the ids of `tokenizer(text, padding="max_length", truncation=True, max_length=length)`; names of special
    pieces that stand in a text become their ids, but for Gemma's where there is a SentencePiece model alone.

    length: of the ids; None takes `model_max_length`, or what published models have.

    Raises:
        UserError: there is no tokenizer that is known, or it pads before the text.
    """
    options = options_of(folder)
    kind = str(options.get("tokenizer_class") or _guess(folder)).removesuffix("Fast")
    known = ("CLIPTokenizer", "BertTokenizer", "SiglipTokenizer", "Siglip2Tokenizer", "GemmaTokenizer")
    if kind not in known:
        raise UserError(f"{folder}: tokenizer_class={kind!r} isn't here; {', '.join(known)} are")
    if (options.get("padding_side") or "right") != "right":
        raise UserError(f"{folder}: padding_side={options['padding_side']!r} must be 'right', as texts are padded here")
    length = length or _length(folder, kind, options)
    if kind == "SiglipTokenizer":
        # SiglipTokenizer pads with </s> even where the model has a piece for padding.
        if not options.get("do_lower_case", True):
            raise UserError(f"{folder}: do_lower_case=False removes punctuation only, which no transform here does")
        tokenizer = _pieces(folder)
        named = {kind: piece_name(options.get(f"{kind}_token")) or name for kind, name in SIGLIP_NAMES.items()}
        pad = _id(tokenizer, named["pad"])
        names = tuple(name for name in dict.fromkeys(named.values()) if tokenizer.id_of(name) is not None)
        return _made((Canonicalize("", names),), tokenizer, length, bos=False, pad=pad, names=names)
    has_json = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt"))
    if has_json:
        return _made((), SubwordTokenizer(tokenizer_json(folder)), length)
    # Gemma's file of SentencePiece: begins a text where asked to, and ends it where asked to.
    ends = {"bos": bool(options.get("add_bos_token", True)), "eos": bool(options.get("add_eos_token", False))}
    cleaning = (Lowercase(join=False),) if lowers(options) else ()
    return _made(cleaning, _pieces(folder), length, **ends)


def from_open_clip(tokenizer: Tokenizer, length: int = 77, clean: str = "lower") -> TextPreprocessing:
    """open_clip's own tokenizer: `tokenizer` of its file of merges (`Subwords(path=...)`).

    length: `context_length`. clean: as in the `tokenizer_kwargs` of its `text_cfg`; after "whitespace" capitals stay,
    and the tokenizer that is given back doesn't lower-case them either.

    Raises:
        UserError: for another way to clean.
    """
    if clean not in OPEN_CLIP_CLEANING:
        raise UserError(unknown("tokenizer_kwargs: clean", clean, OPEN_CLIP_CLEANING, "known ones"))
    if clean == "whitespace":
        tokenizer = SubwordTokenizer(with_capitals(tokenizer.model))
    return _made(OPEN_CLIP_CLEANING[clean], tokenizer, length)


def _made(cleaning: tuple[Transform, ...], tokenizer: Tokenizer, length: int, **fields: Any) -> TextPreprocessing:
    ends = {"bos": tokenizer.bos is not None, "eos": tokenizer.eos is not None, **fields}
    spec: TokenizerSpec = Subwords(tokenizer.vocab_size)
    if isinstance(tokenizer, PieceTokenizer):
        spec = SentencePiece(tokenizer.vocab_size, path="")
    return TextPreprocessing((*cleaning, Tokenize(spec, length, **ends, empty="keep")), tokenizer)


def _guess(folder: Path) -> str:
    """The class of a folder that doesn't name it, by the files that only one kind has."""
    if (folder / "vocab.txt").is_file():
        return "BertTokenizer"
    if (folder / "merges.txt").is_file():
        return "CLIPTokenizer"
    if (folder / "spiece.model").is_file():
        return "SiglipTokenizer"
    raise UserError(f"{folder} has no tokenizer_config.json that names its tokenizer_class")


def _length(folder: Path, kind: str, options: Mapping[str, Any]) -> int:
    length = options.get("model_max_length") or _UNLIMITED
    if length < _UNLIMITED:
        return int(length)
    if kind not in _LENGTHS:
        raise UserError(f"{folder}: tokenizer_config.json has no model_max_length: give the length of the texts")
    return _LENGTHS[kind]


def _pieces(folder: Path) -> PieceTokenizer:
    for name in _PIECES:
        if (folder / name).is_file():
            return PieceTokenizer((folder / name).read_bytes())
    raise UserError(f"{folder} has none of {', '.join(_PIECES)}, which hold a SentencePiece model")


def _id(tokenizer: PieceTokenizer, name: str) -> int:
    id = tokenizer.id_of(name)
    if id is None:
        raise UserError(f"the SentencePiece model has no piece {name!r}, which its text is to be padded with")
    return id
