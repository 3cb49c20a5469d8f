"""Answers in texts: the pieces that they are, with several tokenizers, and what is lacking, cut off and bad."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.pipeline import Mixture, batches, prepare
from mmjax.data.sources.folder import Folder
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.tokenizers.subwords import Subwords
from mmjax.data.transforms.answers import AnsweredText, AnswerInText, TokenizeAnswer
from mmjax.data.transforms.text import Lowercase
from mmjax.errors import UserError
from tests.data.vocabularies import write_bert

WORDS = ["a", "photo", "of", "the", "cat", "snake", "wide", "hello", "red", "disc"]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("bert")
    spec = SentencePiece(60)
    return {
        "trained": PieceTokenizer(spec.train([" ".join(WORDS)] * 3)),
        "bert": Subwords(50_000, str(write_bert(folder))).load(None, folder),
    }


@pytest.mark.parametrize("name", ["trained", "bert"])
def test_the_span_is_the_pieces_of_the_answer(tokenizers: dict[str, Tokenizer], name: str) -> None:
    """Against pieces counted by growing the text word by word."""
    tokenizer, random = tokenizers[name], np.random.default_rng(0)
    tokenize = TokenizeAnswer(tokenizer, 90)
    for _ in range(20):
        words = random.choice(WORDS, int(random.integers(2, 9))).tolist()
        first = int(random.integers(len(words)))
        last = int(random.integers(first, len(words)))
        begin = len(" ".join(words[:first])) + (first > 0)
        answer = " ".join(words[first : last + 1])
        (ids, mask), labels = tokenize(AnsweredText("a photo", " ".join(words), answer, begin), None)
        count = [len(tokenizer.encode(" ".join(words[:n]))) if n else 0 for n in (first, last + 1, len(words))]
        question = tokenizer.encode("a photo")
        text = 2 + len(question)
        assert labels["span"].tolist() == [text + count[0], text + count[1] - 1]
        row = [tokenizer.bos, *question, tokenizer.eos, *tokenizer.encode(" ".join(words)), tokenizer.eos]
        assert ids[mask].tolist() == row
        assert labels["types"].tolist() == [0] * text + [1] * (count[2] + 1) + [0] * (90 - len(row))


@pytest.fixture
def tokenize(tokenizers: dict[str, Tokenizer]) -> TokenizeAnswer:
    return TokenizeAnswer(tokenizers["bert"], 16)


def span(tokenize: TokenizeAnswer, *given: Any) -> list[int]:
    return tokenize(AnsweredText(*given), None).labels["span"].tolist()


def test_no_answer_is_cls_and_one_that_is_cut_off_is_unknown(tokenize: TokenizeAnswer) -> None:
    long = "a red disc " * 20 + "the cat"
    assert span(tokenize, "the cat", "a red disc", None) == [0, 0]
    assert span(tokenize, "the cat", long, "the cat", len(long) - 7) == [-1, -1]
    assert span(tokenize, "the cat", long, "a", 0)[0] > 0
    assert tokenize("a red disc", None).labels["span"].tolist() == [-1, -1]
    (ids, mask), _ = tokenize(AnsweredText(long, long, None), None)
    assert mask.all()
    assert (ids == ids[-1]).sum() == 2  # both separators are there, whatever is cut


@pytest.mark.parametrize(
    ("answer", "start", "message"),
    [("cat", 0, "'cat' isn't at 0 in its text"), ("disc", -1, "isn't at -1"), ("hot", 12, "shares a piece")],
)
def test_an_answer_that_is_not_there_is_bad(tokenize: TokenizeAnswer, answer: str, start: int, message: str) -> None:
    with pytest.raises(BadExample, match=message):
        span(tokenize, "the cat", "a red disc photo", answer, start)


def test_columns_become_the_text() -> None:
    make = AnswerInText(context="context", start="place")
    record = {"question": "q", "context": "the text", "answer": "text", "place": 4, "id": "1"}
    found = make(record, None)["text"]
    assert (found.question, found.context, found.answer, found.start) == ("q", "the text", "text", 4)
    for lacking in ({"answer": None}, {"answer": ""}, {"place": None}):
        assert make({**record, **lacking}, None)["text"].answer is None
    assert "text" not in make({**record, "context": None}, None)
    assert make({**record, "place": "4"}, None)["text"].start == 4
    with pytest.raises(BadExample, match="the answer's place is 'x', and no number"):
        make({**record, "place": "x"}, None)
    with pytest.raises(BadExample, match="the question or its text is no text: 3"):
        make({**record, "question": 3}, None)
    assert make.columns(("question", "context", "id")) == ("question", "context", "id", "text")
    with pytest.raises(UserError, match="before TokenizeAnswer would move the answer"):
        found.mapped(Lowercase())


def test_rows_too_short_or_without_their_ends_are_refused(tokenizers: dict[str, Tokenizer]) -> None:
    given: Any = ({"length": 4}, {"length": 9, "bos": False}, {"length": 9, "eos": False})
    for fields in given:
        with pytest.raises(UserError, match="a row is"):
            TokenizeAnswer(tokenizers["bert"], **fields)
    spec = TokenizeAnswer(tokenizers["bert"], 9).spec(None)
    assert spec.labels == (("span", (2,), "int32"), ("types", (9,), "int8"))


def test_batches_hold_the_places_of_their_answers(tmp_path: Path) -> None:
    rows = [("where", "a red disc", "red", 2), ("what", "the cat", "", ""), ("who", "hello snake", "cat", 0)]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "text", "answer", "start", "split"])
        writer.writerows([(*row, split) for split in ("train", "test") for row in rows])
    chain = (TokenizeAnswer(SentencePiece(40), 24),)
    mixture = Mixture(
        {"own": 1.0}, {"text": chain}, {"own": Folder(str(tmp_path / "t.csv"))}, record_transforms=(AnswerInText(),)
    )
    made = prepare(mixture, data_dir=str(tmp_path))
    stream = batches(made, batch_size=3, seed=2)
    batch = next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert (batch["text_span"].shape, batch["text_span"].dtype) == ((3, 2), np.int32)
    found = []
    for ids, valid, (first, last) in zip(batch["text"], batch["text_valid"], batch["text_span"], strict=True):
        found.append(made.chains.tokenizers["text"].decode(ids[first : last + 1].tolist()).strip() if valid else None)
    assert sorted(found, key=str) == ["", None, "red"]
