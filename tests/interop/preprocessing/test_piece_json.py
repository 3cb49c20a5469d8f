"""SentencePiece models as a tokenizer.json: the same ids, whatever the text holds."""

import json

import pytest

from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.tokenizers.subwords import SubwordTokenizer
from mmjax.data.transforms.text import Canonicalize, CleanText, Lowercase
from mmjax.errors import UserError
from mmjax.interop.preprocessing.piece_json import cleaned, names_as_text, piece_json, renamed_pieces

CAPTIONS = ["man: light skin tone", "woman: dark skin tone, curly hair", "a cat", "café au lait", "flag: Åland"] * 4
TEXTS = [
    *("a Cat!", "Woman: DARK skin tone", "", "   ", "  two   blanks\tand\u00a0more ", "a_b-c (d)", "ΟΔΟΣ Σ", "½ ﬁ Ａ"),
    *("日本語 😀😀 x", "</s> a cat <pad>", "a cat</s>", "[MASK] <s><unk>", "▁a▁cat", "x" * 200),
]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def tokenizer(request) -> PieceTokenizer:
    return PieceTokenizer(SentencePiece(90, model_type=request.param).train(CAPTIONS))


@pytest.mark.parametrize("cleaning", [(), (Lowercase(),), (Lowercase(join=False),), (Canonicalize(),)], ids=str)
@pytest.mark.parametrize("swap", [False, True])
def test_the_same_ids(tokenizer, cleaning, swap):
    last = tokenizer.vocab_size - 1
    places = {2: last, last: 2} if swap else {}
    pair = (2, last) if swap else (0, 0)
    made = SubwordTokenizer(piece_json(tokenizer, cleaning, bos=True, eos=True, pad=0, swap=pair))
    assert (made.vocab_size, made.bos, made.eos, made.pad) == (last + 1, 1, places.get(2, 2), 0)
    for text in TEXTS:
        clean = text
        for transform in cleaning:
            clean = transform(clean, None)
        assert made.encode(text) == [places.get(i, i) for i in tokenizer.encode(clean)], text


def test_special_pieces_have_names_that_no_text_can_hold(tokenizer):
    model = piece_json(tokenizer, (), bos=False, eos=True, pad=2, swap=(0, 0))
    assert names_as_text(model)
    assert not names_as_text(json.dumps({"added_tokens": [{"content": "</s>"}]}).encode())
    made = SubwordTokenizer(model)
    assert (made.bos, made.eos, made.pad) == (None, 2, 2)
    assert 2 not in made.encode("</s> < / s>")
    assert made.encode(renamed_pieces("</s>")) == [
        2
    ]  # but to those who look for names, which `split_special_tokens` forbids


def test_what_has_no_words_there_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"no words for CleanText"):
        piece_json(tokenizer, (CleanText(),), bos=False, eos=True, pad=0, swap=(0, 0))
    words = PieceTokenizer(SentencePiece(20, model_type="word").train(CAPTIONS))
    with pytest.raises(UserError, match=r"of words or characters"):
        piece_json(words, (), bos=False, eos=True, pad=0, swap=(0, 0))


def test_cleaning_before_a_file_of_others():
    model = json.dumps({"normalizer": {"type": "NFC"}}).encode()
    assert cleaned(model, ()) is model
    kinds = [step["type"] for step in json.loads(cleaned(model, (Lowercase(join=False),)))["normalizer"]["normalizers"]]
    assert kinds == ["Replace", "Lowercase", "NFC"]
