"""The place of the right answer among all candidates."""

import numpy as np
from jaxtyping import Float, Int

CHUNK = 2**24  # scores held at once: 64 MB in fp32
TIE = 1e-6  # scores of unit vectors closer than this are equal: fp32 products differ by 1e-7 with the order of the sums


def ranks(
    queries: Float[np.ndarray, "n e"],
    candidates: Float[np.ndarray, "m e"],
    query_groups: Int[np.ndarray, " n"],
    candidate_groups: Int[np.ndarray, " m"],
    chunk: int = CHUNK,
) -> Int[np.ndarray, " n"]:
    """Rank of the best right candidate of each query by inner product, from 1; 0 where no candidate is right.

    Right is every candidate of the query's group. Ties go against the model: a wrong candidate that scores as much as
    the best right one stands before it, so constant embeddings (and NaN) come last, not first.
    """
    result = np.zeros(len(queries), np.int64)
    size = max(1, chunk // max(1, len(candidates)))
    for start in range(0, len(queries), size):
        rows = slice(start, start + size)
        scores = queries[rows].astype(np.float32) @ candidates.astype(np.float32).T
        right = query_groups[rows, None] == candidate_groups[None]
        best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
        # A NaN among the right scores makes `best` NaN, which nothing is less than.
        before = ~(scores < best - TIE) & ~right  # "not less" rather than "more or equal": NaN counts against
        result[rows] = np.where(right.any(axis=1), 1 + before.sum(axis=1), 0)
    return result


def groups(values: list) -> Int[np.ndarray, " n"]:
    """A number for each value, the same for equal ones (of any hashable kind)."""
    numbers: dict = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
