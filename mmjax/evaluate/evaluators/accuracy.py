"""Accuracy of a trained classifier, with all of its inputs and without each."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics.confidence import expected_calibration_error
from mmjax.evaluate.metrics.decided import (
    class_recalls,
    f1_macro,
    f1_micro,
    hits_of_classes,
    hits_of_sets,
    top_k_accuracy,
)

TOP = (1, 5)


@dataclass(frozen=True)
class Accuracy(Evaluator):
    """Measures how often a `Classify` objective is right on a split, by example and without augmentation.

    objective: its name in the experiment. without_each: whether it is judged again with each of its inputs taken for
    missing in every example (a table of what each is worth; each costs another pass).

    Examples without the label, or without any input, are left out. Metrics, for one class an example: `<name>/
    <objective>/top1`, `top5` (of more than five classes), `recall` (the classes' mean), `f1` (macro), `calibration`
    (expected calibration error, 15 bins), `examples`, and `chance`, the share of the commonest class; for several
    classes, by a probability of a half: `f1` (macro), `f1_micro` and `examples`. Then `<name>/<objective>/without
    <input>/top1` (`f1` of several).
    """

    objective: str
    split: str = "validation"
    without_each: bool = False
    when: When = "always"
    name: str = "accuracy"
    inputs: tuple[str, ...] = ()
    reads_embeddings = False

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there are embeddings but no model, or no such objective."""
        if embedded.predictions is None:
            raise UserError("Accuracy needs the model: embeddings alone don't tell a label. Evaluate the model itself")
        prefix = f"{self.name}/{self.objective}"
        found = {f"{prefix}/{name}": value for name, value in measured(embedded.predictions(self.objective)).items()}
        for name in embedded.predictions.inputs(self.objective) if self.without_each else ():
            less = measured(embedded.predictions(self.objective, without=(name,)))
            main = "top1" if "top1" in less else "f1"
            if main in less:
                found[f"{prefix}/without {name}/{main}"] = less[main]
        return found

    def possible(self, modalities: object, towers: object, prompts: bool) -> bool:
        """True: which objective there is, the model says when it is asked."""
        return True


def measured(predicted: Any) -> dict[str, float]:
    """The metrics of `Accuracy` by name, without those that nothing tells. predicted: `split_predictions.Predicted`."""
    from scipy.special import expit, softmax

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
