"""Decisions of a classification, example by example, for a confusion matrix."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

CHUNK = 2**12  # rows of scores that are copied at once


@dataclass(frozen=True)
class Classified:
    """The decisions of one classification. An evaluator returns them by `Evaluator.classified`, or, where learning
    twice would be expensive, with its metrics by `Evaluator.judged`.

    name: the start of its metrics' names, `zeroshot/group`. label: the column that holds the true class.
    rows: the examples of the split that were classified. truth, found: the class of each, as a place in `classes`.
    """

    name: str
    label: str
    classes: tuple[Hashable, ...]
    rows: Int[np.ndarray, " n"]
    truth: Int[np.ndarray, " n"]
    found: Int[np.ndarray, " n"]

    def matrix(self) -> Int[np.ndarray, "classes classes"]:
        """The number of examples of each true class (row) that were assigned each class (column)."""
        counts = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(counts, (self.truth, self.found), 1)
        return counts


def taken_for(
    scores: Float[np.ndarray, "n c"], right: Int[np.ndarray, " n"], place: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """The class with the best score; where the right one isn't the only best, the best of the others.

    place: of the right class, from 1, as the metrics count it.
    """
    found = np.where(place == 1, right, 0)
    wrong = np.flatnonzero(place != 1)
    for start in range(0, len(wrong), CHUNK):
        rows = wrong[start : start + CHUNK]
        others = np.nan_to_num(scores[rows], nan=np.inf, neginf=-np.inf)
        others[np.arange(len(rows)), right[rows]] = -np.inf
        found[rows] = others.argmax(axis=1)
    return found
