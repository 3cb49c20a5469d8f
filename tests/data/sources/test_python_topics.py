"""Python's reference texts: whole, apart, and cut at lines."""

from itertools import pairwise

import pytest

from mmjax.data.sources.python_topics import SPLITS, PythonTopics, apart, passages
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.errors import UserError

topics = pytest.importorskip("pydoc_data.topics").topics


def records(characters=None):
    opened = {split: PythonTopics(characters).open(split) for split in SPLITS}
    return {split: [rows[i] for i in range(len(rows))] for split, rows in opened.items()}


def test_every_paragraph_is_in_one_split():
    """Python's own topics repeat each other: "attribute-access" is a part of "specialnames"."""
    whole = {" ".join(part.split()) for text in topics.values() for part in text.split("\n\n")} - {""}
    found = [
        {" ".join(part.split()) for row in rows for part in row["text"].split("\n\n")} - {""}
        for rows in records().values()
    ]
    assert set().union(*found) == whole
    assert sum(map(len, found)) == len(whole)


def test_most_of_it_trains():
    sizes = {split: sum(len(row["text"]) for row in rows) for split, rows in records().items()}
    assert sizes["train"] > 0.6 * sum(sizes.values())
    assert min(sizes.values()) > 5_000
    assert {row["topic"] for rows in records().values() for row in rows} == set(apart(topics))


def test_passages_are_the_text_in_pieces():
    whole, cut = records()["test"], records(500)["test"]
    for row in whole:
        pieces = [piece for piece in cut if piece["topic"] == row["topic"]]
        assert "".join(piece["text"] for piece in pieces) == row["text"]
        assert [piece["id"] for piece in pieces] == [f"{row['topic']}#{i}" for i in range(len(pieces))]
        assert all(len(piece["text"]) <= 500 for piece in pieces)
        both = [a["text"] + b["text"].splitlines(keepends=True)[0] for a, b in pairwise(pieces)]
        assert all(len(text) > 500 for text in both)  # no further line fits
    assert len(cut) > 2 * len(whole)


def test_a_longer_line_stands_alone():
    assert list(passages("ab\n" + "c" * 9 + "\nd\n", 4)) == ["ab\n", "c" * 9 + "\n", "d\n"]
    assert list(passages("\n \n", 4)) == []


def test_paragraphs_of_an_earlier_topic_are_left_out():
    texts = {"b": "one\n\n two \n\nthree\n", "a": "two\n\nfour\n", "c": "two\n"}
    assert apart(texts) == {"a": "two\n\nfour\n\n", "b": "one\n\nthree\n\n"}


def test_wrong_fields_are_named():
    with pytest.raises(UserError, match=r"PythonTopics\(characters=0\)"):
        PythonTopics(0).open("train")
    with pytest.raises(SplitNotFoundError, match=r"has no split 'all', it has train, validation, test"):
        PythonTopics().open("all")
