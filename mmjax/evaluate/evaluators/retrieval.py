"""Retrieval from every modality to every other."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Int

from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics import chance
from mmjax.evaluate.metrics.pairs import pairs
from mmjax.runtime.counts import CANDIDATES, CHANCE, CHANCE_OF, NOT_FINITE, QUERIES


@dataclass(frozen=True)
class Retrieval(Evaluator):
    """Computes recall at k and median rank in all directions between the modalities that the split has.

    Rows that hold the same picture, or the same sound, are one query and one candidate (a row without one has that of
    its id, where a table's column `id` says so of it and one picture alone); every caption is one of its
    own, also where two say the same. Right for a picture are the captions of all its rows, and a picture is found where
    any of them is among the first k: the protocol of Flickr30k and COCO, which papers use. With `same` (the
    name of a column) right is, instead, every row of the same value there: give "text" where captions repeat. An item
    that has a right answer is a query; every item of the other modality is a candidate. A tie counts against the model
    (`ranks.ranks`), and an embedding that isn't finite finds nothing.

    Metrics: `<name>/<from>-><to>/R@<k>`, the share of queries with a right candidate among the first k, and
    `<name>/<from>-><to>/median_rank`; with `queries` and `candidates`, their numbers, and the scores of answers drawn
    at random: `chance`, of R@1, and `chance_R@<k>`, `chance_median_rank`.
    """

    split: str = "validation"
    same: str | None = None
    at: tuple[int, ...] = (1, 5, 10)
    when: When = "always"
    name: str = "retrieval"
    inputs: tuple[str, ...] = ()
    between_modalities = True

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.same is None else (self.same,)

    @property
    def protocol(self) -> str:
        """A sentence on the queries, the candidates, and the right answers."""
        right = f"what has the same {self.same!r}"
        if self.same is None:
            right = "what shares a row with it (where captions repeat, see Retrieval's same='text')"
        return (
            f"{self.name}: each picture and sound counts once, in however many rows it is, and each caption; "
            f"right is {right}, and one right answer among the first k is a hit"
        )

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        metrics = {}
        for source, target in combinations(embedded.embeddings, 2):
            found = pairs(embedded, source, target, self.same)
            finite = [
                np.asarray(np.isfinite(embedded.embeddings[modality][rows]).all(axis=1))
                for modality, rows in ((source, found.rows), (target, found.columns))
            ]
            for name, ranks, right, good, candidates in zip(
                (f"{source}->{target}", f"{target}->{source}"),
                found.ranks(embedded, source, target),
                found.counts(),
                finite,
                (len(found.columns), len(found.rows)),
                strict=True,
            ):
                asked = ranks > 0
                metrics |= self._of(name, ranks[asked], right[asked], good[asked], candidates)
        return metrics

    def _of(
        self,
        direction: str,
        found: Int[np.ndarray, " q"],
        right: Int[np.ndarray, " q"],
        finite: Bool[np.ndarray, " q"],
        candidates: int,
    ) -> dict[str, float]:
        if not len(found):  # no example has both modalities
            return {}
        prefix = f"{self.name}/{direction}"
        metrics = {f"{prefix}/R@{k}": float(np.mean((found <= k) & finite)) for k in self.at}
        metrics[f"{prefix}/median_rank"] = float(np.median(found))
        metrics |= {f"{prefix}/{QUERIES}": float(len(found)), f"{prefix}/{CANDIDATES}": float(candidates)}
        if not finite.all():
            metrics[f"{prefix}/{NOT_FINITE}"] = float((~finite).sum())
        metrics[f"{prefix}/{CHANCE}"] = float(np.mean(right) / candidates)
        metrics |= {f"{prefix}/{CHANCE_OF}R@{k}": chance.recall(right, candidates, k) for k in self.at if k != 1}
        return metrics | {f"{prefix}/{CHANCE_OF}median_rank": chance.median_rank(right, candidates)}


def direction(embedded: Embedded, source: str, target: str, same: str | None = None) -> Int[np.ndarray, " q"]:
    """Ranks (from 1) of the right `target` for every `source` that has one; see `Retrieval`."""
    ranks, _ = pairs(embedded, source, target, same).ranks(embedded, source, target)
    return ranks[ranks > 0]
