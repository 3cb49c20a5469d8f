"""Computes the scores of answers drawn at random: R@10 among ten candidates is 1, whatever the model."""

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Bool, Int

HALF = 1e-9  # shares nearer than this to a half count as a half: they are sums of logarithms


def recall(right: Int[np.ndarray, " q"], candidates: int, k: int) -> float:
    """The R@k of a random order of the candidates: the share of queries with a right one among the first k.

    right: the number of right candidates of each query, at least one. Of n candidates, r of them right, the
    first k hold no right one with probability C(n - r, k) / C(n, k).
    """
    from scipy.special import gammaln

    k, n = min(k, candidates), candidates
    kinds, times = np.unique(right, return_counts=True)
    r = np.minimum(kinds, n - k)  # where more are right, not all k can be wrong
    none = gammaln(n - r + 1) + gammaln(n - k + 1) - gammaln(n - r - k + 1) - gammaln(n + 1)
    return float(np.average(np.where(kinds > n - k, 1.0, -np.expm1(none)), weights=times))


def median_rank(right: Int[np.ndarray, " q"], candidates: int) -> float:
    """The median rank of a random order: half of the queries have a right answer up to this rank.

    It is between two places where the share is exactly a half at the first of them.
    """
    share = partial(recall, right, candidates)
    low = _first(lambda k: share(k) >= 0.5 - HALF, candidates)
    high = _first(lambda k: share(k) > 0.5 + HALF, candidates)
    return (low + high) / 2


def _first(holds: Callable[[int], bool], last: int) -> int:
    """The first of 1 to `last` for which a condition holds; it holds for all after it."""
    low, high = 1, last
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def of_classes(classes: int) -> dict[str, float]:
    """The scores of a class drawn at random for each example."""
    return {"top1": 1 / classes, "top5": min(1.0, 5 / classes), "recall": 1 / classes}


def of_lists(right: Bool[np.ndarray, "n c"]) -> dict[str, float]:
    """The approximate mean average precision of random scores: the mean share of a class's examples."""
    return {"mAP": float(right.mean(axis=0)[right.any(axis=0)].mean()) if right.any() else 0.0}
