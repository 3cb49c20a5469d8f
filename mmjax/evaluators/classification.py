"""What classifiers share: the classes of a column, shares found, average precision, folds."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.errors import UserError, nearest
from mmjax.evaluators.embedded import Embedded
from mmjax.evaluators.ranking import TIE

Metrics = dict[str, float]


@dataclass(frozen=True)
class Labels:
    """The classes of N examples, as numbers.

    number: of the example's class, -1 where it has none (missing, or not among the classes).
    several: for a column of lists, which classes each example has; `known` tells an empty list from a missing one.
    """

    classes: tuple[Hashable, ...]
    number: Int[np.ndarray, " n"]
    known: Bool[np.ndarray, " n"]
    several: Bool[np.ndarray, "n c"] | None = None


def is_several(values: Sequence[Any]) -> bool:
    """Whether a column holds lists: an example may be of several classes."""
    return any(isinstance(value, (list, tuple, np.ndarray)) for value in values)


def values_of(column: Sequence[Any]) -> tuple[Hashable, ...]:
    """The different values of a column, of its lists those in them, sorted; None is none."""
    found = {item for value in column for item in _items(value)}
    return tuple(sorted(found, key=lambda value: (isinstance(value, str), value)))


def labelled(column: Sequence[Any], classes: Sequence[Hashable], ordered: bool = False) -> Labels:
    """The column in terms of `classes`.

    ordered: the classes are in the order of the data's numbers, so a whole number (of TFDS's ClassLabel, or as a table
    writes it) is a place among them.
    """
    number: dict[Hashable, int] = {}
    for i, value in enumerate(classes):
        number.setdefault(value, i)  # of two classes of one name the first

    def place(value: Hashable) -> int:
        if value in number:
            return number[value]
        if ordered and (isinstance(value, int) or (isinstance(value, str) and value.isdecimal())):
            return int(value) if 0 <= int(value) < len(classes) else -1
        return -1

    if not is_several(column):
        places = np.array([-1 if value is None else place(value) for value in column], np.int64)
        return Labels(tuple(classes), places, places >= 0)
    several = np.zeros((len(column), len(classes)), bool)
    for row, value in enumerate(column):
        for item in _items(value):
            if (i := place(item)) >= 0:
                several[row, i] = True
    known = np.array([value is not None for value in column], bool)
    return Labels(tuple(classes), np.full(len(column), -1), known, several)


def _items(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value]


def places(scores: Float[np.ndarray, "n c"], right: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The place of the right class among all, from 1; ties and NaN count against the model."""
    best = scores[np.arange(len(scores)), right][:, None]
    return (~(scores < best)).sum(axis=1)


def found_metrics(found: Int[np.ndarray, " n"], right: Int[np.ndarray, " n"], prefix: str) -> Metrics:
    """`top1`, `top5`, and `recall`: the mean over classes of the share found (top 1), which big ones can't dominate."""
    first = found == 1
    recalls = [first[right == i].mean() for i in np.unique(right)]
    return {
        f"{prefix}/top1": float(first.mean()),
        f"{prefix}/top5": float((found <= 5).mean()),
        f"{prefix}/recall": float(np.mean(recalls)),
    }


def mean_average_precision(
    scores: Float[np.ndarray, "n c"], right: Bool[np.ndarray, "n c"], tie: float = TIE
) -> float | None:
    """The mean over classes that have an example of their average precision; None where none has.

    Average precision is the mean, over a class's examples, of the share of its examples among all that score as much
    or more. Ties count against the model: a wrong example that scores as much as a right one (within `tie`), or NaN,
    stands before it; a right one that is NaN stands last.
    """
    found = [average_precision(scores[:, i], right[:, i], tie) for i in np.flatnonzero(right.any(axis=0))]
    return float(np.mean(found)) if found else None


def average_precision(scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], tie: float = TIE) -> float:
    """Of one class; see `mean_average_precision`. At least one example is right."""
    mine = np.nan_to_num(scores[right].astype(np.float64), nan=-np.inf)
    mine = -np.sort(-mine)
    others = np.sort(np.nan_to_num(scores[~right].astype(np.float64), nan=np.inf))
    before = len(others) - np.searchsorted(others, mine - tie)
    place = np.arange(1, len(mine) + 1)
    return float(np.mean(place / (place + before)))


def over_folds(
    embedded: Embedded, column: str, who: str, judge: Callable[[Embedded, Embedded, Int[np.ndarray, " k"]], Metrics]
) -> Metrics:
    """`judge(fit, test, rows)` for each value of a column, testing on it and learning from all others.

    rows: where the examples of `test` stand in `embedded`.
    Gives the mean over folds under each metric's own name, and each fold's under `<name>/fold=<value>`.
    """
    values = embedded.column(column, f"{who}(folds=...)")
    folds = values_of(values)
    if len(folds) < 2:
        raise UserError(f"{who}(folds={column!r}) needs two folds at least, but the column holds {list(folds)}")
    numbers = labelled(values, folds).number
    each = {}
    for i, fold in enumerate(folds):
        rows = np.flatnonzero(numbers == i)
        each[fold] = judge(embedded.take(np.flatnonzero((numbers != i) & (numbers >= 0))), embedded.take(rows), rows)
    names = list(dict.fromkeys(name for metrics in each.values() for name in metrics))
    means = {name: float(np.mean([m[name] for m in each.values() if name in m])) for name in names}
    return means | {f"{name}/fold={fold}": value for fold, metrics in each.items() for name, value in metrics.items()}


def modality_of(embedded: Embedded, modality: str, who: str) -> Float[np.ndarray, "n e"]:
    """The embeddings of a modality. Raises UserError where the experiment has none such."""
    if modality not in embedded.embeddings:
        known = ", ".join(embedded.embeddings)
        raise UserError(
            f"{who}(modality={modality!r}): the experiment embeds {known}{nearest(modality, embedded.embeddings)}"
        )
    return embedded.embeddings[modality]
