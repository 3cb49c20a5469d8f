"""Scores of random orders, against the mean over all orders."""

import itertools

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.option_chances import ndcg_chance, rank_chances
from mmjax.evaluate.metrics.written.ranked_options import option_ndcg, option_ranks, rank_scores


def test_ranks_at_random_are_the_mean_over_all_orders() -> None:
    found = rank_chances(np.array([3, 5]))
    each = []
    for count in (3, 5):
        orders = [np.array([order], float) for order in itertools.permutations(range(count))]
        ranks = np.concatenate([option_ranks(scores, np.array([0])) for scores in orders])
        each.append(rank_scores(ranks))
    for name in each[0]:
        assert found[name] == pytest.approx((each[0][name] + each[1][name]) / 2)
    with pytest.raises(UserError, match="no options"):
        rank_chances(np.array([3, 0]))


def test_ndcg_at_random_is_the_mean_over_all_orders() -> None:
    relevance = np.array([[0.5, 0, 1, 0.25, 0], [0, 1, 0, 0, 0]])
    means = []
    for row, count in ((0, 4), (1, 3)):
        orders = itertools.permutations(range(count))
        gains = [option_ndcg(np.array([order], float), relevance[row : row + 1, :count]) for order in orders]
        means.append(np.mean(gains))
    assert ndcg_chance(relevance, np.array([4, 3])) == pytest.approx(np.mean(means))
