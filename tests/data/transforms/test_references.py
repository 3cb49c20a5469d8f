"""All captions of an example as rows of ids, each cleaned and cut as one caption is."""

from typing import Any

import numpy as np
import pytest

from mmjax.data import KeepCaptions, Lowercase, PickCaption, SentencePiece, Tokenize, TokenizeReferences
from mmjax.data.bad_example import BadExample
from mmjax.data.chains import Chains, captions, evaluation
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.errors import UserError

CAPTIONS = ["A red cat", "two dogs", " ", "a RED cat and two dogs and a red cat"]
LENGTH, MOST = 6, 4


@pytest.fixture(scope="module")
def pieces() -> PieceTokenizer:
    return PieceTokenizer(SentencePiece(40, model_type="word").train([text.lower() for text in CAPTIONS] * 3))


def row(pieces: PieceTokenizer, value: Any, **fields: Any) -> Any:
    chain = KeepCaptions(), Lowercase(), TokenizeReferences(pieces, LENGTH, **{"most": MOST, **fields})
    return Chains({"text": chain}).row({"id": "1", "text": value}, evaluation)


def test_each_row_is_what_a_caption_alone_becomes(pieces: PieceTokenizer) -> None:
    found, alone = row(pieces, CAPTIONS), Tokenize(pieces, LENGTH, bos=True)
    each = [alone(text.lower(), None) for text in CAPTIONS if text.strip()]
    np.testing.assert_array_equal(found["text"][:3], [one.values for one in each])
    np.testing.assert_array_equal(found["text_lengths"], [*(one.mask.sum() for one in each), 0])
    assert found["text"][2, -1] == pieces.eos  # it was too long, and ends all the same
    assert (found["text"][3] == pieces.pad).all()
    assert found["text_valid"]
    np.testing.assert_array_equal(row(pieces, CAPTIONS, most=2)["text"], found["text"][:2])
    one = row(pieces, "Two dogs")
    np.testing.assert_array_equal(one["text"][0], found["text"][1])
    assert one["text_lengths"].tolist() == [4, 0, 0, 0]


@pytest.mark.parametrize("value", [None, [], ["", " "], [3]])
def test_no_captions_are_missing_or_bad(pieces: PieceTokenizer, value: Any) -> None:
    found = row(pieces, value)
    assert not found["text_valid"]
    assert not found["text"].any()
    assert bool(found["text_bad"]) == (value is not None)


def test_a_tokenizer_is_trained_on_the_same_captions_as_if_one_were_picked() -> None:
    words = SentencePiece(40)
    record = {"id": "1", "text": CAPTIONS}
    kept = captions(record, "text", (KeepCaptions(), Lowercase(), TokenizeReferences(words, LENGTH)))
    assert kept == captions(record, "text", (PickCaption(), Lowercase(), Tokenize(words, LENGTH)))
    assert len(kept) == 3


def test_captions_cleaned_to_nothing_are_left_out(pieces: PieceTokenizer) -> None:
    step = TokenizeReferences(pieces, LENGTH)
    kept = KeepCaptions()(["?", "two dogs"], None)
    cleaned = kept.mapped(_WithoutMarks())
    assert step(cleaned, None).labels["lengths"].tolist() == [4, 0, 0, 0, 0]
    with pytest.raises(BadExample, match="the captions are empty"):
        step(KeepCaptions()(["?"], None).mapped(_WithoutMarks()), None)
    with pytest.raises(UserError, match="captions belong to no document"):
        kept.other(np.random.default_rng(0))
    assert str(kept) == "?\ntwo dogs"


class _WithoutMarks(Lowercase):
    def __call__(self, value: str, rng: Any) -> str:
        return super().__call__(value, rng).replace("?", "")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eos": False}, r"TokenizeReferences\(bos=True, eos=False\).*set both to True"),
        ({"bos": False}, r"TokenizeReferences\(bos=False, eos=True\)"),
        ({"most": 0}, r"most=0\): a caption has 3 ids at least"),
        ({"length": 2}, r"length=2"),
    ],
)
def test_references_that_cannot_be_compared_with_are_told(fields: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TokenizeReferences(**{"tokenizer": SentencePiece(40), "length": LENGTH, **fields})
