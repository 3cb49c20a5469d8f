"""Scores of entities against spans that are read off by hand."""

import sys

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.metrics.entities import entity_scores, scored_tags


def spans(texts, strict):
    """(text, type, first, last) of the entities, by going through the words."""
    found = set()
    for place, tags in enumerate(texts):
        start = None
        for i, tag in enumerate([*tags, "O"]):
            follows = tag.startswith("I-") and start is not None and tags[start][2:] == tag[2:]
            if start is not None and not follows:
                found.add((place, tags[start][2:], start, i - 1))
                start = None
            if tag.startswith("B-") or (tag.startswith("I-") and not follows and not strict):
                start = i
    return found


def expected(truth, found, strict):
    mine, theirs = spans(truth, strict), spans(found, strict)
    right = len(mine & theirs)
    precision, recall = right / max(1, len(theirs)), right / max(1, len(mine))
    return {"precision": precision, "recall": recall, "f1": 2 * right / max(1, len(mine) + len(theirs))}


HAND = [  # truth, found, strict, precision, recall
    ("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", False, 1, 1),
    ("B-PER I-PER O B-LOC", "B-PER O O B-LOC", False, 1 / 2, 1 / 2),  # its end is another
    ("B-PER I-PER O B-LOC", "B-PER I-PER O B-PER", False, 1 / 2, 1 / 2),  # its type is
    ("B-PER B-PER", "B-PER I-PER", False, 0, 0),
    ("I-PER O", "B-PER O", False, 1, 1),  # an I- alone begins an entity
    ("B-PER O", "I-PER O", True, 0, 0),  # and strictly none
    ("B-PER I-LOC", "B-PER B-LOC", False, 1, 1),
    ("B-PER I-LOC", "B-PER B-LOC", True, 1 / 2, 1),
    ("O O", "B-PER O", False, 0, 0),
    ("O O", "O O", False, 0, 0),
]


@pytest.mark.parametrize(("truth", "found", "strict", "precision", "recall"), HAND)
def test_entities_by_hand(truth, found, strict, precision, recall):
    pytest.importorskip("seqeval")
    scores = entity_scores([truth.split()], [found.split()], strict)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert scores == pytest.approx({"precision": precision, "recall": recall, "f1": f1}, abs=1e-12)
    assert expected([truth.split()], [found.split()], strict) == pytest.approx(scores, abs=1e-12)  # the oracle too


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_entities_equal_the_spans_that_are_read_word_by_word(seed, strict):
    pytest.importorskip("seqeval")
    rng = np.random.default_rng(seed)
    names, chances = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], [0.4, 0.15, 0.15, 0.15, 0.15]
    truth = [rng.choice(names, int(rng.integers(1, 9)), p=chances).tolist() for _ in range(12)]
    found = [[tag if rng.random() < 0.6 else str(rng.choice(names)) for tag in tags] for tags in truth]
    scores = entity_scores(truth, found, strict)
    assert scores == pytest.approx(expected(truth, found, strict), abs=1e-12)
    assert 0 < scores["f1"] < 1


def test_an_entity_ends_with_its_text():
    pytest.importorskip("seqeval")
    assert entity_scores([["B-PER"], ["I-PER"]], [["B-PER"], ["O"]])["recall"] == 0.5


def test_tags_that_are_not_scored_are_left_out():
    truth = np.array([[-1, 1, -1, 2, 0, -1], [-1, -1, -1, -1, -1, -1]])
    found = np.array([[4, 1, 3, 0, 0, 4], [1, 1, 1, 1, 1, 1]])
    classes = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    assert scored_tags(truth, found, classes) == ([["B-PER", "I-PER", "O"], []], [["B-PER", "O", "O"], []])


def test_what_does_not_fit_is_named(monkeypatch):
    with pytest.raises(UserError, match="there are 2 texts, and 1 were found"):
        entity_scores([["O"], ["O"]], [["O"]])
    with pytest.raises(UserError, match="text 1 has 2 tags, and 1 were found"):
        entity_scores([["O"], ["O", "O"]], [["O"], ["O"]])
    assert entity_scores([[], []], [[], []]) == {"precision": 0, "recall": 0, "f1": 0}
    monkeypatch.setitem(sys.modules, "seqeval", None)
    monkeypatch.setitem(sys.modules, "seqeval.metrics", None)
    with pytest.raises(UserError, match=r'pip install "mmjax\[eval\]"'):
        entity_scores([["O"]], [["O"]])
