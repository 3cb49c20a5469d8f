"""The retrievals that are shown, against the ranks of all and a search by brute force."""

from dataclasses import replace

import numpy as np
import pytest

from mmjax.evaluate.metrics.ranks import grouped, ranks
from mmjax.evaluate.report import retrievals
from mmjax.evaluate.report.retrievals import directions
from tests.evaluate.report.made import made


@pytest.mark.parametrize("same", [None, "kind"])
def test_ranks_and_choice_equal_brute_force(same, monkeypatch):
    monkeypatch.setattr(retrievals, "SCORES", 50)  # two or three queries at a time
    embedded = made().embedded
    found = directions(embedded, same)
    assert {(d.source, d.target) for d in found} == {
        (a, b) for a in embedded.embeddings for b in embedded.embeddings if a != b
    }
    kinds = np.arange(20) if same is None else grouped(embedded.columns[same])
    for d in found:
        candidates = np.flatnonzero(embedded.valid[d.target])
        queries = np.flatnonzero(embedded.valid[d.source] & np.isin(kinds, kinds[candidates]))
        queries_of, targets = embedded.embeddings[d.source][queries], embedded.embeddings[d.target][candidates]
        np.testing.assert_array_equal(d.ranks, ranks(queries_of, targets, kinds[queries], kinds[candidates]))
        assert (d.queries, d.candidates) == (len(queries), len(candidates))
        assert d.chance == pytest.approx(np.mean([np.mean(kinds[candidates] == kinds[q]) for q in queries]))
        rank = dict(zip(queries.tolist(), d.ranks.tolist(), strict=True))
        assert [q.rank for q in d.best] == sorted(rank.values())[:3]
        assert [q.rank for q in d.worst] == sorted(rank.values())[::-1][:3]
        for q in [*d.best, *d.worst, *d.random]:
            assert q.rank == rank[q.row]
            scores = {int(c): float(embedded.embeddings[d.source][q.row] @ embedded.embeddings[d.target][c])
                      for c in candidates}  # fmt: skip
            order = sorted(scores, key=lambda c: -scores[c])
            assert [hit.row for hit in q.hits] == order[:5]
            assert [hit.right for hit in q.hits] == [kinds[c] == kinds[q.row] for c in order[:5]]
            assert q.answer.row == next(c for c in order if kinds[c] == kinds[q.row])
            assert q.answer.place == order.index(q.answer.row) + 1


def test_of_equal_ranks_the_margin_decides():
    embedded = made(modalities=("image", "text")).embedded
    scores = embedded.embeddings["text"] @ embedded.embeddings["image"].T
    margin = np.diag(scores) - np.where(np.eye(20, dtype=bool), -np.inf, scores).max(axis=1)
    (there,) = [d for d in directions(embedded) if d.source == "text"]
    assert [q.row for q in there.best] == np.argsort(-margin)[:3].tolist()  # by margin: first ones have one above 0
    assert all(q.rank == 1 for q in there.best)


def test_many_queries_are_sampled_the_same_way_each_time():
    embedded = made(300, ("image", "text")).embedded
    first, again = directions(embedded, asked=50), directions(embedded, asked=50)
    assert len(first[0].ranks) == 50
    assert first[0].queries == first[0].candidates == 300
    assert [q.row for q in first[0].random] == [q.row for q in again[0].random]


def test_nothing_to_find_and_nan():
    embedded = made(modalities=("image", "text")).embedded
    none = replace(embedded, valid={"image": np.zeros(20, bool), "text": np.ones(20, bool)})
    assert directions(none) == []
    broken = replace(embedded, embeddings={**embedded.embeddings, "image": np.full((20, 8), np.nan, np.float32)})
    assert all((d.ranks == 20).all() for d in directions(broken))  # last, not first
