"""Retrieval from every modality to every other."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Int

from mmjax.evaluators.embedded import Embedded, EmbedText, When
from mmjax.evaluators.ranking import groups, ranks


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
        for source, target in permutations(embedded.embeddings, 2):
            found = direction(embedded, source, target, self.same)
            if len(found):  # else no example has both
                prefix = f"{self.name}/{source}->{target}"
                metrics |= {f"{prefix}/R@{k}": float(np.mean(found <= k)) for k in self.at}
                metrics[f"{prefix}/median_rank"] = float(np.median(found))
        return metrics


def direction(embedded: Embedded, source: str, target: str, same: str | None = None) -> Int[np.ndarray, " q"]:
    """Ranks (from 1) of the right `target` for every `source` that has one; see `Retrieval`."""
    rows, columns = np.flatnonzero(embedded.valid[source]), np.flatnonzero(embedded.valid[target])
    kind = np.arange(len(embedded)) if same is None else groups(embedded.column(same, "Retrieval(same=...)"))
    found = ranks(embedded.embeddings[source][rows], embedded.embeddings[target][columns], kind[rows], kind[columns])
    return found[found > 0]
