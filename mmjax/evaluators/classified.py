"""What a classification decided, example by example: for a confusion matrix."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Classified:
    """Decisions of one classification. An evaluator that classifies gives them by a method of its own,
    `classified(embedded, embed_text) -> list[Classified]`, or, where learning it anew would be dear, by
    `judged(embedded, embed_text) -> tuple[metrics, list[Classified]]`, which is called in the place of both.

    name: as its metrics start, `zeroshot/group`.  label: the column that holds the true class.
    rows: which examples of the split were classified.  truth, found: classes, as places in `classes`, of each of them.
    """

    name: str
    label: str
    classes: tuple[Hashable, ...]
    rows: Int[np.ndarray, " n"]
    truth: Int[np.ndarray, " n"]
    found: Int[np.ndarray, " n"]

    def matrix(self) -> Int[np.ndarray, "classes classes"]:
        """How many of each true class (row) were taken for each class (column)."""
        counts = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(counts, (self.truth, self.found), 1)
        return counts


def judged(evaluator: Any, embedded: Any, embed_text: Any) -> tuple[dict[str, float], list[Classified]]:
    """An evaluator's metrics, and its decisions where it classifies."""
    if (both := getattr(evaluator, "judged", None)) is not None:
        return both(embedded, embed_text)
    classify = getattr(evaluator, "classified", None)
    return evaluator(embedded, embed_text), [] if classify is None else classify(embedded, embed_text)


def taken_for(
    scores: Float[np.ndarray, "n c"], right: Int[np.ndarray, " n"], place: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """The class with the best score; where the right one isn't alone at the first place, the best of the others.

    place: of the right class, from 1, as the metrics count it.
    """
    others = np.nan_to_num(scores, nan=np.inf, neginf=-np.inf)  # a copy
    others[np.arange(len(others)), right] = -np.inf
    return np.where(place == 1, right, others.argmax(axis=1))
