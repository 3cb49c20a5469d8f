import numpy as np
import pytest

from mmjax.data.captions import Lowercase, PickCaption, RandomTokenize, Tokenize
from mmjax.data.tokenizers import BOS, EOS, PAD, PieceTokenizer, SentencePiece
from mmjax.data.transforms import BadExample
from tests.data.conftest import kind_of


def test_pick_caption_takes_strings_lists_and_languages():
    assert PickCaption()("a cat", None) == "a cat"
    assert PickCaption()(["", "a cat", "a pet"], None) == "a cat"
    assert PickCaption()({"de": "Katze", "en": "cat"}, None) == "cat"
    assert PickCaption("fr")({"de": "Katze", "en": "cat"}, None) == "Katze"
    rng = np.random.default_rng(0)
    assert {PickCaption()({"de": "Katze", "en": "cat", "fr": " "}, rng) for _ in range(50)} == {"Katze", "cat"}
    for empty in ("", "  ", [], {"en": ""}):
        with pytest.raises(BadExample, match="empty"):
            PickCaption()(empty, None)


@pytest.mark.parametrize("value", [b"\xff\xfe", 3.0, float("nan")])
def test_what_is_no_text_is_a_bad_caption(value, tokenizer):
    for transform in (PickCaption(), Lowercase(), Tokenize(tokenizer, 4)):
        assert kind_of(transform, value) == "undecodable"
    assert kind_of(Tokenize(tokenizer, 4), "half a pair: \ud800") == "undecodable"


def test_lowercase_also_joins_white_space():
    assert Lowercase()("  A\tBIG \n Cat ", None) == "a big cat"


@pytest.fixture(scope="module")
def tokenizer() -> PieceTokenizer:
    words = [f"{a} {b}" for a in ("red", "green", "blue") for b in ("cat", "dog", "house")]
    return PieceTokenizer(SentencePiece(vocab_size=100, model_type="word").train(words))


def test_tokenize_pads_and_a_long_caption_keeps_its_end(tokenizer):
    red, cat = tokenizer.encode("red cat")
    ids, mask = Tokenize(tokenizer, 6, bos=True)("red cat", None)
    assert ids.tolist() == [BOS, red, cat, EOS, PAD, PAD]
    assert mask.tolist() == [True] * 4 + [False] * 2
    ids, mask = Tokenize(tokenizer, 4)("red cat red cat red", None)
    assert ids.tolist() == [red, cat, red, EOS]
    assert mask.all()
    assert ids.dtype == np.int32
    with pytest.raises(BadExample, match="empty"):
        Tokenize(tokenizer, 4)("  ", None)
    with pytest.raises(TypeError, match="no model yet"):
        Tokenize(SentencePiece(), 4)("red", None)


def test_random_tokenize_cuts_a_caption_in_many_ways_and_in_evaluation_in_the_likeliest(tokenizer):
    with pytest.raises(ValueError, match="model_type='unigram'"):
        RandomTokenize(tokenizer, 12)("green fox", np.random.default_rng(0))
    tokenizer = PieceTokenizer(SentencePiece(30).train(["green fox", "green ox", "red fox", "grey greed", "reed box"]))
    sampled, plain = RandomTokenize(tokenizer, 12, best=4), Tokenize(tokenizer, 12)
    assert sampled.random
    seen = set()
    for seed in range(40):
        ids, mask = sampled("green fox", np.random.default_rng(seed))
        assert tokenizer.decode(ids[mask]) == "green fox"
        seen.add(tuple(ids.tolist()))
        assert np.array_equal(ids, sampled("green fox", np.random.default_rng(seed)).values)
    assert 2 <= len(seen) <= 4
    assert np.array_equal(sampled("green fox", None).values, plain("green fox", None).values)
