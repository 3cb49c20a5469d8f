"""Selects the retrievals of a page: the best, the worst and some at random, by a rule and not by hand."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Int

from mmjax.data.kinds import ordered
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.metrics.chance import recall
from mmjax.evaluate.metrics.pairs import pairs
from mmjax.evaluate.metrics.ranks import TIE

ASKED = 2_000  # queries of a direction at most, drawn at random
SHOWN = 3  # best, worst and random ones each
FIRST = 5  # answers shown of each
SCORES = 2**22  # held at once
RULE = (
    "Best are those whose right answer stands first, by the largest margin to the best wrong one; worst those whose "
    "right answer stands last, of equal ranks by the margin; random ones are drawn with a fixed seed."
)


@dataclass(frozen=True)
class Hit:
    """An answer: a row of the split, its cosine similarity to the query, and its place, from 1."""

    row: int
    score: float
    place: int
    right: bool


@dataclass(frozen=True)
class Query:
    """A query with its first answers; `answer` is its best right one. rank: as in `ranks.ranks`, ties count
    against it.
    """

    row: int
    rank: int
    hits: list[Hit]
    answer: Hit


@dataclass(frozen=True)
class Direction:
    """The retrieval from one modality to another. queries: the number of possible ones; `ranks` has those of the drawn
    ones. chance: the R@1 of random answers.
    """

    source: str
    target: str
    queries: int
    candidates: int
    chance: float
    ranks: Int[np.ndarray, " asked"]
    best: list[Query]
    worst: list[Query]
    random: list[Query]


def directions(embedded: Embedded, same: str | None = None, seed: int = 0, asked: int = ASKED) -> list[Direction]:
    """Every direction in which some example has a right answer. same: as in `Retrieval`."""
    names = ordered(embedded.embeddings, embedded.kinds)
    found = (_direction(embedded, a, b, same, seed, asked) for a, b in permutations(names, 2))
    return [direction for direction in found if direction is not None]


def _direction(
    embedded: Embedded, source: str, target: str, same: str | None, seed: int, asked: int
) -> Direction | None:
    found = pairs(embedded, source, target, same, "the report")
    candidates = found.columns
    right_ones = found.counts()[0]
    queries = np.flatnonzero(right_ones > 0)  # places among the distinct items, found.rows
    if not len(queries):
        return None
    draw = np.random.default_rng(seed)
    places = np.sort(draw.choice(queries, min(asked, len(queries)), replace=False))
    rows = found.rows[places]
    ranks, margins = np.empty(len(rows), np.int64), np.empty(len(rows))
    targets = embedded.embeddings[target][candidates]
    size = max(1, SCORES // len(candidates))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        scores = embedded.embeddings[source][part] @ targets.T
        right = found.right(places[start : start + size])
        best = np.where(right, scores, -np.inf).max(axis=1)
        wrong = np.where(right, -np.inf, np.nan_to_num(scores, nan=np.inf)).max(axis=1)
        before = ~(scores < best[:, None] - TIE) & ~right
        ranks[start : start + size] = 1 + before.sum(axis=1)
        margins[start : start + size] = np.nan_to_num(best - wrong, nan=-np.inf)

    def query(i: int) -> Query:
        row = rows[i]
        scores = np.nan_to_num(targets @ embedded.embeddings[source][row], nan=-np.inf)
        order = np.argsort(-scores, kind="stable")
        right = found.right(places[[i]])[0, order]
        hits = [Hit(int(candidates[c]), float(scores[c]), n + 1, bool(right[n])) for n, c in enumerate(order[:FIRST])]
        n = int(np.argmax(right))
        return Query(
            int(row), int(ranks[i]), hits, Hit(int(candidates[order[n]]), float(scores[order[n]]), n + 1, True)
        )

    best = np.lexsort((-margins, ranks))[:SHOWN]
    worst = np.lexsort((margins, -ranks))[:SHOWN]
    drawn = np.sort(draw.choice(len(rows), min(SHOWN, len(rows)), replace=False))
    return Direction(
        source,
        target,
        len(queries),
        len(candidates),
        recall(right_ones[queries], len(candidates), 1),
        ranks,
        *([query(int(i)) for i in chosen] for chosen in (best, worst, drawn)),
    )
