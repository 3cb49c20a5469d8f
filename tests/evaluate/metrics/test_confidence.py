"""Calibration bin by bin, and the area under the curve pair by pair."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mmjax.errors import UserError
from mmjax.evaluate.metrics.confidence import expected_calibration_error, matching_auc


def bin_by_bin(confidence, correct, bins):
    total = 0.0
    for m in range(1, bins + 1):
        low, high = (m - 1) / bins, m / bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (m == 1 and c == 0)]
        if inside:
            accuracy = sum(bool(correct[i]) for i in inside) / len(inside)
            mean = sum(float(confidence[i]) for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean)
    return total


@pytest.mark.parametrize("bins", [1, 4, 15])
@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_equals_the_sum_over_bins(bins, seed):
    rng = np.random.default_rng(seed)
    confidence = np.concatenate([rng.random(200), [0.0, 1.0], np.arange(bins + 1) / bins])
    correct = rng.random(len(confidence)) < confidence**2
    found = expected_calibration_error(confidence, correct, bins)
    assert found == pytest.approx(bin_by_bin(confidence, correct, bins), abs=1e-12)


def test_calibration_by_hand():
    """Two bins: 0.2 and 0.5 are in the first, 0.9 and 0.7 in the second."""
    confidence, correct = np.array([0.2, 0.5, 0.9, 0.7]), np.array([False, True, True, True])
    expected = 0.5 * abs(0.5 - 0.35) + 0.5 * abs(1 - 0.8)
    assert expected_calibration_error(confidence, correct, 2) == pytest.approx(expected, abs=1e-12)
    sure = np.ones(4)
    assert expected_calibration_error(sure, np.ones(4, bool)) == 0
    assert expected_calibration_error(sure, np.zeros(4, bool)) == 1
    default = np.array([0.51, 0.55]), np.array([True, False])  # bins of 1/15: (0.467, 0.533] and (0.533, 0.6]
    assert expected_calibration_error(*default) == pytest.approx((0.49 + 0.55) / 2, abs=1e-12)


def test_what_is_no_confidence():
    right = np.array([True, False])
    assert expected_calibration_error(np.zeros(0), right[:0]) is None
    assert math.isnan(expected_calibration_error(np.array([0.5, np.nan]), right) or 0)
    for value in (-0.5, 3.25):
        with pytest.raises(UserError, match=f"a confidence is {value}: it is a probability"):
            expected_calibration_error(np.array([0.5, value]), right)
    with pytest.raises(UserError, match="bins=0"):
        expected_calibration_error(np.array([0.5, 0.5]), right, 0)


def pair_by_pair(scores, match):
    points = 0.0
    for i, j in itertools.product(np.flatnonzero(match), np.flatnonzero(~match)):
        if math.isnan(scores[i]) or math.isnan(scores[j]):
            points += 0.0  # against the model, on either side
        else:
            points += float(scores[i] > scores[j]) + 0.5 * float(scores[i] == scores[j])
    return points / (match.sum() * (~match).sum())


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_the_share_of_pairs_in_order(seed):
    rng = np.random.default_rng(seed)
    scores, match = rng.integers(0, 10, 60) / 4, rng.random(60) < 0.4  # many ties
    assert matching_auc(scores, match) == pytest.approx(roc_auc_score(match, scores), abs=1e-12)
    assert matching_auc(scores, match) == pytest.approx(pair_by_pair(scores, match), abs=1e-12)
    scores[rng.choice(60, 9, replace=False)] = np.nan
    assert matching_auc(scores, match) == pytest.approx(pair_by_pair(scores, match), abs=1e-12)


def test_the_area_of_constant_scores_and_of_one_kind():
    match = np.array([True, False, True, False])
    assert matching_auc(np.zeros(4), match) == 0.5
    assert matching_auc(np.full(4, np.nan), match) == 0
    assert matching_auc(np.arange(4.0), np.ones(4, bool)) is None
    assert matching_auc(np.arange(4.0), np.zeros(4, bool)) is None
