"""Metrics of how far a model's confidence can be trusted: calibration, and the separation of pairs by score."""

import numpy as np
from jaxtyping import Bool, Float

from mmjax.errors import UserError

BINS = 15  # as in the tables of Guo et al. 2017


def expected_calibration_error(
    confidence: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], bins: int = BINS
) -> float | None:
    """The mean difference between confidence and accuracy, over bins of equal width weighted by their examples (Guo et
    al. 2017, arXiv:1706.04599). None without examples; NaN where a confidence is NaN.

    confidence: the probability of the class that was decided on, of each example. correct: whether it is the right one.
    bins: their number M; bin m holds the confidences above (m - 1) / M up to m / M, and 0 is in the first.

    Raises UserError where a confidence isn't between 0 and 1, as logits aren't, or `bins` is below 1.
    """
    if bins < 1:
        raise UserError(f"expected_calibration_error(bins={bins}): there is one bin at least")
    if not len(confidence):
        return None
    if np.isnan(confidence).any():
        return float("nan")
    confidence = confidence.astype(np.float64)
    if confidence.min() < 0 or confidence.max() > 1:
        beyond = confidence[(confidence < 0) | (confidence > 1)][0]
        raise UserError(f"a confidence is {beyond:.4g}: it is a probability, from 0 to 1, as softmax gives it")
    edges = np.arange(1, bins + 1) / bins
    bin = np.searchsorted(edges, confidence, side="left")
    differences = np.bincount(bin, weights=correct - confidence, minlength=bins)
    return float(np.abs(differences).sum() / len(confidence))


def matching_auc(scores: Float[np.ndarray, " n"], match: Bool[np.ndarray, " n"]) -> float | None:
    """The probability that a pair that matches scores above one that doesn't, a tie counting half: the area under the
    ROC curve, by ranks (Mann and Whitney 1947; Hanley and McNeil 1982). None unless there are pairs of both kinds.

    scores: of each pair, any real numbers; NaN counts against the model, lowest for a match and highest for another.
    match: whether the pair matches.
    """
    from scipy.stats import rankdata

    matches = int(match.sum())
    others = len(match) - matches
    if not matches or not others:
        return None
    filled = np.where(np.isnan(scores), np.where(match, -np.inf, np.inf), scores)
    above = rankdata(filled)[match].sum() - matches * (matches + 1) / 2
    return float(above / (matches * others))
