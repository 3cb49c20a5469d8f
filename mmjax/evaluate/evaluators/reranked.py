"""Retrieval by the towers, whose best candidates a fusion then puts in order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import logit

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics.confidence import matching_auc
from mmjax.evaluate.metrics.pairs import pairs
from mmjax.evaluate.metrics.ranks import TIE, Ranks
from mmjax.runtime.counts import CANDIDATES, QUERIES

Judged = tuple[Ranks, Ranks, Float[np.ndarray, "q top"], Bool[np.ndarray, "q top"]]
Scorer = Callable[[Int[np.ndarray, " p"], Int[np.ndarray, " p"]], Float[np.ndarray, " p"]]
EDGE = 1e-6  # probabilities of float32 are no nearer to 0 or 1, where log odds are infinite


@dataclass(frozen=True)
class Reranked(Evaluator):
    """Measures recall at k where the `top` candidates of the towers' similarity are put in order by a `Matching`
    objective, which finds that they belong to the query (ALBEF: Li et al. 2021, arXiv:2107.07651, section 4).

    Queries, candidates and right answers are those of `Retrieval`, and so is `same`. A query whose right answers are
    all beyond the `top` has the rank that the towers give it. It costs `top` pairs of the fusion for each query, in
    both directions. objective: its name in the experiment. similarity: what the towers' cosine is multiplied by before
    it is added to the fusion's log odds that the two belong together: 0 leaves the fusion's word alone (ALBEF), about
    the contrast's scale weighs both alike.

    Metrics: `<name>/<from>-><to>/R@<k>`, `median_rank`, `queries`, `candidates`; `gain_R@<k>`, by how much recall is
    above that of the towers alone; and `auc`: the probability that of those `top` candidates a right one is found to
    belong rather than a wrong one.
    """

    objective: str
    top: int = 128
    split: str = "validation"
    same: str | None = None
    at: tuple[int, ...] = (1, 5, 10)
    when: When = "end"
    name: str = "reranked"
    inputs: tuple[str, ...] = ()
    similarity: float = 0.0
    between_modalities = True

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.same is None else (self.same,)

    @property
    def protocol(self) -> str:
        """A sentence on what is put in order."""
        return (
            f"{self.name}: the towers' best {self.top} candidates of each query, in the order of {self.objective!r}; "
            "gains are over the towers' own order"
        )

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there is no model, no such objective, or nothing to put in order."""
        model = embedded.model("Reranked", "don't match")
        if self.top < 1:
            raise UserError(f"Reranked(top={self.top}) must be at least 1: so many candidates are put in order")
        matcher = model.matcher(self.objective)
        first, second = matcher.inputs
        found, metrics = pairs(embedded, first, second, self.same, "Reranked"), {}
        if not (len(found.rows) and len(found.columns)):
            return {}
        a, b = embedded.embeddings[first][found.rows], embedded.embeddings[second][found.columns]
        right = found.right(np.arange(len(found.rows)))
        directions: tuple[tuple[str, np.ndarray, np.ndarray, Scorer], ...] = (
            (f"{first}->{second}", a @ b.T, right, lambda q, c: matcher(found.rows[q], found.columns[c])),
            (f"{second}->{first}", b @ a.T, right.T, lambda q, c: matcher(found.rows[c], found.columns[q])),
        )
        for direction, scores, answers, fused in directions:

            def score(q: Any, c: Any, fused: Scorer = fused, scores: np.ndarray = scores) -> Float[np.ndarray, " p"]:
                found = fused(q, c)
                if not self.similarity:
                    return found
                return logit(np.clip(found, EDGE, 1 - EDGE)) + self.similarity * scores[q, c]

            ranks, before, judged, mine = reranked(scores, answers, score, self.top)
            ranks, before, prefix = ranks[ranks > 0], before[before > 0], f"{self.name}/{direction}"
            auc = matching_auc(judged.reshape(-1), mine.reshape(-1))
            metrics |= {} if auc is None else {f"{prefix}/auc": auc}
            if not len(ranks):
                continue
            metrics |= {f"{prefix}/R@{k}": float(np.mean(ranks <= k)) for k in self.at}
            metrics |= {f"{prefix}/gain_R@{k}": float(np.mean(ranks <= k) - np.mean(before <= k)) for k in self.at}
            metrics[f"{prefix}/median_rank"] = float(np.median(ranks))
            metrics |= {f"{prefix}/{QUERIES}": float(len(ranks)), f"{prefix}/{CANDIDATES}": float(scores.shape[1])}
        return metrics


def reranked(scores: Float[np.ndarray, "q m"], right: Bool[np.ndarray, "q m"], score: Scorer, top: int) -> Judged:
    """The rank of the best right candidate of each query, from 1; 0 where none is right. Ties count against the model,
    of either order. Then that rank by the first order alone; the second order's score of the first `top` candidates
    `[q, top]`, and which are right.

    score: the second order's scores of pairs, of queries and candidates by number.
    """
    count, top = len(scores), min(top, scores.shape[1])
    with np.errstate(invalid="ignore"):
        best = np.where(right, scores, -np.inf).max(axis=1)
        # Smaller scores are counted rather than larger ones: NaN counts against the model.
        before = ~(scores < best[:, None] - TIE) & ~right
    ranks = 1 + before.sum(axis=1)
    order = np.stack(
        [np.lexsort((mine, -np.nan_to_num(row, nan=np.inf))) for row, mine in zip(scores, right, strict=True)]
    )
    chosen = order[:, :top]
    pairs_scored = score(np.repeat(np.arange(count), top), chosen.reshape(-1)).reshape(count, top)
    mine = np.take_along_axis(right, chosen, axis=1)
    best = np.where(mine, pairs_scored, -np.inf).max(axis=1)
    with np.errstate(invalid="ignore"):
        within = 1 + (~(pairs_scored < best[:, None] - TIE) & ~mine).sum(axis=1)
    after = np.where(mine.any(axis=1), within, np.maximum(ranks, top + 1))
    asked = right.any(axis=1)
    return np.where(asked, after, 0), np.where(asked, ranks, 0), pairs_scored, mine
