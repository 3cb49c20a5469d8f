"""Ranks against a brute-force reference, and ties and NaN against the model."""

import math
import tracemalloc

import numpy as np
import pytest

from mmjax.evaluate.metrics.ranks import both_ranks, grouped, ranks


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def brute_force(queries, candidates, query_groups, candidate_groups) -> list[int]:
    """The definition, one query at a time, in float64."""
    found = []
    for query, group in zip(queries.astype(np.float64), query_groups, strict=True):
        order = sorted(range(len(candidates)), key=lambda i: -float(query @ candidates[i].astype(np.float64)))
        right = [place for place, i in enumerate(order, start=1) if candidate_groups[i] == group]
        found.append(right[0] if right else 0)
    return found


@pytest.mark.parametrize("tile", [(1, 1), (7, 10), (240, 8192)])
@pytest.mark.parametrize("kinds", [1, 5, 40, 1000])
def test_ranks_equal_brute_force_however_they_are_cut(tile, kinds):
    rng = np.random.default_rng(kinds)
    queries, candidates = unit(rng, 37, 8), unit(rng, 53, 8)
    query_groups, candidate_groups = rng.integers(0, kinds, 37), rng.integers(0, kinds, 53)
    there, back = both_ranks(queries, candidates, query_groups, candidate_groups, tile)
    assert there.tolist() == brute_force(queries, candidates, query_groups, candidate_groups)
    assert back.tolist() == brute_force(candidates, queries, candidate_groups, query_groups)
    assert ranks(queries, candidates, query_groups, candidate_groups, tile).tolist() == there.tolist()
    assert kinds < 1000 or 0 in there  # some query has no right candidate


@pytest.mark.parametrize("sizes", [(300, 40), (9, 2)])
def test_ties_duplicates_and_nan_equal_brute_force(sizes):
    """Vectors of few values, so that scores are equal exactly or far apart; some rows are NaN, some appear often."""
    rng = np.random.default_rng(sizes[0])
    a, b = (rng.integers(-1, 2, (count, 4)).astype(np.float32) / 2 for count in sizes)
    a[::7, 0], b[::5, 1] = np.nan, np.nan
    groups_a, groups_b = (rng.choice([1, 2, 3, 50, 51, 52], count) for count in sizes)
    groups_a[::3] = np.arange(len(groups_a[::3])) + 100  # of which only some are on the other side
    groups_b[::4] = np.arange(len(groups_b[::4])) + 105
    there, back = both_ranks(a, b, groups_a, groups_b)
    assert there.tolist() == pessimist(a, b, groups_a, groups_b)
    assert back.tolist() == pessimist(b, a, groups_b, groups_a)


def pessimist(queries, candidates, query_groups, candidate_groups) -> list[int]:
    """The definition with ties and NaN, one pair at a time, in float64."""
    found = []
    for query, group in zip(queries.astype(np.float64), query_groups, strict=True):
        scores = [float(query @ candidate.astype(np.float64)) for candidate in candidates]
        right = [score for score, other in zip(scores, candidate_groups, strict=True) if other == group]
        wrong = [score for score, other in zip(scores, candidate_groups, strict=True) if other != group]
        best = math.nan if any(map(math.isnan, right)) else max(right, default=0.0)
        found.append(1 + sum(not score < best - 1e-6 for score in wrong) if right else 0)
    return found


def test_nothing_to_rank():
    none = np.zeros((0, 4), np.float32)
    some = np.eye(4, dtype=np.float32)
    there, back = both_ranks(none, some, np.zeros(0, int), np.arange(4))
    assert there.tolist() == []
    assert back.tolist() == [0] * 4


def test_constant_embeddings_come_last():
    same = np.full((64, 3), 1 / np.sqrt(3), np.float32)
    assert ranks(same, same, np.arange(64), np.arange(64)).tolist() == [64] * 64


def test_scores_that_differ_by_rounding_are_ties():
    queries = np.array([[1, 0]], np.float32)
    candidates = np.array([[0.5 + 1e-7, 0], [0.5, 0], [0.4, 0]], np.float32)
    assert ranks(queries, candidates, np.zeros(1, int), np.arange(3)).tolist() == [2]


@pytest.mark.parametrize("where", ["query", "right", "wrong"])
def test_nan_counts_against_the_model(where):
    vectors = np.eye(4, dtype=np.float32)
    queries, candidates = vectors[:1].copy(), vectors.copy()
    if where == "query":
        queries[0, 1] = np.nan
    else:
        candidates[0 if where == "right" else 2] = np.nan
    assert ranks(queries, candidates, np.zeros(1, int), np.arange(4)).tolist() == [2 if where == "wrong" else 4]


@pytest.mark.parametrize("kinds", [3000, 3])
def test_big_splits_are_never_scored_all_at_once(kinds):
    vectors = unit(np.random.default_rng(0), 3000, 4)
    tracemalloc.start()
    there, back = both_ranks(vectors, vectors, np.arange(3000) % kinds, np.arange(3000) % kinds, tile=(50, 300))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3000 * 3000 * 4 / 8  # an eighth of the matrix
    assert (there == 1).all()
    assert (back == 1).all()


def test_groups_number_equal_values_alike():
    assert grouped(["b", "a", "b", None, ("b",)]).tolist() == [0, 1, 0, 2, 3]
