"""Answers that a model writes, or picks among given ones, against the right ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.evaluators.captions import several
from mmjax.evaluate.evaluators.ranked_answers import column_or_none
from mmjax.evaluate.metrics.vqa_accuracy import normalised_answer, vqa_accuracy
from mmjax.evaluate.samples import SampleLine, WrittenSample, spread


def is_right(answer: str, right: Sequence[str]) -> bool:
    """True if an answer is one of the right ones, all normalised."""
    return normalised_answer(answer) in map(normalised_answer, right)


@dataclass(frozen=True)
class Answers(Evaluator):
    """Has a `Caption` objective answer every example's question, and counts the right answers.

    objective: its name in the experiment. answers: the column with an example's right answer, or a list of what several
    people answered. prompt: the column with the question, behind which the answer is written, and template: what stands
    around it; None: the answer begins a text, for the question is an input that the decoder reads (`Caption.fusion`).
    options: the answers that there are, of which the likeliest is picked, as ALBEF does (Li et al. 2021,
    arXiv:2107.07651), at the cost of reading each of them; none: the answer is written. most: the most words of a text,
    in tokens. kind: a column by whose values the accuracy is told too.

    Metrics: `<name>/<objective>/exact_match`, the share of answers that are one of the right ones, normalised as VQA
    does (`normalised_answer`); `exact_match/<kind>=<value>`; where some examples have several answers the mean
    `vqa_accuracy` of those; `examples`, those that have an answer, a question where there is a prompt, and something of
    what the decoder reads.
    """

    objective: str
    answers: str = "answer"
    prompt: str | None = None
    template: str = "{}"
    options: tuple[str, ...] = ()
    most: int = 16
    kind: str | None = None
    split: str = "validation"
    when: When = "always"
    name: str = "answers"
    inputs: tuple[str, ...] = ()
    reads_embeddings = False

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.answers, *(name for name in (self.prompt, self.kind) if name is not None))

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there is no model, objective or column, the template has no place for the question, or
        no example has an answer."""
        model = embedded.model("Answers", "answer nothing")
        right, found = model.column(self.answers), self._found(model)
        kinds = column_or_none(model, self.kind, len(right))
        hits, shares = {"exact_match": list[float]()}, list[float]()
        for row, text in found.items():
            if not (known := several(right[row])):
                continue
            hit = float(is_right(text, known))
            hits["exact_match"].append(hit)
            if kinds[row] is not None:
                hits.setdefault(f"exact_match/{self.kind}={kinds[row]}", []).append(hit)
            if len(known) > 1:
                shares.append(vqa_accuracy(text, known))
        if not (count := len(hits["exact_match"])):
            raise UserError(
                f"Answers(answers={self.answers!r}): no example of the {embedded.split} split has an answer"
                + (f", and a question in {self.prompt!r}" if self.prompt is not None else "")
            )
        means = {name: float(np.mean(each)) for name, each in hits.items()}
        means |= {"vqa_accuracy": float(np.mean(shares))} if shares else {}
        return {f"{self.name}/{self.objective}/{name}": x for name, x in means.items()} | {
            f"{self.name}/{self.objective}/examples": float(count)
        }

    def samples(self, embedded: Embedded) -> list[WrittenSample]:
        """A few answers, each with its question, and the right one."""
        model = embedded.model("Answers", "answer nothing")
        right = model.column(self.answers)
        asked = column_or_none(model, self.prompt, len(right))
        made = []
        for row, text in spread(list(self._found(model).items())):
            known = several(right[row])
            question = [] if asked[row] is None else [SampleLine("asked", asked[row])]
            said = SampleLine("answered", text, is_right(text, known) if known else None)
            lines = (*question, said, *(SampleLine("right", one) for one in known[:1]))
            made.append(WrittenSample(f"{self.name}/{self.objective}", row, lines))
        return made

    def _found(self, model: Any) -> dict[int, str]:
        """The answer of each row that has a question."""
        if self.prompt is None:
            count = len(model.column(self.answers))
            prompts: Sequence[str | None] = [""] * count
        else:
            if "{}" not in self.template:
                raise UserError(f"Answers(template={self.template!r:.60}) has no {{}}, where the question goes")
            prompts = [
                self.template.replace("{}", text) if isinstance(text, str) and text.strip() else None
                for text in model.column(self.prompt)
            ]
        given = tuple(text or "" for text in prompts)
        if self.options:
            options = [self.options if text is not None else () for text in prompts]
            scores: dict[int, Any] = model.option_scores(self.objective, given, options)
            return {row: self.options[int(np.argmax(some))] for row, some in sorted(scores.items())}
        found = model.written(self.objective, "" if self.prompt is None else given, self.most, None)
        pairs = zip(found.rows, found.texts, strict=True)
        return {row: text.strip() for row, text in pairs if prompts[row] is not None}
