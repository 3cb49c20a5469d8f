"""The `tokenizer.json` of CLIP's, GPT's and BERT's vocabularies, from whatever form they are shipped in.

The file holds all that decides the pieces: the normaliser, the cut into words, the vocabulary, the ids that begin and
end a text (its post-processor) and the padding. The format is that of the `tokenizers` library, which isn't needed to
write it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.tokenizers.gpt_json import GPT_UNKNOWN, WORD_END, gpt2_bpe, gpt_bpe
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
from mmjax.runtime.files import archives, json_text, regular

# How CLIP cuts a text into words (Radford et al. 2021; its byte-level BPE is Radford et al. 2019's): English
# contractions, runs of letters, single digits, runs of other characters. open_clip ignores the case here, which in a
# lower-cased text only tells of 'ſ: it is 's there, and two pieces at Hugging Face.
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
OPEN_CLIP_WORDS = f"(?i:{CLIP_WORDS})"
CLIP_BEGIN, CLIP_END = "<|startoftext|>", "<|endoftext|>"
CLIP_MERGES = 49_152 - 256 - 2  # CLIP uses this many lines of bpe_simple_vocab_16e6.txt
OPEN_CLIP_BEGIN, OPEN_CLIP_END = "<start_of_text>", "<end_of_text>"

LONGEST_WORD = 100  # characters, beyond which a word is BERT's [UNK] (WordPiece's default)


def tokenizer_json(path: Path) -> bytes:
    """The `tokenizer.json` of a vocabulary in a file or a folder, as `Subwords` describes them.

    Raises:
        UserError: the file is none of these, or lacks a file beside it.
    """
    if path.is_dir():
        for name in ("tokenizer.json", "vocab.json", "vocab.txt"):
            if (path / name).is_file():
                return tokenizer_json(path / name)
        raise UserError(f"{path} has no tokenizer.json, vocab.json or vocab.txt, of which one holds the vocabulary")
    options = options_of(path.parent)
    if path.name.endswith(".gz"):
        return written(open_clip_bpe(path))
    if path.suffix == ".txt":
        return written(word_piece(_lines(path), options))
    if path.name.endswith("vocab.json"):
        merges = path.with_name(path.name.replace("vocab.json", "merges.txt"))
        if not merges.is_file():
            raise UserError(f"{path} needs {merges.name} beside it: the two are one tokenizer")
        return written(_paired(_object(path), _lines(merges), options))
    if path.suffix == ".json":
        return _with_options(regular.content(path), options)
    raise UserError(f"{path} is no vocabulary: tokenizer.json, vocab.json, vocab.txt and bpe_*.txt.gz are")


def _paired(vocab: Mapping[str, int], merges: Sequence[str], options: Mapping[str, Any]) -> dict:
    """The tokenizer of a vocab.json and its merges: CLIP's and GPT-1's mark the ends of words, and GPT-1 has no piece
    that begins a text.
    """
    if not any(piece.endswith(WORD_END) for piece in vocab):
        return gpt2_bpe(vocab, merges, options)
    unknown = piece_name(options.get("unk_token")) or GPT_UNKNOWN
    begins = (piece_name(options.get("bos_token")) or CLIP_BEGIN) in vocab
    return clip_bpe(vocab, merges, options) if begins or unknown not in vocab else gpt_bpe(vocab, merges, unknown)


def clip_bpe(vocab: Mapping[str, int], merges: Sequence[str], options: Mapping[str, Any] | None = None) -> dict:
    """CLIP's tokenizer as Hugging Face's `CLIPTokenizer` has it: composed (NFC) and lower-cased, nothing unescaped.

    vocab: id by piece. merges: pairs of pieces, a space between, in the order of their rank; a first line may say the
    version. options: of `tokenizer_config.json`.
    """
    options = options or {}
    begin, end = (
        piece_name(options.get(key)) or of for key, of in (("bos_token", CLIP_BEGIN), ("eos_token", CLIP_END))
    )
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    normalizer = {"type": "Sequence", "normalizers": [{"type": "NFC"}, spaces, {"type": "Lowercase"}]}
    pad = piece_name(options.get("pad_token")) or end
    return _bpe(vocab, merges, (begin, end, pad), CLIP_WORDS, normalizer)


def open_clip_bpe(path: Path) -> dict:
    """The tokenizer of OpenAI's and open_clip's code, from the file of merges that both ship: padded with id 0.

    The text must be cleaned before, as they do (`text.CleanText`); this lower-cases it, since the vocabulary has no
    capitals.
    """
    lines = archives.gunzip(path).decode("utf-8").split("\n")
    merges = [line for line in lines[1 : CLIP_MERGES + 1] if line]
    letters = _byte_letters()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    vocab = {piece: i for i, piece in enumerate([*pieces, OPEN_CLIP_BEGIN, OPEN_CLIP_END])}
    special = OPEN_CLIP_BEGIN, OPEN_CLIP_END, pieces[0]
    return _bpe(vocab, merges, special, OPEN_CLIP_WORDS, {"type": "Lowercase"})


def with_capitals(model: bytes) -> bytes:
    """Changes a `tokenizer.json` of CLIP's vocabulary to open_clip's form for texts that it doesn't lower-case (`clean:
    "whitespace"`): a capital is a piece of one letter, and contractions are cut off in any case.
    """
    settings = json.loads(model)
    words, *rest = settings["pre_tokenizer"]["pretokenizers"]
    words = words | {"pattern": {"Regex": OPEN_CLIP_WORDS}}
    cut = settings["pre_tokenizer"] | {"pretokenizers": [words, *rest]}
    return written(settings | {"normalizer": None, "pre_tokenizer": cut})


def lower_cases(model: bytes) -> bool:
    """True if a `tokenizer.json` lower-cases texts itself."""
    return "Lowercase" in json.dumps(json.loads(model).get("normalizer"))


def word_piece(vocab: Sequence[str], options: Mapping[str, Any] | None = None) -> dict:
    """BERT's tokenizer. vocab: the pieces by id; options: of `tokenizer_config.json`."""
    options = options or {}
    ids = {piece: i for i, piece in enumerate(vocab) if piece or i < len(vocab) - 1}  # an empty last line is no piece
    defaults = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    names = {kind: piece_name(options.get(f"{kind}_token")) or name for kind, name in defaults.items()}
    model = {
        "type": "WordPiece",
        "unk_token": names["unk"],
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": LONGEST_WORD,
        "vocab": ids,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": padding_of(names["pad"], id_in(ids, names["pad"])),
        "added_tokens": [special_piece(ids, name) for name in names.values() if name in ids],
        "normalizer": _bert_normalizer(options),
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [in_template(names["cls"]), {"Sequence": {"id": "A", "type_id": 0}}, in_template(names["sep"])],
            "pair": [
                *(in_template(names["cls"]), {"Sequence": {"id": "A", "type_id": 0}}, in_template(names["sep"])),
                *({"Sequence": {"id": "B", "type_id": 1}}, in_template(names["sep"], 1)),
            ],
            "special_tokens": {
                name: {"id": name, "ids": [id_in(ids, name)], "tokens": [name]} for name in (names["cls"], names["sep"])
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": model,
    }


def _bpe(
    vocab: Mapping[str, int],
    merges: Sequence[str],
    special: tuple[str, str, str],
    pattern: str,
    normalizer: dict[str, Any],
) -> dict:
    begin, end, pad = special
    words = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        **bpe_model(vocab, merges, end, WORD_END),
        "padding": padding_of(pad, id_in(vocab, pad)),
        "added_tokens": [special_piece(vocab, name) for name in (begin, end)],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, as_bytes]},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [end, id_in(vocab, end)],
            "cls": [begin, id_in(vocab, begin)],
            "trim_offsets": False,
            "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    }


def _with_options(model: bytes, options: Mapping[str, Any]) -> bytes:
    """Applies the settings that only `tokenizer_config.json` has to a `tokenizer.json`: the padding, BERT's
    lower-casing.

    Unchanged where there are none.
    """
    try:
        settings = json_text.parse(model)
        vocab = settings["model"]["vocab"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"this is no tokenizer.json: {type(error).__name__} {error}") from error
    changed = dict(settings)
    pad = piece_name(options.get("pad_token"))
    if settings.get("padding") is None and pad is not None:
        known = {added["content"]: added["id"] for added in settings.get("added_tokens") or ()}
        pieces = vocab if isinstance(vocab, dict) else {piece: i for i, (piece, *_) in enumerate(vocab)}
        changed["padding"] = padding_of(pad, id_in({**pieces, **known}, pad))
    normalizer = settings.get("normalizer")
    if (normalizer or {}).get("type") == "BertNormalizer" and options:
        changed["normalizer"] = _bert_normalizer(options, normalizer)
    if lowers(options) and "Lowercase" not in json.dumps(normalizer):  # Gemma's own file doesn't
        changed["normalizer"] = {
            "type": "Sequence",
            "normalizers": [{"type": "Lowercase"}, *([normalizer] * bool(normalizer))],
        }
    return model if changed == settings else written(changed)


def _bert_normalizer(options: Mapping[str, Any], stands: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """BERT's normaliser; `stands` has the defaults where the options have no value; without it, those of BERT's own
    code.
    """
    stands = stands or {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    return {
        "type": "BertNormalizer",
        "clean_text": stands["clean_text"],
        "handle_chinese_chars": bool(options.get("tokenize_chinese_chars", stands["handle_chinese_chars"])),
        "strip_accents": options.get("strip_accents", stands["strip_accents"]),  # null: follows the lower-casing
        "lowercase": bool(options.get("do_lower_case", stands["lowercase"])),
    }


def lowers(options: Mapping[str, Any]) -> bool:
    """True if a `tokenizer_config.json` is SigLIP 2's: Gemma's tokenizer, but lower-cased."""
    kind = str(options.get("tokenizer_class") or "").removesuffix("Fast")
    return kind == "Siglip2Tokenizer" or (kind == "GemmaTokenizer" and bool(options.get("do_lower_case")))


def options_of(folder: Path) -> dict[str, Any]:
    """The settings in `tokenizer_config.json`, and in `special_tokens_map.json` where it lacks them."""
    found: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            found = {**_object(folder / name), **found}
    return found


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError where it holds anything else."""
    if not isinstance(found := json_text.read(path), dict):
        raise UserError(f"{path} holds no object but {found!r:.80}")
    return found


def _byte_letters() -> list[str]:
    """A visible letter for each of the 256 bytes: printable Latin-1 maps to itself, and comes first; the rest are from
    256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def _lines(path: Path) -> list[str]:
    return json_text.text(path).split("\n")  # splitlines would also cut at Unicode's other separators
