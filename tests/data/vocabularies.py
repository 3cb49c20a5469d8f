"""Small vocabularies in the forms that other projects ship theirs in, and texts that are hard to cut."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import sentencepiece

from mmjax.data.tokenizers.tokenizer_json import open_clip_bpe

WORDS = [
    *("a", "photo", "of", "the", "cat", "don't", "we've", "it's", "café", "naïve", "日本", "2024", "😀", "snake_case"),
    *("wide", "hello", "world"),
]

TEXTS = [
    "",
    " ",
    "a photo of the cat",
    "A  PHOTO\tof\nthe Cat ",
    "don't I'LL we've it's ''s 'S 'ſ",
    "naïve café e\u0301clair Å\u030a",
    "ΟΔΟΣ Σ İstanbul ŸÉ ß ẞ Kω",
    "1234567890 12.5% $3,000 ½ ² Ⅷ",
    "東京タワー 日本語 中文字符 한국어 텍스트",
    "مرحبا بالعالم हिन्दी में",
    "😀👍🏽 👨‍👩‍👧‍👦 🇩🇪",
    "&lt;b&gt;bold&lt;/b&gt; &amp;amp; &eacute; e&#769;",
    "<html> &amp; e&#769; <br>",
    "\x00\x01ctrl\x07\x1b[0m",
    "a\u200bb\ufeffc\u00ad",
    "“curly” ‘quotes’ – dash — …",
    "Ã©tÃ© mojibake Â£",
    "snake_case_name and-kebab !!!???...###",
    "http://ex.com/a?b=c&d=e",
    "\u2028line\u2029par\x85nel\x1cfs \u00a0nbsp\u3000wide ",
    "▁under▁ ▁",
    "ａｂｃ１２３ ﬁ ǅ Ⓐ ⓐ",
    "\ue000private \U000e0041tag",
    "x" * 300,
    "a" * 101,
    "photo cat " * 100,
]
NAMED = ["<|endoftext|> x <|startoftext|>", "[CLS] a [MASK] b [SEP]", "<end_of_text> y <start_of_text>"]


def write_open_clip(folder: Path) -> Path:
    """A file like open_clip's `bpe_simple_vocab_16e6.txt.gz`: a line that isn't read, then a merge a line."""
    letters = _letters()
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        left, *others = (letters[byte] for byte in word.encode())
        for i, letter in enumerate(others):
            right = letter + "</w>" * (i == len(others) - 1)
            merges[left, right] = None
            left += right
    file = folder / "bpe_small.txt.gz"
    lines = ["#version: small", *(" ".join(merge) for merge in merges)]
    file.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return file


def write_clip(folder: Path) -> Path:
    """The same as Hugging Face has it: `vocab.json` and `merges.txt`."""
    model = open_clip_bpe(write_open_clip(folder))["model"]
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {names.get(piece, piece): i for piece, i in model["vocab"].items()}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    merges = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    return folder


def write_bert(folder: Path, **options: bool) -> Path:
    """`vocab.txt` and `tokenizer_config.json`, with some of the accented and capital letters."""
    letters = "abcdefghijklmnopqrstuvwxyzABCé0123456789'.,!?_-&;日本語中"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    pieces += ["photo", "cat", "the", "##oto", "cafe", "café", "naive", "Cat"]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "BertTokenizer", "model_max_length": 40, **options}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def write_siglip(folder: Path) -> Path:
    """`spiece.model` with T5's ids: pad 0, eos 1, unk 2, and no bos."""
    model = io.BytesIO()
    # A run of one letter would become pieces that cut it in many ways, all equally likely: then roundings decide.
    texts = [text for text in TEXTS if text.strip() and len(text) < 100 and "\x00" not in text] + WORDS
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 3),
        model_writer=model,
        vocab_size=220,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        character_coverage=0.99,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
    return folder


def write_gemma(folder: Path) -> Path:
    """`tokenizer.json` as SigLIP 2's: a BPE of characters with bytes to fall back on, ended by <eos>, padded with 0."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [
        *special,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"▁abcdefghijklmnopqrstuvwxyzéσς日",
        "ph",
        "pho",
        "ca",
        "cat",
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    settings = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **flags} for i, name in enumerate(special)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<eos>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<eos>": {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": [["p", "h"], ["ph", "o"], ["c", "a"], ["ca", "t"]],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    config = {
        "tokenizer_class": "Siglip2Tokenizer",
        "model_max_length": 64,
        "padding_side": "right",
        "pad_token": "<pad>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def _letters() -> dict[int, str]:
    """The letter that stands for each byte in a byte-level BPE."""
    plain = [byte for byte in range(256) if chr(byte).isprintable() and byte not in (32, 160, 173)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{byte: chr(byte) for byte in plain}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


def llama_model(texts: list[str], pieces: int = 400, **options: Any) -> bytes:
    """A SentencePiece model with Llama's settings: BPE with bytes for the unknown, texts as they are, no padding."""
    model = io.BytesIO()
    settings: dict[str, Any] = {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "byte_fallback": True,
    }
    ids = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=pieces,
        model_type="bpe",
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **settings | ids | options,  # pyright: ignore[reportArgumentType] (its names have no types)
    )
    return model.getvalue()


def write_gpt2(folder: Path) -> Path:
    """GPT-2's files, `vocab.json` and `merges.txt`, of a byte-level BPE that is trained on `TEXTS`."""
    from tokenizers import ByteLevelBPETokenizer

    own = ByteLevelBPETokenizer()
    own.train_from_iterator([*TEXTS, *WORDS * 3], 400, min_frequency=1, show_progress=False)
    own.save_model(str(folder))
    return _ended(folder, "<|endoftext|>")


def write_gpt(folder: Path) -> Path:
    """GPT-1's files: a BPE of lower-cased characters, with marks at the ends of words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    own = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    own.normalizer, own.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=250, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    own.train_from_iterator([*WORDS * 3, "a photo of the cat, don't it's."], trainer)
    own.model.save(str(folder))
    return folder / "vocab.json"


def _ended(folder: Path, end: str) -> Path:
    vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
    vocab[end] = len(vocab)
    (folder / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    return folder / "vocab.json"
