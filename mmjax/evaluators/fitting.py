"""What evaluators that learn from a split need: its usable examples, and those to judge, in the same classes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.errors import UserError
from mmjax.evaluators.classification import is_several, labelled, modality_of, values_of
from mmjax.evaluators.embedded import Embedded


@dataclass(frozen=True)
class Part:
    """Examples that have the modality and a label; of a multi-label column `several` says the classes."""

    vectors: Float[np.ndarray, "n e"]
    number: Int[np.ndarray, " n"]
    classes: int
    several: Bool[np.ndarray, "n c"] | None = None


def learning(embedded: Embedded, split: str | None, who: str) -> Embedded:
    """The split to learn from. Raises UserError where there is none."""
    if embedded.fit is None:
        raise UserError(f"{who}(fit_split={split!r}): name the split that it learns from, 'train' say")
    return embedded.fit


def parts(fit: Embedded, test: Embedded, label: str, modality: str, who: str) -> tuple[Part, Part]:
    """What to learn from and what to judge. Classes are the values of both; bad embeddings (NaN) teach nothing.

    Raises:
        UserError: the modality isn't embedded, or nothing is there to learn from.
    """
    columns = [split.column(label, f"{who}(label=...)") for split in (fit, test)]
    classes = values_of([*columns[0], *columns[1]])
    several = is_several(columns[0])
    found = []
    for split, column, teaches in zip((fit, test), columns, (True, False), strict=True):
        vectors = modality_of(split, modality, who).astype(np.float32)
        labels = labelled(column, classes)
        usable = split.valid[modality] & labels.known
        if teaches:
            usable &= np.isfinite(vectors).all(axis=1)
        rows = np.flatnonzero(usable)
        which = labels.several[rows] if labels.several is not None else None
        found.append(Part(vectors[rows], labels.number[rows], len(classes), which))
    if not len(found[0].vectors):
        raise UserError(f"{who} learns from the {fit.split} split, which has no {modality} with a {label!r}")
    if several != is_several(columns[1]) and len(found[1].vectors):
        raise UserError(
            f"{who}(label={label!r}): the column holds lists in the {(fit if several else test).split} split alone"
        )
    return found[0], found[1]
