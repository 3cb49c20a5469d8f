"""The `tokenizer.json` of GPT-1's and GPT-2's vocabularies, and the ends of texts where a file tells none."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.tokenizers.json_parts import (
    bpe_model,
    id_in,
    in_template,
    padding_of,
    piece_name,
    special_piece,
    written,
)
from mmjax.errors import UserError
from mmjax.runtime.files import json_text

WORD_END, GPT_UNKNOWN, GPT_END = "</w>", "<unk>", "<|endoftext|>"


def gpt2_bpe(vocab: Mapping[str, int], merges: Sequence[str], options: Mapping[str, Any] | None = None) -> dict:
    """GPT-2's tokenizer (Radford et al. 2019): BPE of bytes, which keeps case and white space, so that every text comes
    back as it was. Its one special piece, `<|endoftext|>`, begins and ends a text, and fills it up.

    vocab, merges, options: as of `clip_bpe`.
    """
    options = options or {}
    begin, end = (piece_name(options.get(key)) or GPT_END for key in ("bos_token", "eos_token"))
    pad = piece_name(options.get("pad_token")) or end
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    before = as_bytes | {"add_prefix_space": bool(options.get("add_prefix_space", False))}
    names = dict.fromkeys((begin, end, pad))
    return {
        **bpe_model(vocab, merges, None, ""),
        "padding": padding_of(pad, id_in(vocab, pad)),
        "added_tokens": [special_piece(vocab, name) for name in names],
        "normalizer": None,
        "pre_tokenizer": before,
        "post_processor": _framing(begin, end, vocab),
        "decoder": as_bytes,
    }


def gpt_bpe(vocab: Mapping[str, int], merges: Sequence[str], unknown: str = GPT_UNKNOWN) -> dict:
    """GPT-1's tokenizer (Radford et al. 2018) as Hugging Face's `OpenAIGPTTokenizer` has it: lower-cased BPE of
    characters, a word's last one marked `</w>`. Nothing begins or ends a text; the unknown piece, id 0, fills it up.

    OpenAI's code repairs texts with ftfy and cuts words with spaCy first, and this with BERT's rule, white space and
    punctuation: "don't" is "do n't" there and "don ' t" here, accents are taken off here, and "..." is three words.
    """
    lowered = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    return {
        **bpe_model(vocab, merges, unknown, WORD_END),
        "padding": padding_of(unknown, id_in(vocab, unknown)),
        "added_tokens": [special_piece(vocab, unknown)],
        "normalizer": {"type": "BertNormalizer", **lowered},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "BPEDecoder", "suffix": WORD_END},
    }


def with_end(model: bytes, end: str) -> bytes:
    """Changes a `tokenizer.json` so that the special piece `end` ends texts; and begins them and fills them up, where
    it has no piece for that. GPT-2's own file tells none of them, and Llama's only what begins a text.

    Raises UserError where the file has no such piece.
    """
    settings = json_text.parse(model)
    pieces = {added["content"]: added["id"] for added in settings.get("added_tokens") or ()}
    if isinstance(settings["model"].get("vocab"), dict):
        pieces = settings["model"]["vocab"] | pieces
    id, begin = id_in(pieces, end), end
    processor = settings.get("post_processor") or {}
    if processor.get("type") == "TemplateProcessing" and "SpecialToken" in processor["single"][0]:
        begin = processor["single"][0]["SpecialToken"]["id"]
    return written(
        settings
        | {"post_processor": _framing(begin, end, pieces)}
        | {"padding": settings.get("padding") or padding_of(end, id)}
    )


def with_begin(model: bytes, begin: str) -> bytes:
    """Changes a `tokenizer.json` so that the special piece `begin` begins texts, in the place of the one that did. A
    piece that it doesn't have gets the id behind its last one, as BLIP's [DEC] stands behind BERT's.

    Raises UserError where the file puts nothing behind a text: such a file is no BERT's.
    """
    settings = json_text.parse(model)
    added: list[dict[str, Any]] = list(settings.get("added_tokens") or ())
    held = settings["model"]["vocab"]
    pieces = dict(held) if isinstance(held, dict) else {piece: id for id, (piece, *_) in enumerate(held)}
    pieces |= {piece["content"]: piece["id"] for piece in added}
    if begin not in pieces:
        pieces[begin] = 1 + max(pieces.values())
        added.append(special_piece(pieces, begin))
    processor = settings.get("post_processor") or {}
    last = (processor.get("single") or [{}])[-1]
    end = processor["sep"][0] if "sep" in processor else last.get("SpecialToken", {}).get("id")
    if end is None:
        raise UserError(f"the tokenizer.json ends no text by a piece, and {begin!r} is to begin what another one ends")
    return written(settings | {"added_tokens": added, "post_processor": _framing(begin, end, pieces)})


def _framing(begin: str, end: str, pieces: Mapping[str, int]) -> dict[str, Any]:
    """The post-processor of texts that begin and end in these pieces."""
    one, names = {"Sequence": {"id": "A", "type_id": 0}}, dict.fromkeys((begin, end))
    return {
        "type": "TemplateProcessing",
        "single": [in_template(begin), one, in_template(end)],
        "pair": [in_template(begin), one, {"Sequence": {"id": "B", "type_id": 0}}, in_template(end)],
        "special_tokens": {name: {"id": name, "ids": [id_in(pieces, name)], "tokens": [name]} for name in names},
    }
