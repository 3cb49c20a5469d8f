"""Metrics of classification: the classes of a column, shares found, average precision, folds."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.errors import UserError, nearest
from mmjax.evaluate.contract import Embedded, Evaluator
from mmjax.evaluate.metrics.ranks import TIE
from mmjax.runtime.counts import CHANCE, CHANCE_OF, CLASSES, EXAMPLES, LEFT_OUT, NOT_FINITE, is_count

Metrics = dict[str, float]
NEVER = 2**62  # the place of a class that is never found


class LabelEvaluator(Evaluator):
    """An evaluator that classifies one modality by a column of labels. Its fields are `label`, `modality` and `folds`,
    a column or None."""

    label: str
    modality: str
    folds: str | None

    @property
    def classifies(self) -> str:
        return self.label

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.label,) if self.folds is None else (self.label, self.folds)

    @property
    def modalities(self) -> tuple[str, ...]:
        return (self.modality,)


@dataclass(frozen=True)
class LabelColumn:
    """The classes of N examples, as numbers.

    number: of the example's class, -1 where it has none (missing, or not among the classes).
    several: for a column of lists, a mask of each example's classes; `known` tells an empty list from a missing one.
    """

    classes: tuple[Hashable, ...]
    number: Int[np.ndarray, " n"]
    known: Bool[np.ndarray, " n"]
    several: Bool[np.ndarray, "n c"] | None = None


def is_several(values: Sequence[Any]) -> bool:
    """True if a column holds lists: an example may have several classes."""
    return any(isinstance(value, (list, tuple, np.ndarray)) for value in values)


def values_of(column: Sequence[Any]) -> tuple[Hashable, ...]:
    """The distinct values of a column, or of its lists, sorted; empty cells are left out."""
    found = {item for value in column for item in _items(value)}
    return tuple(sorted(found, key=lambda value: (isinstance(value, str), value)))


def labelled(column: Sequence[Any], classes: Sequence[Hashable], ordered: bool = False) -> LabelColumn:
    """The column as numbers of `classes`.

    ordered: the classes are in the order of the data's numbers, so a whole number (of TFDS's ClassLabel, or in a table)
    is a place among them; one below 0 means no class.

    Raises:
        UserError: they are ordered, and a number is no place among them.
    """
    number: dict[Hashable, int] = {}
    for i, value in enumerate(classes):
        number.setdefault(value, i)  # the first of two classes of one name

    beyond: set[int] = set()

    def place(value: Hashable) -> int:
        if value in number:
            return number[value]
        if ordered and isinstance(value, float) and value.is_integer():
            value = int(value)  # a table gives whole numbers as floats where one is missing
        if ordered and (isinstance(value, int) or (isinstance(value, str) and value.isdecimal())):
            if int(value) >= len(classes):
                beyond.add(int(value))
            return max(-1, int(value))
        return -1

    placed = [[i for item in _items(value) if (i := place(item)) >= 0] for value in column]
    if beyond:
        found, last = ", ".join(map(str, sorted(beyond)[:5])), len(classes) - 1
        raise UserError(
            f"labels {found}: the {len(classes)} classes that are named have the numbers 0 to {last}. Count the labels "
            "from 0, or write the names themselves into the column"
        )
    if not is_several(column):
        places = np.array([mine[0] if mine else -1 for mine in placed], np.int64)
        return LabelColumn(tuple(classes), places, places >= 0)
    several = np.zeros((len(column), len(classes)), bool)
    for row, mine in enumerate(placed):
        several[row, mine] = True
    known = np.array([not is_missing(value) for value in column], bool)
    return LabelColumn(tuple(classes), np.full(len(column), -1), known, several)


def is_missing(value: Any) -> bool:
    """True if a cell is empty and so no class. Embeddings of older versions may have such cells."""
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def _items(value: Any) -> list[Any]:
    items = list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value]
    return [item for item in items if not is_missing(item)]


def places(scores: Float[np.ndarray, "n c"], right: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The place of the right class by score, from 1; ties and NaN count against the model."""
    best = scores[np.arange(len(scores)), right][:, None]
    return (~(scores < best)).sum(axis=1)


def counted(
    prefix: str, examples: int, classes: int, left_out: int, chance: Mapping[str, float], not_finite: int
) -> Metrics:
    """The counts of what was judged, as metrics.

    examples: judged ones. classes: the number to choose from. left_out: examples without a label. chance: the value of
    each score for random answers, the main score first. not_finite: examples whose embedding is NaN; a metric only if
    there are any.
    """
    found: dict[str, float] = {EXAMPLES: examples, CLASSES: classes, LEFT_OUT: left_out}
    found |= {CHANCE_OF + score if i else CHANCE: value for i, (score, value) in enumerate(chance.items())}
    found |= {NOT_FINITE: not_finite} if not_finite else {}
    return {f"{prefix}/{name}": float(value) for name, value in found.items()}


def not_finite(vectors: Float[np.ndarray, "n e"]) -> int:
    """The number of embeddings with a number that isn't finite."""
    return int((~np.isfinite(vectors).all(axis=1)).sum())


def found_metrics(
    found: Int[np.ndarray, " n"],
    right: Int[np.ndarray, " n"],
    prefix: str,
    vectors: Float[np.ndarray, "n e"] | None = None,
) -> Metrics:
    """The metrics `top1`, `top5`, and `recall`: the mean over classes of the share found (top 1), which large classes
    can't dominate.

    found: the place of the right class, from 1.  vectors: the embeddings; where one isn't finite, its class is never
    found, however few classes there are.
    """
    if vectors is not None:
        found = np.where(np.isfinite(vectors).all(axis=1), found, NEVER)
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
    """The mean, over the classes that have an example, of their average precision; None where none has.

    Average precision is the mean, over a class's examples, of the share of its examples among all that score as much
    or more. Ties count against the model: a wrong example that scores as much as a right one (within `tie`), or NaN,
    ranks before it; a right one that is NaN ranks last.
    """
    found = [average_precision(scores[:, i], right[:, i], tie) for i in np.flatnonzero(right.any(axis=0))]
    return float(np.mean(found)) if found else None


def average_precision(scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], tie: float = TIE) -> float:
    """The average precision of one class; see `mean_average_precision`. At least one example is right."""
    mine = np.nan_to_num(scores[right].astype(np.float64), nan=-np.inf)
    mine = -np.sort(-mine)
    others = np.sort(np.nan_to_num(scores[~right].astype(np.float64), nan=np.inf))
    before = len(others) - np.searchsorted(others, mine - tie)
    place = np.arange(1, len(mine) + 1)
    return float(np.mean(place / (place + before)))


def over_folds(
    embedded: Embedded, column: str, who: str, judge: Callable[[Embedded, Embedded, Int[np.ndarray, " k"]], Metrics]
) -> Metrics:
    """Applies `judge(fit, test, rows)` for each value of a column, testing on it and learning from all others.

    rows: the places of `test`'s examples in `embedded`. Returns the mean over folds under each metric's own name (for
    counts the sum), and each fold's under `<name>/fold=<value>`, except counts.
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
    means = {}
    for name in names:
        mine = [metrics[name] for metrics in each.values() if name in metrics]
        summed = name.rpartition("/")[2] in (EXAMPLES, LEFT_OUT, NOT_FINITE)
        means[name] = float(np.sum(mine) if summed else np.mean(mine))
    single = {
        f"{name}/fold={fold}": value
        for fold, metrics in each.items()
        for name, value in metrics.items()
        if not is_count(name)
    }
    return means | single


def modality_of(embedded: Embedded, modality: str, who: str) -> Float[np.ndarray, "n e"]:
    """The embeddings of a modality. Raises UserError where the experiment has none."""
    if modality not in embedded.embeddings:
        known = ", ".join(embedded.embeddings)
        raise UserError(
            f"{who}(modality={modality!r}): the experiment embeds {known}{nearest(modality, embedded.embeddings)}"
        )
    return embedded.embeddings[modality]
