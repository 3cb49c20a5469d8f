"""The parts that the `tokenizer.json` of several kinds of tokenizers are made of."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.errors import UserError


def written(settings: Mapping[str, Any]) -> bytes:
    """The bytes of a `tokenizer.json`, the same for the same settings."""
    return json.dumps(settings, ensure_ascii=False).encode()


def piece_name(token: Any) -> str | None:
    """A special piece's name, from a string or a dict with its `content`."""
    name = token.get("content") if isinstance(token, dict) else token
    if name is not None and not isinstance(name, str):
        raise UserError(f"a special piece is called {name!r:.60}, which is no name: a text, or a dict with its content")
    return name


def id_in(vocab: Mapping[str, int], name: str) -> int:
    """The id of a piece. Raises UserError where the vocabulary lacks it."""
    if name not in vocab:
        raise UserError(f"the vocabulary of {len(vocab):,} pieces lacks {name!r}, which its tokenizer needs")
    return vocab[name]


def padding_of(name: str, id: int) -> dict[str, Any]:
    """The padding with a piece."""
    same = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_type_id": 0}
    return {**same, "pad_id": id, "pad_token": name}


def special_piece(vocab: Mapping[str, int], name: str) -> dict[str, Any]:
    """A special piece among the added ones."""
    as_it_stands = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": id_in(vocab, name), "content": name, **as_it_stands}


def in_template(name: str, type_id: int = 0) -> dict[str, Any]:
    """A special piece in a post-processor's template."""
    return {"SpecialToken": {"id": name, "type_id": type_id}}


def bpe_model(vocab: Mapping[str, int], merges: Sequence[str], unknown: str | None, word_end: str) -> dict[str, Any]:
    """The part of a BPE's settings that holds its vocabulary."""
    merges = [merge for i, merge in enumerate(merges) if merge and not (i == 0 and merge.startswith("#version"))]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": word_end,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": dict(vocab),
        "merges": [merge.split() for merge in merges],
    }
    return {"version": "1.0", "truncation": None, "model": model}
