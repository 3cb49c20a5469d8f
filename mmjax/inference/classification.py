"""The result of a zero-shot classification: a probability for each label, and the logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mmjax.errors import UserError
from mmjax.evaluate.evaluators.class_lists import checked_templates

SHOWN = 5  # labels of an input that are printed
SHOWN_INPUTS = 10

Top = list[tuple[str, float]]  # labels with their probabilities, the likeliest first


@dataclass(frozen=True)
class Classification:
    """A probability for each label, of one input `[K]` or of several `[N, K]`.

    logits: cosines to the labels' vectors, with the objective's learned scale and bias.

    Raises:
        UserError: a logit isn't finite, which would make the first label the likeliest.
    """

    labels: tuple[str, ...]
    probabilities: Float[np.ndarray, "*n k"]
    logits: Float[np.ndarray, "*n k"]

    def __post_init__(self) -> None:
        bad = ~np.isfinite(np.atleast_2d(self.logits))
        if not bad.any():
            return
        labels = [label for label, column in zip(self.labels, bad.T, strict=True) if column.all()]
        inputs = np.flatnonzero(bad.any(axis=1))
        if len(labels) == len(self.labels):
            what = f"input {inputs[0]}" if len(inputs) < len(bad) else "every input"
        else:
            what = f"the label {labels[0]!r}" if labels else f"input {inputs[0]}"
        raise UserError(f"classify(): the scores of {what} aren't finite (NaN), as of weights that hold NaN")

    @property
    def best(self) -> str | list[str]:
        """The likeliest label; for several inputs, a list with the likeliest of each."""
        found = self.logits.argmax(axis=-1)
        return self.labels[found] if found.ndim == 0 else [self.labels[i] for i in found]

    def top(self, k: int = SHOWN) -> Top | list[Top]:
        """The k likeliest labels with their probabilities, `[("cat", 0.93), ...]`; for several inputs a list of such
        lists.
        """
        if self.logits.ndim == 2:
            return [self[i]._top(k) for i in range(len(self.logits))]
        return self._top(k)

    def _top(self, k: int) -> Top:
        """The k likeliest labels of one input."""
        order = np.argsort(-self.logits, kind="stable")[:k]
        return [(self.labels[i], float(self.probabilities[i])) for i in order]

    def __len__(self) -> int:
        return len(self.logits) if self.logits.ndim == 2 else 1

    def __getitem__(self, place: int) -> "Classification":
        """The classification of one input of several."""
        if self.logits.ndim != 2:
            raise TypeError("this classification is of one input alone: .best, .top() and .probabilities are its own")
        return Classification(self.labels, self.probabilities[place], self.logits[place])

    def __repr__(self) -> str:
        if self.logits.ndim == 1:
            return "\n".join(f"{probability:6.3f}  {label}" for label, probability in self._top(SHOWN))
        rows = [
            f"{i:4}  " + ", ".join(f"{label} {probability:.3f}" for label, probability in self[i]._top(3))
            for i in range(min(len(self), SHOWN_INPUTS))
        ]
        more = [f"and {len(self) - SHOWN_INPUTS} more"] if len(self) > SHOWN_INPUTS else []
        return "\n".join(rows + more)


def prompts(
    labels: Sequence[str] | Mapping[str, str], templates: str | Sequence[str]
) -> tuple[tuple[str, ...], list[str], tuple[str, ...]]:
    """Checks labels and templates; returns the labels, the word of each label in a prompt, and the templates.

    Raises:
        UserError: no labels, a label that comes twice or is no string, or a template without a place for one.
    """
    if isinstance(labels, str):
        raise UserError(f"labels={labels!r} is one string: give a list of labels")
    names = tuple(labels)
    words = list(labels.values()) if isinstance(labels, Mapping) else list(names)
    if not names:
        raise UserError("labels=[]: give at least one label")
    for value in (*names, *words):
        if not isinstance(value, str):
            raise UserError(f"labels: {value!r} is no string")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"labels: {twice[0]!r} comes {names.count(twice[0])} times")
    if not templates:
        raise UserError(f"templates={templates!r}: give at least one, '{{}}' for the label alone")
    return names, words, checked_templates(templates, "templates")
