"""Accuracy of answers to questions, against what several people answered."""

from dataclasses import dataclass

import numpy as np

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics.vqa_accuracy import vqa_accuracy


@dataclass(frozen=True)
class VqaAccuracy(Evaluator):
    """Measures the accuracy of answers that a `Classify` objective chooses, as VQA counts it (`vqa_accuracy`).

    objective: its name in the experiment. answers: the column that holds the list of people's answers, ten in VQA.
    kind: a column by whose values the accuracy is told too (VQA's yes/no, number, other); None: there is none.

    Every example that has an input and people's answers counts, also where none of these is among the classes. Metrics:
    `<name>/<objective>/vqa_accuracy`, `vqa_accuracy/<kind>=<value>` and `examples`.
    """

    objective: str
    answers: str = "answers"
    kind: str | None = None
    split: str = "validation"
    when: When = "always"
    name: str = "vqa"
    inputs: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.answers,) if self.kind is None else (self.answers, self.kind)

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there is no model, objective or column, or the classes have no names."""
        predicted = embedded.model("VqaAccuracy", "answer nothing")(self.objective, labelled=False)
        if not predicted.names:
            raise UserError(
                f"VqaAccuracy reads answers, and the label of {self.objective!r} has numbers alone: give its chain the "
                "classes' names"
            )
        given = embedded.column(self.answers, "VqaAccuracy(answers=...)")
        kinds = [None] * len(given) if self.kind is None else embedded.column(self.kind, "VqaAccuracy(kind=...)")
        found = predicted.logits.argmax(axis=-1)
        scores: dict[str, list[float]] = {"vqa_accuracy": []}
        for row, number in zip(predicted.rows, found, strict=True):
            if given[row] is None or not len(given[row]):
                continue
            score = vqa_accuracy(predicted.names[number], list(given[row]))
            scores["vqa_accuracy"].append(score)
            if kinds[row] is not None:
                scores.setdefault(f"vqa_accuracy/{self.kind}={kinds[row]}", []).append(score)
        prefix, count = f"{self.name}/{self.objective}", len(scores["vqa_accuracy"])
        return {f"{prefix}/{name}": float(np.mean(each)) for name, each in scores.items() if each} | (
            {f"{prefix}/examples": float(count)} if count else {}
        )
