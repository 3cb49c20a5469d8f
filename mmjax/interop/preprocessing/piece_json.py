"""SentencePiece models, and what cleans a text before them, as the `tokenizer.json` of the `tokenizers` library.

Other projects' code opens that file, and needs nothing of ours: it lower-cases, cuts and numbers a text as the chain
does here. A name such as `</s>` within a text is text here; there the special pieces' names are looked for in texts, so
the file gives them a blank ("< /s>"), which no piece of a text can hold, since blanks are written as ▁ there.
"""

import base64
import json
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.data.tokenizers.tokenizer_json import written
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.text import Canonicalize, Lowercase
from mmjax.errors import UserError

UNIGRAM, BPE = 1, 2  # SentencePiece's numbers of its kinds
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # and of its pieces
BLANK = "▁"


def piece_json(
    tokenizer: PieceTokenizer, cleaning: Sequence[Transform], *, bos: bool, eos: bool, pad: int, swap: tuple[int, int]
) -> bytes:
    """The `tokenizer.json` of a model, with what stands before it.

    bos, eos: whether they begin and end a text.  pad: the id that fills up, after the swap.
    swap: two ids that change places; twice the same: none do.

    Raises:
        UserError: a transform, or a kind of model or of pieces, that the format hasn't.
    """
    from sentencepiece import sentencepiece_model_pb2 as proto  # protobuf, which takes a while to load

    model = proto.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    model.ParseFromString(tokenizer.model)
    kind = model.trainer_spec.model_type
    kinds = {piece.type for piece in model.pieces}
    if kind not in (UNIGRAM, BPE) or USER in kinds or model.trainer_spec.treat_whitespace_as_suffix:
        raise UserError(
            "a SentencePiece model of words or characters, with user-defined pieces or blanks behind the words has "
            "no tokenizer.json that does the same"
        )
    order = list(range(len(model.pieces)))
    order[swap[0]], order[swap[1]] = swap[1], swap[0]
    pieces = [model.pieces[i] for i in order]
    names = [
        renamed_pieces(piece.piece) if piece.type in (UNKNOWN, CONTROL, UNUSED) else piece.piece for piece in pieces
    ]
    unknown = next(i for i, piece in enumerate(pieces) if piece.type == UNKNOWN)
    begin, end = (None if id is None else order.index(id) for id in (tokenizer.bos, tokenizer.eos))
    held = {"byte_fallback": bool(model.trainer_spec.byte_fallback)}
    if kind == UNIGRAM:
        vocab = [[name, piece.score] for name, piece in zip(names, pieces, strict=True)]
        described = {"type": "Unigram", "unk_id": unknown, "vocab": vocab, **held}
    else:
        scores = {name: piece.score for name, piece in zip(names, pieces, strict=True) if piece.type == NORMAL}
        described = {
            **{"type": "BPE", "dropout": None, "unk_token": names[unknown], "fuse_unk": True, **held},
            **{"continuing_subword_prefix": None, "end_of_word_suffix": None},
            **{"vocab": {name: i for i, name in enumerate(names)}, "merges": _merges(scores)},
        }
    spaces = {"type": "Metaspace", "replacement": BLANK, "split": False}
    spaces["prepend_scheme"] = "always" if model.normalizer_spec.add_dummy_prefix else "never"
    special = [i for i, piece in enumerate(pieces) if piece.type in (UNKNOWN, CONTROL)]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    fill = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_type_id": 0}
    return written(
        {
            "version": "1.0",
            "truncation": None,
            "padding": {**fill, "pad_id": pad, "pad_token": names[pad]},
            "added_tokens": [{"id": i, "content": names[i], **plain} for i in special],
            "normalizer": _sequence([*normalizers(cleaning), *_own(model.normalizer_spec)]),
            "pre_tokenizer": spaces,
            "post_processor": _template(names, begin if bos else None, end if eos else None),
            "decoder": spaces,
            "model": described,
        }
    )


def renamed_pieces(name: str) -> str:
    """A special piece's name that can't come out of a text."""
    return f"{name[:1]} {name[1:]}"


def names_as_text(model: bytes) -> bool:
    """True if a `tokenizer.json` is one of these: the special pieces' names are no pieces of texts."""
    names = [added["content"] for added in json.loads(model).get("added_tokens") or ()]
    return bool(names) and all(name[1:2] == " " for name in names)


def normalizers(cleaning: Sequence[Transform]) -> list[dict[str, Any]]:
    """The normalizers of a `tokenizer.json` that clean texts as here.

    Raises:
        UserError: one that it has no words for.
    """
    made: list[dict[str, Any]] = []
    for transform in cleaning:
        if isinstance(transform, Canonicalize):
            if transform.spaced:
                made.append(_replace(f"[{re.escape(transform.spaced)}]", " "))
            made.append(_replace(f"[{re.escape(string.punctuation)}]", ""))
        if not isinstance(transform, Canonicalize | Lowercase):
            raise UserError(f"a tokenizer.json has no words for {transform}")
        made += [_replace(r"(?<=\p{L})Σ(?!\p{L})", "ς"), {"type": "Lowercase"}]
        if isinstance(transform, Canonicalize) or transform.join:
            made += [_replace(r"\s+", " "), {"type": "Strip", "strip_left": True, "strip_right": True}]
    return made


def cleaned(model: bytes, cleaning: Sequence[Transform]) -> bytes:
    """A `tokenizer.json` with so much done before its own normaliser. Raises UserError as `normalizers`."""
    if not cleaning:
        return model
    settings = json.loads(model)
    own = settings.get("normalizer")
    return written({**settings, "normalizer": _sequence([*normalizers(cleaning), *([own] if own else [])])})


def _own(spec: Any) -> list[dict[str, Any]]:
    """SentencePiece's normaliser: a table of characters, and what it does to blanks."""
    made: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        table = base64.b64encode(spec.precompiled_charsmap).decode()
        made.append({"type": "Precompiled", "precompiled_charsmap": table})
    if spec.remove_extra_whitespaces:
        made += [{"type": "Strip", "strip_left": True, "strip_right": True}, _replace(" {2,}", " ")]
    return made


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _sequence(made: list[dict[str, Any]]) -> dict[str, Any] | None:
    return {"type": "Sequence", "normalizers": made} if made else None


def _template(names: Sequence[str], begin: int | None, end: int | None) -> dict[str, Any]:
    """The ends of a text; of two texts the first begins, and each ends, as BERT's."""

    def piece(id: int | None, kind: int = 0) -> list[dict[str, Any]]:
        return [] if id is None else [{"SpecialToken": {"id": names[id], "type_id": kind}}]

    first, second = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [*piece(begin), first, *piece(end)],
        "pair": [*piece(begin), first, *piece(end), second, *piece(end, 1)],
        "special_tokens": {
            names[id]: {"id": names[id], "ids": [id], "tokens": [names[id]]} for id in (begin, end) if id is not None
        },
    }


def _merges(scores: Mapping[str, float]) -> list[list[str]]:
    """Every way to make a piece of two others, the likeliest piece first: SentencePiece merges by the score alone."""
    places = {name: i for i, name in enumerate(scores)}
    found = [
        (-score, places[name[:cut]], places[name[cut:]], [name[:cut], name[cut:]])
        for name, score in scores.items()
        for cut in range(1, len(name))
        if name[:cut] in places and name[cut:] in places
    ]
    return [pair for *_, pair in sorted(found)]
