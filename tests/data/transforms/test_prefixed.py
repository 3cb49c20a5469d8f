"""Prompted texts: PaliGemma's sequence, whose separator is cut alone, and what is predicted of it."""

from typing import Any

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.prefixed import PrefixedText, PrefixText, TokenizePrefixed
from mmjax.data.transforms.text import Lowercase
from mmjax.data.transforms.values import Cut
from mmjax.errors import UserError
from tests.data.vocabularies import llama_model


@pytest.fixture(scope="module")
def llama() -> PieceTokenizer:
    return PieceTokenizer(llama_model(["caption en", "answer en what is it", "a red cat on the mat"] * 3))


def test_the_sequence_is_paligemmas(llama: PieceTokenizer) -> None:
    """Against the four parts cut by hand, and the rule that tells what sees what: in big_vision's `mask_ar` the suffix
    alone is 1, so the tokens before it are one block.
    """
    random = np.random.default_rng(0)
    words = ["a", "red", "cat", "on", "the", "mat", "what", "is", "it", "en"]
    for _ in range(30):
        prefix, suffix = (" ".join(random.choice(words, int(random.integers(1, 6)))) for _ in range(2))
        (ids, mask), labels = TokenizePrefixed(llama, 64, pad=0)(PrefixedText(prefix, suffix), None)
        parts = [[1], llama.encode(prefix), [llama.id_of("<0x0A>")], llama.encode(suffix), [2]]
        assert ids[mask].tolist() == [id for part in parts for id in part]
        sizes = [len(part) for part in parts]
        mask_ar = [0] * sum(sizes[:3]) + [1] * (64 - sum(sizes[:3]))
        assert int(labels["prefix"]) == mask_ar.index(1)
        loss = [0] * sum(sizes[:3]) + [1] * sum(sizes[3:]) + [0] * (64 - sum(sizes))
        assert labels["loss"].tolist() == [bool(one) for one in loss]
        assert llama.decode(ids[labels["loss"]].tolist()) == suffix


def test_what_is_too_long_loses_its_end_and_the_end_token(llama: PieceTokenizer) -> None:
    value = PrefixedText("caption en", "a red cat on the mat")
    whole, _ = TokenizePrefixed(llama, 64, pad=0)(value, None)
    needed = int(whole.mask.sum())  # type: ignore[union-attr]
    short, labels = TokenizePrefixed(llama, needed - 2, pad=0)(value, None)
    assert isinstance(short, Cut)
    assert short.whole == needed
    assert short.values.tolist() == whole.values[: needed - 2].tolist()  # type: ignore[union-attr]
    assert labels["loss"].sum() == needed - 2 - labels["prefix"]
    begin = int(labels["prefix"])
    assert TokenizePrefixed(llama, begin + 1, pad=0)(value, None).labels["loss"].sum() == 1
    with pytest.raises(BadExample, match=f"the prefix has {begin} tokens, and a row of {begin} has no room"):
        TokenizePrefixed(llama, begin, pad=0)(value, None)


def test_a_string_is_a_suffix_in_training_and_a_prefix_by_hand(llama: PieceTokenizer) -> None:
    chain = TokenizePrefixed(llama, 64, pad=0, prefix="caption en")
    (ids, _), labels = chain("a red cat", None)
    assert ids.tolist() == chain(PrefixedText("caption en", "a red cat"), None).value.values.tolist()  # type: ignore
    begin = int(labels["prefix"])
    for given in ("", "caption en"):
        (prompt, mask), by_hand = chain.by_hand(True)(given, None)
        assert prompt[mask].tolist() == ids[:begin].tolist()
        assert not by_hand["loss"].any()
    (other, mask), _ = chain.by_hand(True)("what is it", None)
    assert other[mask].tolist() != ids[:begin].tolist()
    for empty in ("", None, PrefixedText("a", " ")):
        with pytest.raises(BadExample, match="no text behind the prefix"):
            chain(empty, None)


def test_separators(llama: PieceTokenizer) -> None:
    trained = PieceTokenizer(SentencePiece(40).train(["a red cat: it is"]))
    with pytest.raises(UserError, match=r"separator='\\n'\): the tokenizer has no piece for it"):
        TokenizePrefixed(trained, 20)
    (ids, _), labels = TokenizePrefixed(trained, 20, separator=":")(PrefixedText("a", "cat"), None)
    assert trained.piece(int(ids[labels["prefix"] - 1])) in (":", "▁:")
    (ids, mask), _ = TokenizePrefixed(llama, 20, separator="", pad=0)(PrefixedText("a", "cat"), None)
    assert ids[mask].tolist() == [1, *llama.encode("a"), *llama.encode("cat"), 2]


def test_a_separator_never_joins_the_prefix() -> None:
    own = PieceTokenizer(llama_model(["cats on the mats", "cat mat on the"] * 4))
    assert own.id_of("▁cats") in own.encode("cats")
    (ids, mask), labels = TokenizePrefixed(own, 20, separator="s", pad=0)(PrefixedText("cat", "on"), None)
    assert ids[mask].tolist() == [1, *own.encode("cat"), own.id_of("s"), *own.encode("on"), 2]
    assert int(labels["prefix"]) == len(own.encode("cat")) + 2


def test_columns_become_prefix_and_suffix() -> None:
    make = PrefixText("answer en {question}", suffix="answers")
    record: dict[str, Any] = {"id": "1", "question": "where? {answers}", "answers": ["here", "there"]}
    found = make(record, None)["text"]
    assert (found.prefix, found.suffix) == ("answer en where? {answers}", "here")  # what a column holds is no template
    drawn = {make(record, np.random.default_rng(seed))["text"].suffix for seed in range(9)}
    assert drawn == {"here", "there"}
    for lacking in ("question", "answers"):
        assert "text" not in make({**record, lacking: None}, None)
    with pytest.raises(BadExample, match="the column question is no text but 3"):
        make({**record, "question": 3}, None)
    assert make.columns(("id", "question", "answers")) == ("id", "question", "answers", "text")
    assert make.columns(("id", "answers")) == ("id", "answers")
    cleaned = PrefixedText("A", "B").mapped(Lowercase())
    assert (cleaned.prefix, cleaned.suffix, str(cleaned)) == ("a", "b", "a\nb")
    assert PrefixText("caption en")({"text": "A cat"}, None)["text"].sentences == ["caption en", "A cat"]
    with pytest.raises(UserError, match="use TokenizePrefixed"):
        cleaned.other(np.random.default_rng(0))


def test_an_end_tokens_name_in_a_text_ends_nothing(llama: PieceTokenizer) -> None:
    (ids, mask), labels = TokenizePrefixed(llama, 64, pad=2)(PrefixedText("a", "red"), None)
    assert ids[~mask].tolist() == [2] * (64 - int(mask.sum()))
    assert labels["loss"].sum() == len(llama.encode("red")) + 1


def test_a_prefix_whose_words_see_only_those_before_them_is_told_by_the_loss_alone(llama: PieceTokenizer) -> None:
    chain = TokenizePrefixed(llama, 64, pad=0, prefix="a picture of", separator="", together=False)
    (ids, mask), labels = chain("a cat", None)
    assert list(labels) == ["loss"]
    assert [name for name, *_ in chain.spec(None).labels] == ["loss"]
    begin = [1, *llama.encode("a picture of")]
    assert ids[: len(begin)].tolist() == begin
    assert labels["loss"].tolist() == [len(begin) <= place < mask.sum() for place in range(64)]
    assert chain.prompt("") == (begin, 0, [-1] * len(begin))
