"""Decisions of a classification."""

import numpy as np

from mmjax.evaluate import decisions
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.decisions import Classified, taken_for
from mmjax.evaluate.evaluators.zeroshot import ZeroShot


def test_the_matrix_counts_decisions():
    found = Classified("z/k", "k", ("a", "b", "c"), np.arange(4), np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]))
    assert found.matrix().tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_zero_shot_decisions_agree_with_its_metrics_where_classes_tie():
    """Two classes of the same prompt embedding: whoever is right, the other is what was found."""
    names = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    images = np.array([[1, 0], [0, 1], [1, 0], [np.nan, 0]], np.float32)
    embedded = Embedded({"image": images}, {"image": np.ones(4, bool)}, {"k": ["a", "c", "b", "c"]})
    zeroshot = ZeroShot("k")
    (found,) = zeroshot.classified(embedded, lambda strings: names)
    assert found.classes == ("a", "b", "c")
    assert found.truth.tolist() == [0, 2, 1, 2]
    assert found.found[:3].tolist() == [1, 2, 0]
    assert found.found[3] != 2  # NaN counts against the model
    assert np.mean(found.truth == found.found) == zeroshot(embedded, lambda strings: names)["zeroshot/k/top1"] == 0.25


def test_what_is_wrong_is_taken_for_the_best_of_the_others(monkeypatch):
    monkeypatch.setattr(decisions, "CHUNK", 2)  # rows are done in parts
    scores = np.array([[3, 1, 2], [3, 3, 1], [0, 9, 8], [np.nan, 1, 2], [1, np.nan, 0], [-np.inf, 1, 2]])
    right = np.array([0, 1, 2, 0, 0, 0])
    place = (~(scores < scores[np.arange(6), right][:, None])).sum(axis=1)
    assert taken_for(scores, right, place).tolist() == [0, 0, 1, 2, 1, 2]
