"""Metrics of decisions, equal to scikit-learn's, and to loops over examples."""

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from mmjax.errors import UserError
from mmjax.evaluate.decisions import Classified
from mmjax.evaluate.metrics.decided import (
    class_recalls,
    f1_macro,
    f1_micro,
    hits_of_classes,
    hits_of_sets,
    top_k_accuracy,
)

sklearn: Any = metrics  # whose stubs know no zero_division but "warn"


def classified(truth, found, classes):
    rows = np.arange(len(truth))
    return Classified("toy", "kind", tuple(range(classes)), rows, np.array(truth, int), np.array(found, int))


@pytest.mark.parametrize("seed", range(6))
def test_one_class_an_example_as_scikit_learn_counts_it(seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(3, 9))  # of which some occur on neither side, some on one
    truth, found = rng.integers(0, classes - 1, 25), rng.integers(1, classes, 25)
    hits = hits_of_classes(classified(truth, found, classes).matrix())
    assert f1_micro(hits) == pytest.approx(sklearn.f1_score(truth, found, average="micro"), abs=1e-12)
    assert f1_micro(hits) == pytest.approx((truth == found).mean(), abs=1e-12)
    assert f1_macro(hits) == pytest.approx(sklearn.f1_score(truth, found, average="macro"), abs=1e-12)
    expected = sklearn.recall_score(truth, found, labels=range(classes), average=None, zero_division=np.nan)
    np.testing.assert_allclose(class_recalls(hits), expected, atol=1e-12)
    for i, each in enumerate(zip(*hits, strict=True)):
        pairs = list(zip(truth.tolist(), found.tolist(), strict=True))
        right = sum(a == b == i for a, b in pairs)
        assert each == (right, sum(b == i for _, b in pairs) - right, sum(a == i for a, _ in pairs) - right)


@pytest.mark.parametrize("seed", range(6))
def test_several_classes_an_example_as_scikit_learn_counts_them(seed):
    rng = np.random.default_rng(seed)
    truth, found = rng.random((20, 7)) < 0.3, rng.random((20, 7)) < 0.4
    truth[:, 0] = found[:, 0] = False  # a class that never occurs
    truth[:, 1] = False
    hits = hits_of_sets(truth, found)
    assert f1_micro(hits) == pytest.approx(sklearn.f1_score(truth, found, average="micro"), abs=1e-12)
    macro = sklearn.f1_score(truth, found, average="macro", zero_division=np.nan)
    assert f1_macro(hits) == pytest.approx(macro, abs=1e-12)
    each = sklearn.recall_score(truth, found, average=None, zero_division=np.nan)
    np.testing.assert_allclose(class_recalls(hits), each, atol=1e-12)
    assert np.isnan(class_recalls(hits)[:2]).all()


def test_f1_by_hand_and_without_anything_to_count():
    hits = hits_of_classes(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]))
    one, other = 2 * 3 / (2 * 3 + 2 + 1), 2 * 4 / (2 * 4 + 1 + 2)
    assert f1_macro(hits) == pytest.approx((one + other) / 2, abs=1e-12)
    assert f1_micro(hits) == pytest.approx(0.7, abs=1e-12)
    nothing = hits_of_sets(np.zeros((3, 2), bool), np.zeros((3, 2), bool))
    assert f1_micro(nothing) is None
    assert f1_macro(nothing) is None
    assert f1_macro(hits_of_sets(np.ones((1, 2), bool), np.zeros((1, 2), bool))) == 0


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_the_right_class_is_among_the_first_k(k):
    rng = np.random.default_rng(k)
    scores, right = rng.normal(size=(40, 6)), rng.integers(0, 6, 40)
    first = [np.argsort(-row, kind="stable")[:k].tolist() for row in scores]
    found = top_k_accuracy(scores, right, k)
    assert found == pytest.approx(
        np.mean([i in mine for i, mine in zip(right.tolist(), first, strict=True)]), abs=1e-12
    )
    if k < 6:
        assert found == pytest.approx(sklearn.top_k_accuracy_score(right, scores, k=k, labels=range(6)), abs=1e-12)


def test_ties_and_nan_count_against_the_model():
    right = np.array([0, 1, 2])
    assert top_k_accuracy(np.zeros((3, 4)), right, 3) == 0
    assert top_k_accuracy(np.zeros((3, 4)), right, 4) == 1
    assert top_k_accuracy(np.full((3, 4), np.nan), right, 3) == 0
    assert top_k_accuracy(np.zeros((0, 4)), right[:0], 1) is None
    with pytest.raises(UserError, match="k=0"):
        top_k_accuracy(np.zeros((3, 4)), right, 0)
