"""Diversity by hand, and against sets of n-grams."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.diversity import distinct_ngrams, diversity_scores, repetition_rates
from tests.evaluate.metrics.written.corpora import tokens


def test_by_hand():
    texts = [["a", "b", "a", "b", "a", "b"], ["a", "c"]]
    assert distinct_ngrams(texts, 1) == 3 / 8
    assert distinct_ngrams(texts, 2) == 3 / 6
    assert repetition_rates(texts, 2).tolist() == pytest.approx([3 / 5, 0])
    scores = diversity_scores([*texts, texts[1]])
    expected = {"distinct_1": 3 / 10, "distinct_2": 3 / 7, "repetition": 1 / 9, "different": 2 / 3, "length": 10 / 3}
    assert scores == pytest.approx(expected, abs=1e-12)


@given(st.lists(tokens, min_size=1, max_size=5), st.integers(1, 4))
def test_shares_equal_those_of_lists(texts, n):
    grams = [[tuple(text[i : i + n]) for i in range(len(text) - n + 1)] for text in texts]
    every = [gram for each in grams for gram in each]
    assert distinct_ngrams(texts, n) == (len(set(every)) / len(every) if every else 0)
    expected = [1 - len(set(each)) / len(each) if each else 0 for each in grams]
    np.testing.assert_allclose(repetition_rates(texts, n), expected, atol=1e-12)


def test_collapse_is_seen():
    rng = np.random.default_rng(0)
    many = [rng.integers(0, 50, 10).tolist() for _ in range(40)]
    free, same, stuck = (diversity_scores(texts) for texts in (many, many[:1] * 40, [[3] * 10] * 40))
    assert free["different"] == 1 > same["different"] == 1 / 40
    assert free["distinct_2"] > 0.8 > 0.1 > same["distinct_2"]
    assert stuck["repetition"] == pytest.approx(6 / 7)
    assert same["repetition"] == 0


def test_nothing_written():
    assert diversity_scores([[]]) == {"distinct_1": 0, "distinct_2": 0, "repetition": 0, "different": 1, "length": 0}
    with pytest.raises(UserError, match="no texts"):
        diversity_scores([])
    with pytest.raises(UserError, match="'a dog' isn't cut"):
        diversity_scores([["a"], "a dog"])
