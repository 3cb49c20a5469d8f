"""Pairs the distinct pictures, captions and sounds of a split: queries, candidates, and which are right for which."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.metrics.items import items_of
from mmjax.evaluate.metrics.ranks import Ranks, both_ranks, grouped, marked_ranks

Rows = Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Pairs:
    """The distinct items of two modalities, and which of them are right answers for each other.

    A picture that is in several rows of the split is one item, and so is a sound; each caption is one of its own,
    also where two say the same, as in the protocols of Flickr30k and COCO (Karpathy and Fei-Fei 2015, arXiv:1412.2306).
    Right for an item are those that share a row with it; with a column `same`, those that share its value.

    rows, columns: the split's row of each item of the first, and of the second, modality.
    marks: by side, `[items, marks]`, sparse: items that have a mark in common are right for each other.
    groups: by side, the group of each item, where all items of a group are right for each other. None: only the marks
    are known.
    """

    rows: Rows
    columns: Rows
    marks: tuple[Any, Any] | None
    groups: tuple[Rows, Rows] | None

    def ranks(self, embedded: Embedded, source: str, target: str) -> tuple[Ranks, Ranks]:
        """Ranks from the first modality to the second, and back, of every item; 0 where nothing is right."""
        a, b = embedded.embeddings[source][self.rows], embedded.embeddings[target][self.columns]
        if self.groups is not None:
            return both_ranks(a, b, *self.groups)
        assert self.marks is not None
        return marked_ranks(a, b, *self.marks), marked_ranks(b, a, *reversed(self.marks))

    def counts(self) -> tuple[Rows, Rows]:
        """The number of right items on the other side, for each of the first, and of the second side."""
        if self.groups is not None:
            return _of_group(*self.groups), _of_group(*reversed(self.groups))
        assert self.marks is not None
        return marked_counts(*self.marks), marked_counts(*reversed(self.marks))

    def right(self, chosen: Int[np.ndarray, " k"]) -> Bool[np.ndarray, "k m"]:
        """A mask of the items of the second side that are right for each of these of the first."""
        if self.groups is not None:
            return self.groups[0][chosen, None] == self.groups[1]
        assert self.marks is not None
        return (self.marks[0][chosen] @ self.marks[1].T).toarray() > 0


def pairs(embedded: Embedded, source: str, target: str, same: str | None = None, who: str = "Retrieval") -> Pairs:
    """The pairs of two modalities. Raises UserError, for `who`, where there is no column `same`."""
    kinds = np.arange(len(embedded)) if same is None else _kinds(embedded.column(same, f"{who}(same=...)"))
    (rows, mine), (columns, theirs) = (_items(embedded, modality) for modality in (source, target))
    if all(len(first) == (place >= 0).sum() for first, place in ((rows, mine), (columns, theirs))):
        return Pairs(rows, columns, None, (kinds[rows], kinds[columns]))  # each row is another item
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    def marks(place: Rows, count: int) -> Any:
        there = np.flatnonzero(place >= 0)
        found = csr_array((np.ones(len(there), np.int32), (place[there], kinds[there])), (count, len(embedded)))
        found.sum_duplicates()
        return found

    a, b = marks(mine, len(rows)), marks(theirs, len(columns))
    if all((np.diff(side.indptr) == 1).all() for side in (a, b)):
        return Pairs(rows, columns, (a, b), (a.indices.astype(np.int64), b.indices.astype(np.int64)))
    if same is not None:  # many rows may share a value, so groups are used without counting pairs
        return Pairs(rows, columns, (a, b), None)
    right = (a @ b.T).tocoo()
    size = len(rows) + len(columns)
    joined = csr_array((np.ones(right.nnz), (right.row, right.col + len(rows))), (size, size))
    _, group = connected_components(joined, directed=False)
    in_a, in_b = (np.bincount(side, minlength=size) for side in (group[: len(rows)], group[len(rows) :]))
    whole = np.bincount(group[right.row], minlength=size) == in_a * in_b
    if whole.all():
        return Pairs(rows, columns, (a, b), (group[: len(rows)].astype(np.int64), group[len(rows) :].astype(np.int64)))
    return Pairs(rows, columns, (a, b), None)  # say, a sound with two pictures, one of which has other sounds too


def _items(embedded: Embedded, modality: str) -> tuple[Rows, Rows]:
    """The first valid row of each item of the modality, and the item of each row; -1: none.

    Invalid rows of an item belong to it too: a table's list of captions has the picture once.
    """
    valid, number = embedded.valid[modality], items_of(embedded, modality)
    if number is None:
        first = np.flatnonzero(valid)
        place = np.full(len(valid), -1)
        place[first] = np.arange(len(first))
        return first, place
    there = np.flatnonzero(valid)
    _, where = np.unique(number[there], return_index=True)
    first = np.sort(there[where])
    of = np.full(number.max(initial=0) + 1, -1)
    of[number[first]] = np.arange(len(first))
    return first, np.where(number >= 0, of[number], -1)


def _kinds(values: Sequence[Hashable]) -> Rows:
    """A number for each value; every row without a value has a number of its own."""
    return grouped(
        ("row", i) if value is None or value != value else ("value", value) for i, value in enumerate(values)
    )


def _of_group(mine: Rows, theirs: Rows) -> Rows:
    size = max(mine.max(initial=0), theirs.max(initial=0)) + 1
    return np.bincount(theirs, minlength=size)[mine]


def marked_counts(a: Any, b: Any) -> Rows:
    """The number of rows of b that have a mark in common with each of a; computed in parts, since marks may be shared
    by many.
    """
    step = 1024
    parts = [np.diff((a[start : start + step] @ b.T).tocsr().indptr) for start in range(0, a.shape[0], step)]
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)
