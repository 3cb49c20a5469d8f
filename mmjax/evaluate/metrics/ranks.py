"""The place of the right answer among all candidates."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

TILE = (1024, 8192)  # queries × candidates scored at once: 32 MB in fp32; a smaller product is a slower one
STRIP = 128  # rows compared at once, which fit into the cache; at most 255, counts are bytes
FEW = 64  # a group of at most so many pairs is scored pair by pair, a larger one as a matrix product
TIE = 1e-6  # scores of unit vectors closer than this are equal: fp32 products differ by 1e-7 with the order of the sums

Ranks = Int[np.ndarray, " n"]


def ranks(
    queries: Float[np.ndarray, "n e"],
    candidates: Float[np.ndarray, "m e"],
    query_groups: Int[np.ndarray, " n"],
    candidate_groups: Int[np.ndarray, " m"],
    tile: tuple[int, int] = TILE,
) -> Ranks:
    """The rank of the best right candidate of each query by inner product, from 1; 0 where no candidate is right.

    Every candidate of the query's group is right. Ties count against the model: a wrong candidate that scores as much
    as the best right one ranks before it, so constant embeddings (and NaN) rank last, not first.
    """
    return _Scored(queries, candidates, query_groups, candidate_groups).ranked(tile, back=False)[0]


def both_ranks(
    a: Float[np.ndarray, "n e"],
    b: Float[np.ndarray, "m e"],
    a_groups: Int[np.ndarray, " n"],
    b_groups: Int[np.ndarray, " m"],
    tile: tuple[int, int] = TILE,
) -> tuple[Ranks, Ranks]:
    """The `ranks` from a to b, and from b to a, of one matrix of scores, which is computed once, in tiles."""
    return _Scored(a, b, a_groups, b_groups).ranked(tile, back=True)


def marked_ranks(
    queries: Float[np.ndarray, "n e"], candidates: Float[np.ndarray, "m e"], query_marks: Any, candidate_marks: Any
) -> Ranks:
    """The `ranks` without groups: right are the candidates that have a mark in common with the query. query_marks,
    candidate_marks: sparse `[n, marks]` and `[m, marks]`, above 0 where there is the mark.
    """
    queries, candidates = queries.astype(np.float32), candidates.astype(np.float32)
    found = np.zeros(len(queries), np.int64)
    height = max(1, TILE[0] * TILE[1] // max(1, len(candidates)))
    for start in range(0, len(queries), height):
        part = slice(start, start + height)
        with np.errstate(invalid="ignore"):
            scores = queries[part] @ candidates.T
        right = (query_marks[part] @ candidate_marks.T).toarray() > 0
        best = np.where(right, scores, -np.inf).max(axis=1, initial=-np.inf)
        before = ~(scores < best[:, None] - np.float32(TIE)) & ~right
        found[part] = np.where(right.any(axis=1), 1 + before.sum(axis=1), 0)
    return found


class _Scored:
    """Both sides sorted by group, so that the right pairs are blocks along the diagonal of the matrix."""

    def __init__(self, a: np.ndarray, b: np.ndarray, a_groups: np.ndarray, b_groups: np.ndarray):
        self._orders = np.argsort(a_groups, kind="stable"), np.argsort(b_groups, kind="stable")
        self._a, self._b = (x[order].astype(np.float32) for x, order in zip((a, b), self._orders, strict=True))
        sorted_a, sorted_b = a_groups[self._orders[0]], b_groups[self._orders[1]]
        shared = np.intersect1d(sorted_a, sorted_b)
        # For each group with right pairs: the first row and the one after its last, and the same of columns.
        self._rows, self._columns = (
            np.stack([np.searchsorted(side, shared, where) for where in ("left", "right")], axis=1)
            for side in (sorted_a, sorted_b)
        )

    def ranked(self, tile: tuple[int, int], back: bool) -> tuple[Ranks, Ranks]:
        """Ranks of b for a, and (zeros unless `back`) of a for b, in the original order."""
        with np.errstate(invalid="ignore"):  # NaN is handled
            best_a, best_b = self._best(tile)
        least_a, least_b = best_a - np.float32(TIE), best_b - np.float32(TIE)
        behind_a, behind_b = np.zeros(len(self._a), np.int64), np.zeros(len(self._b), np.int64)
        height, width = tile
        scores = np.empty((min(height, len(self._a)), min(width, len(self._b))), np.float32)
        less = np.empty((STRIP, scores.shape[1]), bool)
        for top in range(0, len(self._a), height):
            for left in range(0, len(self._b), width):
                columns = slice(left, left + width)
                a, b = self._a[top : top + height], self._b[columns]
                part = np.matmul(a, b.T, out=scores[: len(a), : len(b)])
                for block in self._right(top, left, part.shape):
                    part[block] = np.inf  # inf is never less than the best, so it isn't counted
                for start in range(0, len(a), STRIP):
                    strip = part[start : start + STRIP]
                    rows, mask = slice(top + start, top + start + len(strip)), less[: len(strip), : len(b)]
                    # Counts smaller scores, rather than larger or equal ones: NaN, on either side, counts against the
                    # model.
                    np.less(strip, least_a[rows, None], out=mask)
                    behind_a[rows] += [np.count_nonzero(row) for row in mask]  # three times as fast as with an axis
                    if back:
                        np.less(strip, least_b[columns], out=mask)
                        behind_b[columns] += np.add.reduce(mask.view(np.uint8), axis=0, dtype=np.uint8)
        found = []
        for order, behind, right, count in (
            (self._orders[0], behind_a, _spread(self._rows, self._columns, len(self._a)), len(self._b)),
            (self._orders[1], behind_b, _spread(self._columns, self._rows, len(self._b)), len(self._a)),
        ):
            result = np.empty(len(order), np.int64)
            result[order] = np.where(right > 0, 1 + count - right - behind, 0)
            found.append(result)
        return found[0], found[1]

    def _right(self, top: int, left: int, shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
        """The blocks of right pairs within a tile, as slices of it."""
        first = max(np.searchsorted(side[:, 1], at, "right") for side, at in self._sides(top, left))
        end = min(np.searchsorted(side[:, 0], at) for side, at in self._sides(top + shape[0], left + shape[1]))
        rows = np.clip(self._rows[first:end] - top, 0, shape[0])
        columns = np.clip(self._columns[first:end] - left, 0, shape[1])
        for (r0, r1), (c0, c1) in zip(rows.tolist(), columns.tolist(), strict=True):
            yield slice(r0, r1), slice(c0, c1)

    def _sides(self, row: int, column: int) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
        return (self._rows, row), (self._columns, column)

    def _best(self, tile: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The best right score of every row and of every column, -inf where there is none, NaN where one is NaN."""
        best_a, best_b = (np.full(len(x), -np.inf, np.float32) for x in (self._a, self._b))
        sizes = np.stack([np.diff(side)[:, 0] for side in (self._rows, self._columns)], axis=1)
        few = sizes.prod(axis=1) <= FEW
        for rows, columns in _pairs(self._rows[few, 0], self._columns[few, 0], sizes[few]):
            scores = np.einsum("pe,pe->p", self._a[rows], self._b[columns])
            np.maximum.at(best_a, rows, scores)
            np.maximum.at(best_b, columns, scores)
        for (r0, r1), (c0, c1) in zip(self._rows[~few].tolist(), self._columns[~few].tolist(), strict=True):
            for top in range(r0, r1, tile[0]):
                for left in range(c0, c1, tile[1]):
                    rows, columns = slice(top, min(r1, top + tile[0])), slice(left, min(c1, left + tile[1]))
                    scores = self._a[rows] @ self._b[columns].T
                    np.maximum(best_a[rows], scores.max(axis=1), out=best_a[rows])
                    np.maximum(best_b[columns], scores.max(axis=0), out=best_b[columns])
        return best_a, best_b


def _pairs(rows: np.ndarray, columns: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterates over every row of each block with every column of it, some thousands of pairs at a time.

    rows, columns: the first of each block. sizes: its numbers of rows and columns, `[blocks, 2]`.
    """
    for start in range(0, len(sizes), 1024):
        part = slice(start, start + 1024)
        count = sizes[part].prod(axis=1)
        block = np.repeat(np.arange(len(count)), count)
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # the place within its block
        down, across = np.divmod(place, sizes[part, 1][block])
        yield rows[part][block] + down, columns[part][block] + across


def _spread(mine: np.ndarray, theirs: np.ndarray, count: int) -> Int[np.ndarray, " count"]:
    """The number of right answers of each of `count` rows (or columns) on the other side."""
    found = np.zeros(count, np.int64)
    for (first, end), (start, stop) in zip(mine.tolist(), theirs.tolist(), strict=True):
        found[first:end] = stop - start
    return found


def grouped(values: Iterable[Hashable]) -> Int[np.ndarray, " n"]:
    """A number for each value, the same for equal ones (of any hashable kind)."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
