"""Ranks of options and NDCG against orders that are sorted one question at a time."""

import itertools
import math

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.ranked_options import mean_by_turn, option_ndcg, option_ranks, rank_scores


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_the_worst_of_all_orders(seed):
    """Of every order that the scores allow the one that is worst for the model."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (30, 5)).astype(float)
    right = rng.integers(0, 5, 30)
    found = option_ranks(scores, right)
    for row in range(30):
        orders = [order for order in itertools.permutations(range(5)) if (np.diff(scores[row][list(order)]) <= 0).all()]
        assert found[row] == max(order.index(right[row]) + 1 for order in orders)


def test_scores_that_are_all_alike_or_nan_come_last():
    assert option_ranks(np.zeros((1, 100)), np.array([7])).tolist() == [100]
    assert option_ranks(np.array([[np.nan, 0, 1]]), np.array([0])).tolist() == [3]
    assert option_ranks(np.array([[2, np.nan, 1]]), np.array([0])).tolist() == [2]


def test_options_that_are_not_there_rank_nowhere():
    scores, there = np.array([[1.0, 5.0, 2.0], [1.0, 5.0, 2.0]]), np.array([[True, False, True], [True, True, True]])
    assert option_ranks(scores, np.array([0, 0]), there).tolist() == [2, 3]
    for right in (1, 3, -1):
        with pytest.raises(UserError, match=f"of question 0 is {right}"):
            option_ranks(scores, np.array([right, 0]), there)


def test_scores_of_ranks_by_hand():
    expected = {"R@1": 0.25, "R@5": 0.5, "R@10": 0.75, "mrr": (1 + 1 / 5 + 1 / 10 + 1 / 100) / 4, "mean_rank": 29}
    assert rank_scores(np.array([1, 5, 10, 100])) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(UserError, match="no ranks"):
        rank_scores(np.zeros(0, int))


def slow(order, relevance):
    """The definition, of an order: options of relevance among the first k."""
    k = sum(value > 0 for value in relevance)
    ideal = sorted(relevance, reverse=True)
    gain = sum(relevance[option] / math.log2(place + 1) for place, option in enumerate(order[:k], start=1))
    return gain / sum(value / math.log2(place + 1) for place, value in enumerate(ideal[:k], start=1))


@pytest.mark.parametrize("seed", range(5))
def test_ndcg_is_the_worst_of_all_orders(seed):
    rng = np.random.default_rng(seed)
    scores, relevance = rng.integers(0, 3, (30, 5)).astype(float), rng.choice([0, 0, 0.2, 0.5, 1], (30, 5))
    relevance[:, 2] = 0.4
    found = option_ndcg(scores, relevance)
    for row in range(30):
        orders = [order for order in itertools.permutations(range(5)) if (np.diff(scores[row][list(order)]) <= 0).all()]
        assert found[row] == pytest.approx(min(slow(order, relevance[row]) for order in orders), abs=1e-12)
    assert len(set(found.round(6).tolist())) > 5


def test_ndcg_by_hand():
    relevance = np.array([[1, 0.5, 0, 0]])
    assert option_ndcg(np.array([[4.0, 3, 2, 1]]), relevance).tolist() == [1]
    assert option_ndcg(np.array([[1.0, 2, 3, 4]]), relevance).tolist() == [0]  # the first two of the order count
    linear = (0.5 + 1 / math.log2(3)) / (1 + 0.5 / math.log2(3))
    assert option_ndcg(np.array([[3.0, 4, 2, 1]]), relevance).tolist() == pytest.approx([linear])
    assert option_ndcg(np.array([[np.nan, 3, np.nan, 1]]), relevance)[0] == pytest.approx(
        0.5 / math.log2(3) / (1 + 0.5 / math.log2(3))
    )


@pytest.mark.parametrize("relevance", [[0, 0], [1, -0.5], [1, np.nan]])
def test_relevances_that_have_no_order(relevance):
    with pytest.raises(UserError, match="question 1 has the relevances"):
        option_ndcg(np.zeros((2, 2)), np.array([[1, 0], relevance]))


def test_means_by_turn():
    assert mean_by_turn(np.array([1.0, 0, 1, 1]), [3, 1, 1, 3]) == {1: 0.5, 3: 1}
    assert mean_by_turn(np.zeros(0), []) == {}
