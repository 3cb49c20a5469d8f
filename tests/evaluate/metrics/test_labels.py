"""What classifiers share, against definitions written as loops."""

import math

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.metrics.labels import (
    average_precision,
    found_metrics,
    labelled,
    mean_average_precision,
    over_folds,
    places,
    values_of,
)


def precision_by_hand(scores, right) -> float:
    """The list is gone through from the best score on; of equal scores the wrong ones come first."""
    keyed = []
    for score, is_right in zip(scores, right, strict=True):
        if math.isnan(score):
            score = -math.inf if is_right else math.inf
        keyed.append((-float(score), bool(is_right)))
    hits, shares = 0, []
    for place, (_, is_right) in enumerate(sorted(keyed), start=1):
        if is_right:
            hits += 1
            shares.append(hits / place)
    return sum(shares) / len(shares)


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_equals_going_through_the_list(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, 60) / 8  # many ties
    scores[rng.choice(60, 5, replace=False)] = np.nan
    right = rng.random(60) < 0.3
    assert average_precision(scores, right) == pytest.approx(precision_by_hand(scores, right), abs=1e-12)


def test_mean_average_precision_leaves_out_classes_without_examples():
    rng = np.random.default_rng(0)
    scores, right = rng.random((30, 4)), rng.random((30, 4)) < 0.4
    right[:, 2] = False
    by_hand = np.mean([precision_by_hand(scores[:, i], right[:, i]) for i in (0, 1, 3)])
    assert mean_average_precision(scores, right) == pytest.approx(by_hand, abs=1e-12)
    assert mean_average_precision(scores, np.zeros_like(right)) is None
    constant = mean_average_precision(np.ones((30, 1)), right[:, :1])
    assert constant is not None
    assert constant < right[:, 0].mean()  # a model that says nothing isn't rewarded


def test_ties_and_nan_put_the_right_class_last():
    scores = np.array([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [np.nan, 1.0, 0.0], [1.0, np.nan, 0.0], [-np.inf, 0.0, 1.0]])
    assert places(scores, np.zeros(5, int)).tolist() == [2, 1, 3, 2, 3]


def test_the_mean_over_classes_is_not_the_mean_over_examples():
    found = found_metrics(np.array([1, 1, 1, 7]), np.array([0, 0, 0, 1]), "x")
    assert found == {"x/top1": 0.75, "x/top5": 0.75, "x/recall": 0.5}


def test_labels_by_name_by_number_and_in_lists():
    assert labelled(["b", None, "a", "z"], ("a", "b")).number.tolist() == [1, -1, 0, -1]
    assert labelled([1, 0, -1, "1", None], ("a", "b"), ordered=True).number.tolist() == [1, 0, -1, 1, -1]
    with pytest.raises(UserError, match="labels 2, 7: the 2 classes that are named have the numbers 0 to 1"):
        labelled([1, 7, "2"], ("a", "b"), ordered=True)
    assert labelled([1, 5], (5, 1)).number.tolist() == [1, 0]  # the numbers themselves are the classes
    assert labelled(["x", "x"], ("x", "x")).number.tolist() == [0, 0]
    lists = labelled([["b", "a"], [], None, ["z"]], ("a", "b"))
    assert lists.several is not None
    assert lists.several.tolist() == [[True, True], [False, False], [False, False], [False, False]]
    assert lists.known.tolist() == [True, True, False, True]
    assert values_of([["b", ""], None, "a", 3, "", " ", math.nan]) == (3, "a", "b")


def test_folds_learn_from_all_others_and_are_averaged():
    split = Embedded({"image": np.arange(6.0)[:, None]}, {"image": np.ones(6, bool)}, {"fold": [1, 1, 2, 2, 3, None]})
    seen = []

    def judge(fit, test, rows):
        seen.append((fit.embeddings["image"][:, 0].tolist(), test.embeddings["image"][:, 0].tolist()))
        assert rows.tolist() == seen[-1][1]
        return {"x/top1": float(len(test))}

    found = over_folds(split, "fold", "Probe", judge)
    assert seen == [([2, 3, 4], [0, 1]), ([0, 1, 4], [2, 3]), ([0, 1, 2, 3], [4])]
    assert found == {"x/top1": 5 / 3, "x/top1/fold=1": 2, "x/top1/fold=2": 2, "x/top1/fold=3": 1}
    with pytest.raises(UserError, match="needs two folds at least"):
        over_folds(Embedded({}, {}, {"fold": [1, 1]}), "fold", "Probe", judge)
