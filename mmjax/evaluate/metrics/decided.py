"""Metrics of decisions: the right class among the first k, recall by class, F1 of one class an example or of several.

All of them are counts of examples. Those of one class an example are counted from the matrix of confusions that
`Classified.matrix` gives.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.errors import UserError
from mmjax.evaluate.metrics.labels import places


class Hits(NamedTuple):
    """The decisions of a classification, counted by class.

    right: examples of the class that were found. wrong: examples of other classes that were taken for it. missed:
    examples of it that weren't found.
    """

    right: Int[np.ndarray, " c"]
    wrong: Int[np.ndarray, " c"]
    missed: Int[np.ndarray, " c"]


def hits_of_classes(matrix: Int[np.ndarray, "c c"]) -> Hits:
    """The hits where each example has one class. matrix: examples by true class (row) and by the class found."""
    right = np.diagonal(matrix)
    return Hits(right, matrix.sum(axis=0) - right, matrix.sum(axis=1) - right)


def hits_of_sets(truth: Bool[np.ndarray, "n c"], found: Bool[np.ndarray, "n c"]) -> Hits:
    """The hits where each example has any number of classes. truth, found: masks of each example's classes."""
    return Hits(*((side.sum(axis=0)) for side in (truth & found, ~truth & found, truth & ~found)))


def f1_micro(hits: Hits) -> float | None:
    """The F1 of all decisions together: 2 right / (2 right + wrong + missed), summed over classes (van Rijsbergen 1979,
    Information Retrieval, with precision and recall weighted equally). With one class an example it is the share of
    right decisions. None where no example has or was given a class.
    """
    right, wrong, missed = (int(count.sum()) for count in hits)
    return 2 * right / (2 * right + wrong + missed) if right + wrong + missed else None


def f1_macro(hits: Hits) -> float | None:
    """The mean of the classes' own F1, over the classes that an example has or was taken for; None where there are
    none. Every class counts alike, however rare.

    scikit-learn's `f1_score(average="macro")`, with `zero_division=nan` for several classes an example: classes that
    never occur are left out, and don't count as 0.
    """
    right, wrong, missed = hits
    there = right + wrong + missed > 0
    each = 2 * right[there] / (2 * right + wrong + missed)[there]
    return float(each.mean()) if len(each) else None


def class_recalls(hits: Hits) -> Float[np.ndarray, " c"]:
    """The share of each class's examples that were found; NaN for a class without examples."""
    right, _, missed = hits
    with np.errstate(invalid="ignore"):
        return right / (right + missed)


def top_k_accuracy(scores: Float[np.ndarray, "n c"], right: Int[np.ndarray, " n"], k: int) -> float | None:
    """The share of examples whose right class is among the k best by score; None without examples. Ties and NaN count
    against the model (`labels.places`).

    right: the number of each example's class. Raises UserError where k is below 1.
    """
    if k < 1:
        raise UserError(f"top_k_accuracy(k={k}): the first k classes are 1 or more")
    return float((places(scores, right) <= k).mean()) if len(right) else None
