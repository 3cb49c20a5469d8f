"""The order of the best candidates by a second score, query by query."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate import Embedded, Reranked
from mmjax.evaluate.evaluators.reranked import reranked


def slow(scores: np.ndarray, right: np.ndarray, second: np.ndarray, top: int) -> list[int]:
    """Sorts each query's candidates, wrong ones first among equals; then the first `top` of them once more."""
    found = []
    for query in range(len(scores)):
        candidates = range(scores.shape[1])
        order = sorted(candidates, key=lambda c: (-scores[query, c], right[query, c]))
        first = sorted(order[:top], key=lambda c: (-second[query, c], right[query, c]))
        places = [place for place, c in enumerate([*first, *order[top:]], 1) if right[query, c]]
        found.append(min(places, default=0))
    return found


@pytest.mark.parametrize("top", [1, 3, 7, 50])
def test_it_is_the_slow_order_with_ties_against_the_model(top: int) -> None:
    random = np.random.default_rng(top)
    scores = random.integers(0, 6, (40, 12)) / 5  # many ties
    second = random.integers(0, 4, (40, 12)) / 3
    right = random.random((40, 12)) < 0.15
    asked = []

    def score(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        asked.append(len(queries))
        return second[queries, candidates]

    found, before, judged, mine = reranked(scores, right, score, top)
    np.testing.assert_array_equal(found, slow(scores, right, second, top))
    np.testing.assert_array_equal(before, slow(scores, right, scores, 12))
    assert sum(asked) == judged.size == mine.size == 40 * min(top, 12)
    assert (found == 0).sum() == (~right.any(axis=1)).sum() > 0


def test_it_needs_a_model_and_something_to_put_in_order() -> None:
    vectors = {name: np.eye(2, dtype=np.float32) for name in ("image", "text")}
    there = dict.fromkeys(vectors, np.ones(2, bool))
    with pytest.raises(UserError, match="Reranked needs the model"):
        Reranked("match")(Embedded(vectors, there), lambda strings: np.zeros((len(strings), 2)))
    with pytest.raises(UserError, match=r"Reranked\(top=0\) must be at least 1"):
        Reranked("match", top=0)(Embedded(vectors, there, predictions=object()), lambda strings: np.zeros((0, 2)))


class Known:
    """A model that finds these probabilities, of rows of images with rows of texts."""

    def __init__(self, found: np.ndarray) -> None:
        self.found, self.inputs = found, ("image", "text")

    def matcher(self, objective: str) -> "Known":
        assert objective == "match"
        return self

    def __call__(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return self.found[rows, columns]


@pytest.mark.parametrize("similarity", [0.0, 1.0, 20.0])
def test_the_towers_similarity_is_added_to_the_log_odds(similarity: float) -> None:
    random = np.random.default_rng(1)
    vectors = {name: random.normal(size=(30, 4)) for name in ("image", "text")}
    vectors = {name: x / np.linalg.norm(x, axis=1, keepdims=True) for name, x in vectors.items()}
    cosines = vectors["image"] @ vectors["text"].T
    odds = random.normal(scale=3, size=(30, 30))
    embedded = Embedded(
        {name: x.astype(np.float32) for name, x in vectors.items()},
        dict.fromkeys(vectors, np.ones(30, bool)),
        predictions=Known(1 / (1 + np.exp(-odds))),
    )
    metrics = Reranked("match", top=8, similarity=similarity)(embedded, lambda strings: np.zeros((0, 4)))
    for direction, first, second in (("image->text", cosines, odds), ("text->image", cosines.T, odds.T)):
        ranks = np.array(slow(first, np.eye(30, dtype=bool), second + similarity * first, 8))
        for k in (1, 5, 10):
            assert metrics[f"reranked/{direction}/R@{k}"] == pytest.approx(np.mean(ranks <= k))
