"""GPT-1's, GPT-2's and Llama's tokenizers against Hugging Face's, on vocabularies that are made here."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmjax.data.tokenizers.contract import Tokenizer, sizes_of
from mmjax.data.tokenizers.gpt_json import with_end
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer
from mmjax.data.tokenizers.tokenizer_json import tokenizer_json
from mmjax.data.transforms.text import Tokenize
from mmjax.errors import UserError
from tests.data.vocabularies import TEXTS, WORDS, llama_model, write_bert, write_gpt, write_gpt2

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2")).parent


@pytest.fixture(scope="module")
def gpt2(gpt2_folder: Path) -> SubwordTokenizer:
    return SubwordTokenizer(tokenizer_json(gpt2_folder))


def drawn_texts(seed: int) -> list[str]:
    """Random Unicode, of all planes, with runs of white space and contractions."""
    random = np.random.default_rng(seed)
    letters = [chr(c) for c in range(32, 0x3000) if not 0xD800 <= c < 0xE000] + list(
        "😀𝕏\U000e0041\n\t   ''''sdtm"
    ) * 20
    return ["".join(random.choice(letters, int(random.integers(1, 40)))) for _ in range(60)]


def test_gpt2s_pieces_are_hugging_faces(gpt2: SubwordTokenizer, gpt2_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2TokenizerFast.from_pretrained(gpt2_folder)
    for text in [*TEXTS, *drawn_texts(0)]:
        assert gpt2.encode(text) == theirs.encode(text), text
    assert gpt2.eos == gpt2.bos == gpt2.pad == theirs.eos_token_id == gpt2.vocab_size - 1
    whole = Tokenize(gpt2, 8, bos=True)("a cat", None)
    assert whole.values.tolist() == [gpt2.eos, *theirs.encode("a cat"), gpt2.eos, *[gpt2.eos] * 8][:8]


def test_gpt2_loses_nothing(gpt2: SubwordTokenizer) -> None:
    for text in [*TEXTS, *drawn_texts(1)]:
        assert gpt2.decode(gpt2.encode(text)) == text
        assert gpt2.encode_after(text) == gpt2.encode(text)
    assert gpt2.encode(" a") != gpt2.encode("a")


def test_gpt2s_own_file_tells_no_ends_and_is_told_them(gpt2: SubwordTokenizer, gpt2_folder: Path, tmp_path) -> None:
    from tokenizers import ByteLevelBPETokenizer

    own = ByteLevelBPETokenizer(str(gpt2_folder / "vocab.json"), str(gpt2_folder / "merges.txt"))
    own.add_special_tokens(["<|endoftext|>"])
    own.save(str(tmp_path / "tokenizer.json"))
    bare = Subwords(1000, str(tmp_path)).load(None, tmp_path)
    assert (bare.bos, bare.eos, bare.pad) == (None, None, None)
    with pytest.raises(UserError, match="has no such piece: set eos=False"):
        Tokenize(bare, 8)
    told = Subwords(1000, str(tmp_path), end="<|endoftext|>").load(None, tmp_path)
    assert (told.bos, told.eos, told.pad) == (gpt2.bos, gpt2.eos, gpt2.pad)
    assert not told.separates
    for text in TEXTS:
        assert told.encode(text) == gpt2.encode(text)
    with pytest.raises(UserError, match="lacks '<end>'"):
        Subwords(1000, str(tmp_path), end="<end>").load(None, tmp_path)


def test_what_begins_a_text_is_kept_where_the_end_is_told(tmp_path: Path) -> None:
    model = json.loads(tokenizer_json(write_bert(tmp_path)))
    model["post_processor"]["single"].pop()
    told = SubwordTokenizer(with_end(json.dumps(model).encode(), "[MASK]"))
    assert (told.bos, told.eos, told.pad) == (2, told.id_of("[MASK]"), 0)


def test_gpts_pieces_are_hugging_faces(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = write_gpt(tmp_path).parent
    own, theirs = SubwordTokenizer(tokenizer_json(folder)), transformers.OpenAIGPTTokenizer.from_pretrained(folder)
    for text in [*TEXTS, *WORDS, "A Photo, don't!", "...and cat"]:
        assert own.encode(text) == theirs.encode(text), text
    assert (own.bos, own.eos, own.pad) == (None, None, theirs.unk_token_id)
    assert own.decode(own.encode("the cat, don't")) == theirs.decode(theirs.encode("the cat, don't")) != ""
    assert Tokenize(own, 4, eos=False)("cat", None).mask.sum() == len(theirs.encode("cat"))


def test_llamas_pieces_are_hugging_faces(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    own = PieceTokenizer(llama_model([*WORDS * 3, "a photo of the cat", "hello world, it's 2024"]))
    (tmp_path / "tokenizer.model").write_bytes(own.model)
    vocab = {own.piece(id): id for id in range(own.vocab_size)}
    # The merges of a SentencePiece BPE: pairs of pieces that make a piece, the earlier the lower its id.
    pairs = [(a, piece[len(a) :]) for piece in vocab for a in (piece[:n] for n in range(1, len(piece)))]
    known = [pair for pair in pairs if pair[0] in vocab and pair[1] in vocab]
    merges = sorted(known, key=lambda pair: (vocab["".join(pair)], vocab[pair[0]], vocab[pair[1]]))
    # (A text that begins with a space has one piece more here, as SentencePiece itself cuts it.)
    theirs = transformers.LlamaTokenizer(vocab=vocab, merges=merges, legacy=True)
    for text in ["a photo of the cat", "two  spaces", "日本 x\n\ny", "hello world 2024, don't", "😀"]:
        assert own.encode(text) == theirs.encode(text, add_special_tokens=False), text
        assert own.decode(own.encode(text)) == text
    assert (own.bos, own.eos, own.pad) == (theirs.bos_token_id, theirs.eos_token_id, None)


@pytest.mark.parametrize("name", ["gpt2", "llama", "trained", "bert"])
def test_sizes_are_bytes_of_the_text(gpt2: SubwordTokenizer, tmp_path: Path, name: str) -> None:
    own: Tokenizer = {
        "gpt2": lambda: gpt2,
        "llama": lambda: PieceTokenizer(llama_model(WORDS * 3)),
        "trained": lambda: PieceTokenizer(SentencePiece(60).train(WORDS * 3)),
        "bert": lambda: SubwordTokenizer(tokenizer_json(write_bert(tmp_path))),
    }[name]()
    for text in [*TEXTS, *drawn_texts(2)]:
        ids, sizes = own.encode_sized(text)
        assert ids == own.encode(text)
        assert len(sizes) == len(ids)
        assert min(sizes, default=0) >= 0
        assert sum(sizes) == len(text.encode()) * bool(ids)
    if name in ("gpt2", "llama"):
        ids, sizes = own.encode_sized("a photo of café")
        ends = np.cumsum(sizes).tolist()
        for place, end in enumerate(ends):  # each piece is the bytes that it is said to be
            assert own.decode(ids[: place + 1]).encode()[:end] == "a photo of café".encode()[:end] or end == ends[-2]


def test_sizes_never_go_back_and_reach_the_whole() -> None:
    assert sizes_of([3, 2, 5], 9) == [3, 0, 6]
    assert sizes_of([3, 20], 9) == [3, 6]
    assert sizes_of([], 9) == []
    assert Plain(b"").encode_sized("ééé é") == ([1, 2, 3], [3, 3, 3])


class Plain(Tokenizer):
    def __init__(self, model: bytes):
        self.model = model

    def encode(self, text: str) -> list[int]:
        del text
        return [1, 2, 3]
