"""Selects the usable examples of the split to learn from and of the one to judge, in the same classes."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.decisions import Classified
from mmjax.evaluate.metrics.chance import of_classes, of_lists
from mmjax.evaluate.metrics.items import distinct
from mmjax.evaluate.metrics.labels import (
    Metrics,
    counted,
    is_several,
    labelled,
    modality_of,
    not_finite,
    over_folds,
    values_of,
)


@dataclass(frozen=True)
class Part:
    """Examples that have the modality and a label; in a multi-label column `several` holds their classes.

    number: an example's class, below `classes`. rows: the examples' places in their split.
    values: the classes' values in the column.
    """

    vectors: Float[np.ndarray, "n e"]
    number: Int[np.ndarray, " n"]
    classes: int
    several: Bool[np.ndarray, "n c"] | None = None
    rows: Int[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0, np.int64))
    values: tuple[Hashable, ...] = ()

    def take(self, rows: np.ndarray) -> "Part":
        """Only these examples, by number or as bool `[n]`."""
        several = None if self.several is None else self.several[rows]
        return Part(self.vectors[rows], self.number[rows], self.classes, several, self.rows[rows], self.values)


class Learner(Protocol):
    """The fields of an evaluator that learns to classify."""

    @property
    def label(self) -> str: ...
    @property
    def fit_split(self) -> str | None: ...
    @property
    def modality(self) -> str: ...
    @property
    def folds(self) -> str | None: ...
    @property
    def name(self) -> str: ...


Judge = Callable[[Part, Part], tuple[Metrics, Int[np.ndarray, " n"] | None]]


def judged(evaluator: Learner, embedded: Embedded, judge: Judge) -> tuple[Metrics, list[Classified]]:
    """Applies `judge(known, asked)` to the split or over its folds; returns the metrics, and the decisions of all
    folds.

    judge: returns metrics, and the class, as a number, that each of `asked` was assigned; None for lists.
    """
    who = type(evaluator).__name__
    if names := embedded.class_names.get(evaluator.label):
        try:
            labelled(embedded.column(evaluator.label, f"{who}(label=...)"), names, ordered=True)
        except UserError as error:
            raise UserError(f"{who}(label={evaluator.label!r}): {error}") from None
    decided: list[tuple[np.ndarray, list[Hashable], list[Hashable]]] = []  # rows, true classes, assigned classes

    def on(fit: Embedded, test: Embedded, places: Int[np.ndarray, " k"] | None = None) -> Metrics:
        known, asked = fit_and_test(fit, test, evaluator.label, evaluator.modality, who)
        if not len(asked.vectors):
            return {}
        metrics, found = judge(known, asked)
        if metrics:
            metrics = metrics | _counts(evaluator, known, asked, test)
        if found is not None:
            rows = asked.rows if places is None else places[asked.rows]
            truth, taken = ([asked.values[i] for i in numbers.tolist()] for numbers in (asked.number, found))
            decided.append((rows, truth, taken))
        return metrics

    if evaluator.folds is not None:
        metrics = over_folds(embedded, evaluator.folds, who, on)
    else:
        metrics = on(learning(embedded, evaluator.fit_split, who), embedded)
    if not decided:
        return metrics, []
    rows = np.concatenate([part[0] for part in decided])
    truth, found = ([value for part in decided for value in part[i]] for i in (1, 2))
    values = values_of([*truth, *found])
    number = {value: i for i, value in enumerate(values)}
    truth, found = (np.array([number[value] for value in side], np.int64) for side in (truth, found))
    classes = tuple(names[v] if names and isinstance(v, int) and 0 <= v < len(names) else v for v in values)
    order = np.argsort(rows, kind="stable")
    name = f"{evaluator.name}/{evaluator.label}"
    return metrics, [Classified(name, evaluator.label, classes, rows[order], truth[order], found[order])]


def _counts(evaluator: Learner, known: Part, asked: Part, test: Embedded) -> Metrics:
    """The counts of what was judged. Random answers are drawn among the classes that were learnt."""
    prefix = f"{evaluator.name}/{evaluator.label}"
    left_out = int(distinct(test, evaluator.modality, evaluator.label).sum()) - len(asked.rows)
    if asked.several is not None:
        chance, classes = of_lists(asked.several), asked.classes
    else:
        classes = len(np.unique(known.number))
        chance = of_classes(classes)
    return counted(prefix, len(asked.rows), classes, left_out, chance, not_finite(asked.vectors))


def learning(embedded: Embedded, split: str | None, who: str) -> Embedded:
    """The split to learn from. Raises UserError where the evaluator names none."""
    if embedded.fit is None:
        raise UserError(f"{who}(fit_split={split!r}): name the split that it learns from, 'train' say")
    return embedded.fit


def fit_and_test(fit: Embedded, test: Embedded, label: str, modality: str, who: str) -> tuple[Part, Part]:
    """The examples to learn from and those to judge, each picture once. Classes are the values of both; bad embeddings
    (NaN) aren't learnt from.

    Raises:
        UserError: the modality isn't embedded, or there is no example to learn from.
    """
    columns = [split.column(label, f"{who}(label=...)") for split in (fit, test)]
    classes = values_of([*columns[0], *columns[1]])
    several = is_several(columns[0])
    found = []
    for split, column, teaches in zip((fit, test), columns, (True, False), strict=True):
        vectors = modality_of(split, modality, who).astype(np.float32)
        labels = labelled(column, classes)
        usable = distinct(split, modality, label) & labels.known
        if teaches:
            usable &= np.isfinite(vectors).all(axis=1)
        rows = np.flatnonzero(usable)
        which = labels.several[rows] if labels.several is not None else None
        found.append(Part(vectors[rows], labels.number[rows], len(classes), which, rows, classes))
    if not len(found[0].vectors):
        raise UserError(f"{who} learns from the {fit.split} split, which has no {modality} with a {label!r}")
    if several != is_several(columns[1]) and len(found[1].vectors):
        raise UserError(
            f"{who}(label={label!r}): the column holds lists in the {(fit if several else test).split} split alone"
        )
    return found[0], found[1]
