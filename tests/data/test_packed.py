"""Several texts to a row: every text once, whole and in order, by the rule of first fit, and what is told of each."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmjax.data.chains import Chains
from mmjax.data.packed import Packed, packed_rows
from mmjax.data.sources.folder import FolderRecords, Source
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.conversation import TokenizeConversation
from mmjax.data.transforms.packed_row import ReadPacked
from mmjax.data.transforms.prefixed import TokenizePrefixed
from mmjax.data.transforms.text import Lowercase, Tokenize
from mmjax.errors import UserError

WORDS = ["a", "red", "cat", "on", "the", "mat", "is", "it"]


class Lines(Source):
    def __init__(self, texts: list[Any]):
        self.texts = texts

    def open(self, split: str, data_dir: str | None = None) -> FolderRecords:
        del split, data_dir
        return FolderRecords({"id": [str(i) for i in range(len(self.texts))], "text": self.texts})


@pytest.fixture(scope="module")
def tokenizer() -> PieceTokenizer:
    return PieceTokenizer(SentencePiece(60).train([" ".join(WORDS)] * 3))


def drawn(count: int) -> list[str]:
    random = np.random.default_rng(count)
    return [" ".join(random.choice(WORDS, int(random.integers(1, 12)))) for _ in range(count)]


@pytest.mark.parametrize("window", [1, 2, 5, 1000])
def test_first_fit_within_a_window(window: int) -> None:
    """Against the rule written out over all rows, of which the last `window` that have begun without being full or
    closed are open.
    """
    random, length = np.random.default_rng(window), 20
    texts = [(name, int(random.integers(1, length + 1))) for name in range(300)]
    rows: list[list[int]] = []
    room: list[int] = []
    closed: set[int] = set()
    for name, count in texts:
        fit = [row for row in range(len(rows)) if row not in closed and room[row] >= count]
        if not fit:
            rows.append([])
            room.append(length)
            fit = [len(rows) - 1]
            still = [row for row in range(len(rows)) if row not in closed and room[row] > 0]
            closed |= set(still[: max(0, len(still) - window)])
        rows[fit[0]].append(name)
        room[fit[0]] -= count
    assert packed_rows(texts, length, window) == [tuple(row) for row in rows]
    assert sorted(name for row in rows for name in row) == list(range(300))
    sizes = dict(texts)
    assert all(sum(sizes[name] for name in row) <= length for row in rows)


@pytest.mark.parametrize(("count", "window"), [(1, 4), (40, 1), (40, 8)])
def test_every_text_is_in_one_row_whole_and_in_order(tokenizer: PieceTokenizer, count: int, window: int) -> None:
    texts, length = drawn(count), 60
    cut = Tokenize(tokenizer, length, bos=True)
    records = Packed(Lines(texts), (Lowercase(), cut), length, window).open("train")
    chain, found, tokens = ReadPacked(tokenizer, length), [], 0
    for number in range(len(records)):
        (ids, mask), labels = chain(records[number]["text"], None)
        segments, positions, loss = (labels[name] for name in ("segments", "positions", "loss"))
        assert (segments >= 0).tolist() == mask.tolist()
        for segment in range(segments.max() + 1):
            place = np.flatnonzero(segments == segment)
            assert (np.diff(place) == 1).all()
            assert positions[place].tolist() == list(range(len(place)))
            assert loss[place].tolist() == [False, *[True] * (len(place) - 1)]
            row = ids[place].tolist()
            assert (row[0], row[-1]) == (tokenizer.bos, tokenizer.eos)
            found.append(tokenizer.decode(row))
        assert not loss[~mask].any()
        assert not positions[~mask].any()
        tokens += int(mask.sum())
    assert sorted(found) == sorted(texts)
    assert tokens == sum(len(tokenizer.encode(text)) + 2 for text in texts)
    if window == 1:
        assert found == texts
    if count > 1:
        assert len(records) < count / 1.5


def test_what_a_conversation_predicts_is_kept(tokenizer: PieceTokenizer) -> None:
    chats = [[{"role": "user", "content": "is it"}, {"role": "assistant", "content": words}] for words in drawn(6)]
    cut = TokenizeConversation(tokenizer, 40)
    records = Packed(Lines(chats), (cut,), 40).open("train")
    answers = []
    for number in range(len(records)):
        (ids, _), labels = ReadPacked(tokenizer, 40)(records[number]["text"], None)
        for segment in range(labels["segments"].max() + 1):
            answers.append(tokenizer.decode(ids[(labels["segments"] == segment) & labels["loss"]].tolist()))
    assert sorted(answers) == sorted(chat[1]["content"] for chat in chats)


def test_bad_texts_are_left_out_and_counted(tokenizer: PieceTokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        records = Packed(Lines(["a", None, "", "cat"]), (Tokenize(tokenizer, 9),), 9).open("train")
    assert "2 of 4 texts are missing or bad" in caplog.text
    assert len(records[0]["text"].texts) == 2
    shorter = Packed(Lines(["a", None, "", "cat"]), (Tokenize(tokenizer, 5),), 5).open("train")
    assert (len(records), len(shorter)) == (1, 2)
    assert records.fingerprint() != shorter.fingerprint()


def test_chains_and_strings_by_hand(tokenizer: PieceTokenizer) -> None:
    chains = Chains({"text": (ReadPacked(tokenizer, 9),)})
    batch = chains.encode(text=["a", "a red"])
    assert batch["text_segments"].max() == 0
    assert batch["text_loss"].sum(1).tolist() == (batch["text_mask"].sum(1) - 1).tolist()


def test_what_can_not_be_packed_is_refused(tokenizer: PieceTokenizer, tmp_path: Path) -> None:
    cut = Tokenize(tokenizer, 9)
    given: list[tuple[Packed, str]] = [
        (Packed(Lines(["a"]), (cut,), 0), r"Packed\(length=0"),
        (Packed(Lines(["a"]), (cut,), 9, 0), "window=0"),
        (Packed(Lines(["a"]), (), 9), "ends in no Tokenize"),
        (Packed(Lines(["a"]), (Lowercase(),), 9), "ends in no Tokenize"),
        (Packed(Lines(["a"]), (Tokenize(SentencePiece(40), 9),), 9), "train it first"),
        (Packed(Lines(["a red cat on"]), (cut,), 3), "the text of '0' has 9 tokens|the text of '0' has"),
        (Packed(Lines([""]), (cut,), 9), "none of the 1 texts can be used"),
        (Packed(Lines(["a"]), (cut,), 9, modality="speech"), "has no speech"),
    ]
    for source, message in given:
        with pytest.raises(UserError, match=message):
            source.open("train", str(tmp_path))
    prefixed = (TokenizePrefixed(tokenizer, 30, separator="it"),)
    records = Packed(Lines(["a red"]), prefixed, 30).open("train")
    with pytest.raises(UserError, match="gives texts with loss, prefix, and in a row of several"):
        ReadPacked(tokenizer, 30)(records[0]["text"], None)
    records = Packed(Lines(["a red"]), (cut,), 9).open("train")
    with pytest.raises(UserError, match=r"longer than ReadPacked\(length=2\)"):
        ReadPacked(tokenizer, 2)(records[0]["text"], None)
