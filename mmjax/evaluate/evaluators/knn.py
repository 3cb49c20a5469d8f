"""Classification by the nearest neighbours among labelled embeddings (Wu et al. 2018, arXiv:1805.01978)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mmjax.evaluate.contract import Embedded, EmbedText, When
from mmjax.evaluate.decisions import Classified, taken_for
from mmjax.evaluate.metrics.fit_split import Part, judged
from mmjax.evaluate.metrics.labels import LabelEvaluator, Metrics, found_metrics, mean_average_precision

CHUNK = 2**24  # similarities in memory at once: 64 MB in fp32
EQUAL = 1e-9  # difference of votes, relative to the largest, that is a tie: the order of the sum changes 1e-16


@dataclass(frozen=True)
class KNN(LabelEvaluator):
    """Assigns each example the class that its `k` nearest neighbours in `fit_split` vote for.

    In a column of lists a neighbour votes for all its classes, and a class's score is the share of the votes it gets.
    temperature: a neighbour of similarity s votes with exp(s / temperature); None: all votes are the same. The defaults
    are those of DINO (Caron et al. 2021, arXiv:2104.14294). Of neighbours that are equally near, the first in the data
    are used.
    label: the column that holds the class. modality: the one that is classified.
    folds: a column; each of its values is classified by the examples of all others, and `fit_split` isn't read.

    Examples without the label or the modality are left out; a class that `fit_split` lacks is never found; ties, and
    NaN, count against the model. Metrics: `<name>/<label>/top1`, `top5`, `recall` and counts as in `ZeroShot` (`mAP`
    for lists).
    """

    label: str
    split: str = "validation"
    fit_split: str | None = "train"
    k: int = 20
    temperature: float | None = 0.07
    modality: str = "image"
    folds: str | None = None
    when: When = "always"
    name: str = "knn"
    inputs: tuple[str, ...] = ()

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> Metrics:
        return self.judged(embedded, embed_text)[0]

    def classified(self, embedded: Embedded, embed_text: EmbedText) -> list[Classified]:
        """The class that each example was assigned; empty for a column of lists."""
        return self.judged(embedded, embed_text)[1]

    def judged(self, embedded: Embedded, embed_text: EmbedText) -> tuple[Metrics, list[Classified]]:
        """Metrics and decisions, with the neighbours found once."""
        return judged(self, embedded, self._judge)

    def _judge(self, known: Part, asked: Part) -> tuple[Metrics, Int[np.ndarray, " n"] | None]:
        prefix, size = f"{self.name}/{self.label}", max(1, CHUNK // len(known.vectors))
        chunks = [
            asked.take(np.arange(i, min(i + size, len(asked.vectors)))) for i in range(0, len(asked.vectors), size)
        ]
        if asked.several is not None:
            shares = np.concatenate([self._votes(known, chunk.vectors) for chunk in chunks])
            found = mean_average_precision(shares, asked.several, tie=EQUAL)
            return ({} if found is None else {f"{prefix}/mAP": found}), None
        places, taken = [], []
        for chunk in chunks:
            votes = self._votes(known, chunk.vectors)
            right = votes[np.arange(len(votes)), chunk.number][:, None]
            places.append((~(votes < right - EQUAL * votes.max(axis=1, keepdims=True))).sum(axis=1))
            taken.append(taken_for(votes, chunk.number, places[-1]))
        metrics = found_metrics(np.concatenate(places), asked.number, prefix, asked.vectors)
        return metrics, np.concatenate(taken)

    def _votes(self, known: Part, vectors: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n c"]:
        """The votes for each class, as shares of all."""
        near, similarity = neighbours(vectors @ known.vectors.T, self.k)
        if self.temperature is None:
            votes = np.where(np.isnan(similarity), np.nan, 1.0)
        else:  # relative to the largest one, which cancels: exp can't overflow
            votes = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / self.temperature)
        votes /= votes.sum(axis=1, keepdims=True)
        shares = np.zeros((len(vectors), known.classes))
        if known.several is not None:
            for neighbour in range(near.shape[1]):  # one neighbour after the other: no array of n × k × c
                shares += votes[:, neighbour, None] * known.several[near[:, neighbour]]
            return shares
        np.add.at(shares, (np.arange(len(vectors))[:, None], known.number[near]), votes)
        return shares


def neighbours(scores: Float[np.ndarray, "n m"], k: int) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """The columns of the `k` largest scores of each row, best first, of equal ones the first; and the scores, fp64.

    Fewer where there are fewer columns. A row of NaN gets arbitrary columns, with NaN.
    """
    k = min(k, scores.shape[1])
    least = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k]
    found = np.zeros((len(scores), k), np.int64)
    for row, (values, bound) in enumerate(zip(scores, least, strict=True)):
        candidates = np.flatnonzero(~(values < bound))  # more than k where several scores are equal
        found[row] = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    return found, np.take_along_axis(scores, found, axis=1).astype(np.float64)
