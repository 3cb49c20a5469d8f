"""What a classification decided, example by example: for a confusion matrix."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Classified:
    """Decisions of one classification. An evaluator that classifies gives them by a method of its own,
    `classified(embedded, embed_text) -> list[Classified]`.

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
