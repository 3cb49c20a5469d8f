"""Classification by the nearest neighbours among labelled embeddings (Wu et al. 2018, arXiv:1805.01978)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mmjax.evaluators.classification import Metrics, found_metrics, over_folds
from mmjax.evaluators.embedded import Embedded, EmbedText, When
from mmjax.evaluators.fitting import Part, learning, parts

CHUNK = 2**24  # similarities held at once: 64 MB in fp32
EQUAL = 1e-9  # votes, relative to the largest, that are a tie: the order of the sum makes a difference of 1e-16


@dataclass(frozen=True)
class KNN:
    """Each example gets the class that its `k` nearest neighbours in `fit_split` vote for.

    temperature: a neighbour of similarity s votes with exp(s / temperature); None: all votes are the same. The
    defaults are those of DINO (Caron et al. 2021, arXiv:2104.14294). Of neighbours that are equally near, those that
    stand first in the data count.
    label: the column that holds the class.  modality: what is classified.
    folds: a column; each of its values is classified by the examples of all others, and `fit_split` isn't read.

    What has no label or isn't there doesn't count; a class that `fit_split` lacks is never found; ties, and NaN, count
    against the model. Metrics: `<name>/<label>/top1`, `top5`, `recall` as in `ZeroShot`.
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
        def judge(fit: Embedded, test: Embedded) -> Metrics:
            known, asked = parts(fit, test, self.label, self.modality, "KNN")
            return self._judged(known, asked)

        if self.folds is not None:
            return over_folds(embedded, self.folds, "KNN", judge)
        return judge(learning(embedded, self.fit_split, "KNN"), embedded)

    def _judged(self, known: Part, asked: Part) -> Metrics:
        if not len(asked.number):
            return {}
        found = np.concatenate(
            [
                self._places(known, asked.vectors[start : start + size], asked.number[start : start + size])
                for size in [max(1, CHUNK // len(known.vectors))]
                for start in range(0, len(asked.number), size)
            ]
        )
        return found_metrics(found, asked.number, f"{self.name}/{self.label}")

    def _places(
        self, known: Part, vectors: Float[np.ndarray, "n e"], right: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        near, similarity = nearest(vectors @ known.vectors.T, self.k)
        if self.temperature is None:
            votes = np.where(np.isnan(similarity), np.nan, 1.0)
        else:  # of the largest one, which cancels: exp can't overflow
            votes = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / self.temperature)
        scores = np.zeros((len(vectors), known.classes))
        np.add.at(scores, (np.arange(len(vectors))[:, None], known.number[near]), votes)
        best = scores[np.arange(len(scores)), right][:, None] - EQUAL * scores.max(axis=1, keepdims=True)
        return (~(scores < best)).sum(axis=1)


def nearest(scores: Float[np.ndarray, "n m"], k: int) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """The columns of the `k` largest scores of each row, best first, of equal ones the first; and the scores, fp64.

    Fewer where there are fewer columns. A row of NaN has any columns, with NaN.
    """
    k = min(k, scores.shape[1])
    least = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k]
    found = np.zeros((len(scores), k), np.int64)
    for row, (values, bound) in enumerate(zip(scores, least, strict=True)):
        candidates = np.flatnonzero(~(values < bound))  # more than k where several are equally near
        found[row] = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    return found, np.take_along_axis(scores, found, axis=1).astype(np.float64)
