"""Accuracy of a trained classifier: with all of its inputs, without each, with each disturbed, and by group."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.disturbances import disturbance_name
from mmjax.evaluate.metrics.confidence import expected_calibration_error
from mmjax.evaluate.metrics.decided import (
    class_recalls,
    f1_macro,
    f1_micro,
    hits_of_classes,
    hits_of_sets,
    top_k_accuracy,
)
from mmjax.evaluate.metrics.groups import gap, grouped_rows
from mmjax.runtime.counts import EXAMPLES

TOP = (1, 5)
MAIN = ("top1", "f1")  # what is told of other inputs and of groups: the first that there is


@dataclass(frozen=True)
class Accuracy(Evaluator):
    """Measures how often a `Classify` objective is right on a split, by example and without augmentation.

    objective: its name in the experiment. without_each: whether it is judged again with each of its inputs taken for
    missing in every example (a table of what each is worth; each costs another pass). disturb: how it is judged again
    with an input disturbed in every example, `(("image", 0.1), ("audio", 10), ("text", 0.2))`: a picture has Gaussian
    noise of that standard deviation, in parts of the range of pixels; a sound white noise at that signal-to-noise ratio
    in dB; of a text that share of tokens is replaced by others. Noise is drawn by example, the same for any amount.
    by: a column by whose values it is told too, for what a model does worse on some than on others.

    Examples without the label, or without any input, are left out. Metrics, for one class an example: `<name>/
    <objective>/top1`, `top5` (of more than five classes), `recall` (the classes' mean), `f1` (macro), `calibration`
    (expected calibration error, 15 bins), `examples`, and `chance`, the share of the commonest class; for several
    classes, by a probability of a half: `f1` (macro), `f1_micro` and `examples`. Then `<name>/<objective>/without
    <input>/top1` (`f1` of several), `disturbed <input> <unit>=<amount>/top1`, and `where <by>=<value>/top1`, with
    `examples`, and `gap over <by>/top1`, the best group's less the worst's.
    """

    objective: str
    split: str = "validation"
    without_each: bool = False
    when: When = "always"
    name: str = "accuracy"
    inputs: tuple[str, ...] = ()
    disturb: tuple[tuple[str, float], ...] = ()
    by: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.by is None else (self.by,)

    @property
    def reads_embeddings(self) -> bool:
        """True where there are groups: columns come with the embeddings."""
        return self.by is not None

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there are embeddings but no model, no such objective, input or column, or an amount
        isn't allowed."""
        model, prefix = embedded.model("Accuracy", "don't tell a label"), f"{self.name}/{self.objective}"
        read = model.inputs(self.objective)
        kinds = {name: kind for name, kind in model.kinds.items() if name in read}
        named = {disturbance_name(each, kinds, "Accuracy"): each for each in self.disturb}
        predicted = model(self.objective)
        whole = measured(predicted)
        found = {f"{prefix}/{name}": value for name, value in whole.items()}
        main = next((name for name in MAIN if name in whole), None)
        if main is None:
            return found
        for name in read if self.without_each else ():
            less = measured(model(self.objective, without=(name,)))
            found |= {f"{prefix}/without {name}/{main}": less[main]} if main in less else {}
        for name, each in named.items():
            found[f"{prefix}/{name}/{main}"] = measured(model(self.objective, disturb=each))[main]
        if self.by is None:
            return found
        groups: dict[str, float] = {}
        for value, rows in grouped_rows(embedded.column(self.by, "Accuracy(by=...)"), predicted.rows).items():
            mine = measured(predicted._replace(logits=predicted.logits[rows], label=predicted.label[rows]))
            groups |= {value: mine[main]} if main in mine else {}
            found |= {
                f"{prefix}/where {self.by}={value}/{name}": mine[name] for name in (main, EXAMPLES) if name in mine
            }
        return found | gap(f"{prefix}/gap over {self.by}/{main}", groups)

    def possible(self, modalities: object, towers: object, prompts: bool) -> bool:
        """True: which objective there is, the model says when it is asked."""
        return True


def measured(predicted: Any) -> dict[str, float]:
    """The metrics of `Accuracy` by name, without those that nothing tells. predicted: `split_predictions.Predicted`."""
    from scipy.special import expit, softmax

    if predicted.loss in ("regression", "span"):
        raise UserError("Accuracy judges classes: numbers are judged by RegressionErrors, spans by SpanF1")
    count = len(predicted.logits)
    if not count:
        return {}
    found: dict[str, float | None] = {"examples": float(count)}
    if predicted.label.ndim == 1:
        right, taken = predicted.label.astype(np.int64), predicted.logits.argmax(axis=1)
        classes = predicted.logits.shape[1]
        matrix = np.zeros((classes, classes), np.int64)
        np.add.at(matrix, (right, taken), 1)
        hits, recalls = hits_of_classes(matrix), class_recalls(hits_of_classes(matrix))
        shares = softmax(predicted.logits.astype(np.float64), axis=1)
        found |= {f"top{k}": top_k_accuracy(predicted.logits, right, k) for k in TOP if k < classes}
        found |= {
            "recall": float(np.nanmean(recalls)),
            "f1": f1_macro(hits),
            "calibration": expected_calibration_error(shares.max(axis=1), taken == right),
            "chance": float(np.bincount(right).max() / count),
        }
    else:
        shares = expit(predicted.logits) if predicted.loss == "sigmoid" else softmax(predicted.logits, axis=1)
        hits = hits_of_sets(predicted.label >= 0.5, shares > 0.5)
        found |= {"f1": f1_macro(hits), "f1_micro": f1_micro(hits)}
    return {name: value for name, value in found.items() if value is not None}
