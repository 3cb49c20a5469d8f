"""Reads and writes the preprocessing and tokenizer in a folder of open_clip's."""

import dataclasses
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.given_ids import GivenIds
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer
from mmjax.data.tokenizers.tokenizer_json import lower_cases, options_of, piece_name, tokenizer_json, with_capitals
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.text import PickCaption, Tokenize
from mmjax.data.transforms.unended import TokenizeUnended
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.interop.bundle import Bundle
from mmjax.interop.parts import graph
from mmjax.interop.preprocessing import image
from mmjax.interop.preprocessing import text as text_preprocessors
from mmjax.interop.preprocessing.image import Preprocessing
from mmjax.interop.preprocessing.piece_json import names_as_text

MERGES = "bpe_simple_vocab_16e6.txt.gz"  # of OpenAI's tokenizer; open_clip's package holds it
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
PIECES = "spiece.model"
# Of transformers' classes those with ways of their own, and the one of open_clip's first SigLIPs.
KNOWN = ("CLIPTokenizer", "BertTokenizer", "SiglipTokenizer", "Siglip2Tokenizer", "GemmaTokenizer")
T5 = "T5Tokenizer"
CLIP_IDS = (49_408, 49_406, 49_407)  # size, begin and end of OpenAI's vocabulary


def pictures(config: Mapping[str, Any], model: Mapping[str, Any]) -> Preprocessing:
    """The image's transforms, and the tower's mean and std, of a `preprocess_cfg` and its `model_cfg`."""
    size = (model.get("vision_cfg") or {}).get("image_size") or 224
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        size = size[0]
    if not isinstance(size, int):
        raise UserError(f"vision_cfg: image_size={size!r}: only squares can be preprocessed here")
    return image.from_open_clip(config, size)


def texts(folder: Path, model: Mapping[str, Any], tower: Any) -> tuple[tuple[Any, ...], dict[str, Tokenizer]]:
    """The text's chain, and its tokenizer by modality: none where the folder holds none, and it isn't OpenAI's.

    Raises:
        UserError: a key of the `text_cfg` that can't be expressed here; a tokenizer that ends texts elsewhere than
            where the model finds their end.
    """
    config = model["text_cfg"]
    named, options = bool(config.get("hf_tokenizer_name")), dict(config.get("tokenizer_kwargs") or {})
    clean = options.pop("clean", None) or ("whitespace" if named else "lower")
    unended = named and bool(options.pop("strip_sep_token", False))
    if options or config.get("tokenizer_mode"):
        key = "tokenizer_mode" if config.get("tokenizer_mode") else "tokenizer_kwargs"
        raise UserError(
            f"text_cfg: {key}={config[key]!r}: of these only clean and strip_sep_token can be expressed here"
        )
    if clean not in text_preprocessors.OPEN_CLIP_CLEANING:
        text_preprocessors.from_open_clip(_Never(b""), tower.length, clean)  # which says what there is
    chain: tuple[Transform, ...] = text_preprocessors.OPEN_CLIP_CLEANING[clean]
    found = _tokenizer(folder, named, tower, clean)
    if found is None:
        kind = TokenizeUnended if unended else Tokenize
        end = config.get("eos_id", 2) if config.get("pool_type") == "eos" else None
        pad = config.get("pad_id") if named else 0  # theirs fills up with 0, and one of transformers' as it says
        cut = kind(GivenIds(tower.vocab, end), tower.length, bos=unended or not named, pad=pad, empty="keep")
        return graph((PickCaption(empty="keep"), *chain, cut)), {}
    transforms, tokenizer = found
    if unended:
        *cleaning, cut = transforms
        assert isinstance(cut, Tokenize)
        transforms = (*cleaning, TokenizeUnended(**vars(cut)))
    if not tower.attend_padding and tower.pooling == "last" and not tower.cls_last:
        _check_end(config, tokenizer, tower.vocab)
    return graph((PickCaption(empty="keep"), *chain, *transforms)), {"text": tokenizer}


def _tokenizer(folder: Path, named: bool, tower: Any, clean: str) -> tuple[tuple[Transform, ...], Tokenizer] | None:
    """The steps after the cleaning, and the tokenizer: of the folder, or OpenAI's where none is named, which leaves
    capitals as they are where the cleaning does."""
    if any((folder / name).is_file() for name in VOCABULARIES):
        transforms, tokenizer = _of_folder(folder, tower.length)
        if not named:  # then open_clip takes OpenAI's, whatever the folder holds, and fills up with 0
            *cleaning, cut = transforms
            assert isinstance(cut, Tokenize)
            transforms = (*cleaning, dataclasses.replace(cut, pad=0))
    elif not named and tower.vocab >= CLIP_IDS[0] and (merges := _merges()) is not None:
        tokenizer = SubwordTokenizer(tokenizer_json(merges))
        (*_, cut), _ = text_preprocessors.from_open_clip(tokenizer, tower.length)
        transforms = (cut,)
    else:
        return None
    if not named and not is_clip(tokenizer):
        raise UserError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size} pieces and isn't OpenAI's, which open_clip takes "
            "where text_cfg has no hf_tokenizer_name"
        )
    if tokenizer.vocab_size > tower.vocab:
        raise UserError(f"{folder}: vocab_size={tower.vocab}, but the tokenizer has {tokenizer.vocab_size} pieces")
    if not named and clean == "whitespace":
        tokenizer = SubwordTokenizer(with_capitals(tokenizer.model))
    return transforms, tokenizer


def _of_folder(folder: Path, length: int) -> tuple[tuple[Transform, ...], Tokenizer]:
    """The tokenizer by the class that it names; a `tokenizer.json` is complete, so any class will do."""
    options = options_of(folder)
    kind, pad = str(options.get("tokenizer_class") or "").removesuffix("Fast"), piece_name(options.get("pad_token"))
    if kind and kind not in KNOWN and (folder / "tokenizer.json").is_file():
        tokenizer = SubwordTokenizer(tokenizer_json(folder / "tokenizer.json"))
        ends = tokenizer.bos is not None, tokenizer.eos is not None
        fill = _pieces(tokenizer).get(pad or "", tokenizer.pad)
        return (Tokenize(Subwords(tokenizer.vocab_size), length, *ends, pad=fill, empty="keep"),), tokenizer
    if kind == T5 and (folder / PIECES).is_file():  # ends texts by </s>
        pieces = PieceTokenizer((folder / PIECES).read_bytes())
        fill = pieces.id_of(pad or "<pad>")
        return (Tokenize(SentencePiece(pieces.vocab_size, path=""), length, pad=fill, empty="keep"),), pieces
    return text_preprocessors.from_hugging_face(folder, length)


def is_clip(tokenizer: Tokenizer) -> bool:
    """True for OpenAI's tokenizer: open_clip's own, where its config names none."""
    ids = (tokenizer.vocab_size, tokenizer.bos, tokenizer.eos)
    return isinstance(tokenizer, SubwordTokenizer) and ids == CLIP_IDS


def _merges() -> Path | None:
    """OpenAI's file of merges, where open_clip is installed; nothing of it is imported."""
    spec = importlib.util.find_spec("open_clip")
    file = Path(spec.origin).parent / MERGES if spec is not None and spec.origin else None
    return file if file is not None and file.is_file() else None


def _check_end(config: Mapping[str, Any], tokenizer: Tokenizer, vocab: int) -> None:
    pool = config.get("pool_type", "argmax")
    end = config.get("eos_id", 2) if pool == "eos" else vocab - 1
    if tokenizer.eos != end:
        raise UserError(
            f"text_cfg: pool_type={pool!r} finds the end of a text at the id {end}, but the tokenizer ends it by "
            f"{tokenizer.eos}"
        )


class _Never(Tokenizer):
    """Stands for a tokenizer where none is looked at."""

    def __init__(self, model: bytes):
        self.model, self.vocab_size, self.pad, self.bos, self.eos = model, 0, None, None, None


# --- out ---


def picture_config(bundle: Bundle, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """The `preprocess_cfg` of the image's chain.

    Raises:
        UserError: it can't be said there.
    """
    chain = [build(transform) for transform in bundle.config.data.transforms["image"]]
    return image.to_open_clip(chain, mean, std)


def end_of(bundle: Bundle) -> int | None:
    """The id that ends texts, where the model says one: its tokenizer's, or its config's where it has none."""
    if (tokenizer := bundle.tokenizers.get("text")) is not None:
        return tokenizer.eos
    cuts = [t.tokenizer for t in map(build, bundle.config.data.transforms["text"]) if isinstance(t, Tokenize)]
    return next((spec.eos for spec in cuts if isinstance(spec, GivenIds)), None)


def write_tokenizer(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Writes the text's tokenizer, and gives what the `text_cfg` says of it.

    Raises:
        UserError: it is one that open_clip, which takes OpenAI's or one of transformers', can't open.
    """
    tokenizer = bundle.tokenizers.get("text")
    if tokenizer is None:
        return {}
    cut = next(t for t in map(build, bundle.config.data.transforms["text"]) if isinstance(t, Tokenize))
    if isinstance(tokenizer, PieceTokenizer):
        _write_pieces(tokenizer, cut, folder)
        return {"hf_tokenizer_name": folder.name, "tokenizer_kwargs": {"clean": _cleaning(bundle)}}
    cleaning, unended = _cleaning(bundle), isinstance(cut, TokenizeUnended)
    _write(tokenizer, folder, unended)
    if is_clip(tokenizer) and not unended:
        if cleaning == "whitespace" and lower_cases(tokenizer.model):  # which open_clip leaves to the cleaning
            cleaning = "lower"
        return {} if cleaning == "lower" else {"tokenizer_kwargs": {"clean": cleaning}}
    stripped = {"strip_sep_token": True} if unended else {}
    return {"hf_tokenizer_name": folder.name, "tokenizer_kwargs": {"clean": cleaning, **stripped}}


def _write_pieces(tokenizer: PieceTokenizer, cut: Tokenize, folder: Path) -> None:
    """Writes `spiece.model`, which transformers reads as SiglipTokenizer: texts end by </s>, and it fills up too."""
    end = tokenizer.id_of("</s>")
    if end is None or tokenizer.eos != end or cut.bos or not cut.eos or cut.pad != end:
        raise UserError(
            "open_clip reads a SentencePiece model as SigLIP's, whose texts end by </s> and are filled up with it "
            f"({end}); this one's are cut by {cut}"
        )
    (folder / PIECES).write_bytes(tokenizer.model)
    options = {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>", "eos_token": "</s>", "do_lower_case": True}
    text = json.dumps({**options, "model_max_length": cut.length}, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def _write(tokenizer: Tokenizer, folder: Path, unended: bool) -> None:
    """Writes `tokenizer.json`, and the files that transformers wants beside it; unended: `strip_sep_token` will look
    for the end.
    """
    (folder / "tokenizer.json").write_bytes(tokenizer.model)
    names = {id: name for name, id in _pieces(tokenizer).items()}
    pad = tokenizer.eos if is_clip(tokenizer) else tokenizer.pad  # "!" as such a piece would go out of texts
    special = {"pad_token": pad, "bos_token": tokenizer.bos, "eos_token": tokenizer.eos}
    special |= {"sep_token": tokenizer.eos} if unended else {}
    options: dict[str, Any] = {key: names[id] for key, id in special.items() if id is not None}
    options |= {"split_special_tokens": True} if names_as_text(tokenizer.model) else {}
    text = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **options}, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def _pieces(tokenizer: Tokenizer) -> dict[str, int]:
    return pieces_of(tokenizer.model)


def pieces_of(model: bytes) -> dict[str, int]:
    """The ids of a `tokenizer.json`'s pieces, special ones too."""
    settings = json.loads(model)
    pieces = settings["model"]["vocab"]
    added = {piece["content"]: piece["id"] for piece in settings.get("added_tokens", ())}
    return (dict(pieces) if isinstance(pieces, dict) else {piece: i for i, (piece, _) in enumerate(pieces)}) | added


def _cleaning(bundle: Bundle) -> str:
    """open_clip's name of what stands before the tokenizer."""
    chain = [build(t) for t in bundle.config.data.transforms["text"]]
    mine = tuple(t for t in chain if not isinstance(t, PickCaption | Tokenize))
    for name, cleaning in text_preprocessors.OPEN_CLIP_CLEANING.items():
        if cleaning == mine:
            return name
    known = ", ".join(f"{name} {cleaning}" for name, cleaning in text_preprocessors.OPEN_CLIP_CLEANING.items())
    raise UserError(f"open_clip cleans texts by one of {known}, not by {mine}")
