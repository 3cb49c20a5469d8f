"""Ranks against a brute-force reference, and ties and NaN against the model."""

import numpy as np
import pytest

from mmjax.evaluators.ranking import groups, ranks


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


@pytest.mark.parametrize("chunk", [1, 97, 2**24])
@pytest.mark.parametrize("kinds", [5, 40, 1000])
def test_ranks_equal_brute_force_however_they_are_cut(chunk, kinds):
    rng = np.random.default_rng(kinds)
    queries, candidates = unit(rng, 37, 8), unit(rng, 53, 8)
    query_groups, candidate_groups = rng.integers(0, kinds, 37), rng.integers(0, kinds, 53)
    found = ranks(queries, candidates, query_groups, candidate_groups, chunk)
    assert found.tolist() == brute_force(queries, candidates, query_groups, candidate_groups)
    assert kinds < 1000 or 0 in found  # some query has no right candidate


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


def test_big_splits_are_never_scored_all_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = unit(rng, 3000, 4)
    largest = 0
    real = np.where

    def spy(condition, *rest):
        nonlocal largest
        largest = max(largest, np.size(condition))
        return real(condition, *rest)

    monkeypatch.setattr(np, "where", spy)
    found = ranks(vectors, vectors, np.arange(3000), np.arange(3000), chunk=2**16)
    assert largest <= 2**16
    assert (found == 1).all()


def test_groups_number_equal_values_alike():
    assert groups(["b", "a", "b", None, ("b",)]).tolist() == [0, 1, 0, 2, 3]
