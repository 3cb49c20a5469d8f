"""What answers at random give, beside so many random orders, and beside fractions that can be counted."""

import numpy as np
import pytest

from mmjax.evaluate.metrics import chance


def test_shares_are_those_of_random_orders():
    right, candidates = np.array([1, 1, 3, 6]), 12
    rng = np.random.default_rng(0)
    ranks = np.stack([1 + rng.random((20_000, candidates)).argsort(axis=1)[:, :r].min(axis=1) for r in right])
    for k in (1, 2, 5, 10):
        assert chance.recall(right, candidates, k) == pytest.approx(np.mean(ranks <= k), abs=0.005)
    assert chance.median_rank(right, candidates) == np.median(ranks) == 3


def test_among_as_few_candidates_as_are_looked_at_chance_is_1():
    for candidates in (3, 10):
        assert chance.recall(np.ones(4, int), candidates, 10) == 1
    assert chance.recall(np.array([11]), 12, 2) == 1  # of two, one is right whatever the order
    assert chance.recall(np.array([10]), 12, 2) == pytest.approx(1 - 2 / 12 / 11)
    assert chance.recall(np.array([12]), 12, 1) == 1


@pytest.mark.parametrize(
    ("candidates", "middle"), [(1, 1), (2, 1.5), (5, 3), (24, 12.5), (5_000, 2_500.5), (12_345, 6_173)]
)
def test_a_median_rank_at_random_is_the_middle(candidates, middle):
    assert chance.median_rank(np.ones(7, int), candidates) == middle


def test_classes():
    assert chance.of_classes(20) == {"top1": 0.05, "top5": 0.25, "recall": 0.05}
    assert chance.of_classes(3)["top5"] == 1
    assert chance.of_lists(np.array([[True, False, False], [True, True, False]])) == {"mAP": 0.75}
    assert chance.of_lists(np.zeros((2, 2), bool)) == {"mAP": 0}
