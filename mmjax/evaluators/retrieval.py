"""Retrieval from every modality to every other."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Int

from mmjax.evaluators.embedded import Embedded, EmbedText, When
from mmjax.evaluators.ranking import both_ranks, groups


@dataclass(frozen=True)
class Retrieval:
    """Recall at k and median rank in all directions between the modalities that the split has.

    Each example that has both modalities, or a right candidate at least, is a query; every example that has the other
    modality is a candidate. Right is the example itself, and with `same` (the name of a column) every example of the
    same value there: give "text" where captions repeat. A tie counts against the model (`ranking.ranks`).

    Metrics: `<name>/<from>-><to>/R@<k>`, the share of queries with a right candidate among the first k, and
    `<name>/<from>-><to>/median_rank`.
    """

    split: str = "validation"
    same: str | None = None
    at: tuple[int, ...] = (1, 5, 10)
    when: When = "always"
    name: str = "retrieval"
    inputs: tuple[str, ...] = ()

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        metrics = {}
        for source, target in combinations(embedded.embeddings, 2):
            there, back = _both(embedded, source, target, self.same)
            metrics |= self._of(f"{source}->{target}", there) | self._of(f"{target}->{source}", back)
        return metrics

    def _of(self, direction: str, found: Int[np.ndarray, " q"]) -> dict[str, float]:
        if not len(found):  # no example has both
            return {}
        prefix = f"{self.name}/{direction}"
        shares = {f"{prefix}/R@{k}": float(np.mean(found <= k)) for k in self.at}
        return shares | {f"{prefix}/median_rank": float(np.median(found))}


def direction(embedded: Embedded, source: str, target: str, same: str | None = None) -> Int[np.ndarray, " q"]:
    """Ranks (from 1) of the right `target` for every `source` that has one; see `Retrieval`."""
    return _both(embedded, source, target, same)[0]


def _both(embedded: Embedded, a: str, b: str, same: str | None) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " r"]]:
    """Ranks from a to b and from b to a, of those that have a right one."""
    rows, columns = np.flatnonzero(embedded.valid[a]), np.flatnonzero(embedded.valid[b])
    kind = np.arange(len(embedded)) if same is None else groups(embedded.column(same, "Retrieval(same=...)"))
    there, back = both_ranks(embedded.embeddings[a][rows], embedded.embeddings[b][columns], kind[rows], kind[columns])
    return there[there > 0], back[back > 0]
