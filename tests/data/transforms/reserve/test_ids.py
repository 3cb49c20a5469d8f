"""The ids of pieces beside those of special tokens."""

import pickle

import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.reserve import ids as module
from mmjax.data.transforms.reserve.ids import ReserveIds, WordPieces
from mmjax.errors import UserError
from tests.data.transforms.reserve.windows import Numerals


def test_pieces_are_raised_above_the_special_ids():
    assert ReserveIds().pieces(Numerals(), "0.5 7") == [10, 15, 17]
    assert ReserveIds(shift=100).pieces(Numerals(), "0") == [100]
    with pytest.raises(UserError, match=r"has the id 6.*raise shift to 7 or more"):
        ReserveIds(shift=1).pieces(Numerals(), "9.5")
    assert ReserveIds(shift=1).pieces(Numerals(), "9") == [10]  # no special token's


def test_special_ids_are_different():
    for fields in ({"mask": 0}, {"pad": -1}, {"shift": -1}):
        with pytest.raises(UserError, match="different numbers"):
            ReserveIds(**fields)


def test_a_word_has_the_pieces_that_it_has_within_a_text():
    words = ["red", "square", "red", "dog"]
    tokenizer = PieceTokenizer(SentencePiece(40).train([" ".join(words)] * 5))
    known = WordPieces(ReserveIds(), tokenizer)
    found = [id - 10 for word in words for id in known[word]]
    assert found == tokenizer.encode(" ".join(words))
    assert known[""] == ()


def test_words_are_remembered_up_to_a_number(monkeypatch):
    monkeypatch.setattr(module, "WORDS", 2)
    asked = []

    class Counted(Numerals):
        def encode(self, text):
            asked.append(text.strip())
            return super().encode(text)

    known = WordPieces(ReserveIds(), Counted())
    assert [known[word] for word in ("1", "2", "1")] == [(11,), (12,), (11,)]
    assert asked == ["1", "2"]
    assert (known["3"], len(known), known["1"]) == ((13,), 1, (11,))
    copied = pickle.loads(pickle.dumps(WordPieces(ReserveIds(shift=20), Numerals())))
    assert (len(copied), copied["1"]) == (0, (21,))


def test_what_is_no_text_is_bad():
    tokenizer = PieceTokenizer(SentencePiece(10).train(["abc"] * 3))
    with pytest.raises(BadExample, match="no text"):
        ReserveIds().pieces(tokenizer, "\ud800")
