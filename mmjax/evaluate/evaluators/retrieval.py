"""Retrieval from every modality to every other."""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.disturbances import disturbance_name
from mmjax.evaluate.metrics import chance
from mmjax.evaluate.metrics.groups import gap, grouped_rows
from mmjax.evaluate.metrics.pairs import Pairs, pairs
from mmjax.runtime.counts import CANDIDATES, CHANCE, CHANCE_OF, EXAMPLES, NOT_FINITE, QUERIES


class Ranked(NamedTuple):
    """The queries of one direction: the rank of the right answer, from 1 (0: none is right), and whether the query's
    embedding is finite."""

    ranks: Int[np.ndarray, " q"]
    finite: Bool[np.ndarray, " q"]


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

    disturb: how it is judged again with an input disturbed in every example, `(("image", 0.1), ("text", 0.2))`, as in
    `Accuracy`; the other side stays as it is. by: a column by whose values, of the query's row, it is told too, among
    all candidates.

    Metrics: `<name>/<from>-><to>/R@<k>`, the share of queries with a right candidate among the first k, and
    `<name>/<from>-><to>/median_rank`; with `queries` and `candidates`, their numbers, and the scores of answers drawn
    at random: `chance`, of R@1, and `chance_R@<k>`, `chance_median_rank`. R@<k> also of
    `<name>/<from>-><to>/disturbed <input> <unit>=<amount>`; of `where <by>=<value>`, with `examples`; and of `gap over
    <by>`, the best group's less the worst's.
    """

    split: str = "validation"
    same: str | None = None
    at: tuple[int, ...] = (1, 5, 10)
    when: When = "always"
    name: str = "retrieval"
    inputs: tuple[str, ...] = ()
    disturb: tuple[tuple[str, float], ...] = ()
    by: str | None = None
    between_modalities = True

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name in (self.same, self.by) if name is not None)

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
        """Raises UserError where there is no such column or input, or the model is needed and isn't there."""
        metrics: dict[str, float] = {}
        again = self._again(embedded)
        values = None if self.by is None else embedded.column(self.by, "Retrieval(by=...)")
        for source, target in combinations(embedded.embeddings, 2):
            found = pairs(embedded, source, target, self.same)
            prefixes = f"{self.name}/{source}->{target}", f"{self.name}/{target}->{source}"
            counts, sides = found.counts(), (found.rows, found.columns)
            judged = _judged(embedded, found, source, target)
            for prefix, places, right, candidates in zip(prefixes, judged, counts, sides[::-1], strict=True):
                metrics |= self._of(prefix, places, right, len(candidates))
            for said, vectors in again.items():
                if vectors.keys() & {source, target}:
                    other = replace(embedded, embeddings=embedded.embeddings | vectors)
                    for prefix, places in zip(prefixes, _judged(other, found, source, target), strict=True):
                        metrics |= self._recalls(f"{prefix}/{said}", places)
            for prefix, places, rows in zip(prefixes, judged, sides, strict=True):
                metrics |= {} if values is None else self._by_group(prefix, places, grouped_rows(values, rows))
        return metrics

    def _again(self, embedded: Embedded) -> dict[str, dict[str, Float[np.ndarray, "n e"]]]:
        """By the name of each disturbance, the embeddings of the input that is disturbed."""
        if not self.disturb:
            return {}
        model = embedded.model("Retrieval(disturb=...)", "can't be disturbed")
        kinds = {name: kind for name, kind in model.kinds.items() if name in embedded.embeddings}
        named = {disturbance_name(each, kinds, "Retrieval"): each for each in self.disturb}
        return {said: {each[0]: model.vectors(each)} for said, each in named.items()}

    def _recalls(self, prefix: str, places: Ranked) -> dict[str, float]:
        """Recall at each k of the queries that have a right answer; none where there is no query."""
        asked = places.ranks > 0
        ranks, finite = places.ranks[asked], places.finite[asked]
        return {f"{prefix}/R@{k}": float(np.mean((ranks <= k) & finite)) for k in self.at} if len(ranks) else {}

    def _by_group(self, prefix: str, places: Ranked, groups: dict[str, Int[np.ndarray, " k"]]) -> dict[str, float]:
        """The recalls of the queries of each group, their number, and the gap between the groups."""
        metrics, recalls = {}, dict[str, dict[str, float]]()
        for value, rows in groups.items():
            mine = Ranked(places.ranks[rows], places.finite[rows])
            recalls[value] = self._recalls("", mine)
            if recalls[value]:
                metrics |= {f"{prefix}/where {self.by}={value}{name}": score for name, score in recalls[value].items()}
                metrics[f"{prefix}/where {self.by}={value}/{EXAMPLES}"] = float((mine.ranks > 0).sum())
        for k in self.at:
            scores = {value: found[f"/R@{k}"] for value, found in recalls.items() if found}
            metrics |= gap(f"{prefix}/gap over {self.by}/R@{k}", scores)
        return metrics

    def _of(self, prefix: str, places: Ranked, right: Int[np.ndarray, " q"], candidates: int) -> dict[str, float]:
        metrics = self._recalls(prefix, places)
        if not metrics:  # no example has both modalities
            return {}
        asked = places.ranks > 0
        found, finite, right = places.ranks[asked], places.finite[asked], right[asked]
        metrics[f"{prefix}/median_rank"] = float(np.median(found))
        metrics |= {f"{prefix}/{QUERIES}": float(len(found)), f"{prefix}/{CANDIDATES}": float(candidates)}
        if not finite.all():
            metrics[f"{prefix}/{NOT_FINITE}"] = float((~finite).sum())
        metrics[f"{prefix}/{CHANCE}"] = float(np.mean(right) / candidates)
        metrics |= {f"{prefix}/{CHANCE_OF}R@{k}": chance.recall(right, candidates, k) for k in self.at if k != 1}
        return metrics | {f"{prefix}/{CHANCE_OF}median_rank": chance.median_rank(right, candidates)}


def _judged(embedded: Embedded, found: Pairs, source: str, target: str) -> tuple[Ranked, Ranked]:
    """Of either direction the ranks of all queries, and which of them have an embedding that is finite."""
    finite = (
        np.asarray(np.isfinite(embedded.embeddings[modality][rows]).all(axis=1))
        for modality, rows in ((source, found.rows), (target, found.columns))
    )
    first, second = map(Ranked, found.ranks(embedded, source, target), finite)
    return first, second


def direction(embedded: Embedded, source: str, target: str, same: str | None = None) -> Int[np.ndarray, " q"]:
    """Ranks (from 1) of the right `target` for every `source` that has one; see `Retrieval`."""
    ranks, _ = pairs(embedded, source, target, same).ranks(embedded, source, target)
    return ranks[ranks > 0]
