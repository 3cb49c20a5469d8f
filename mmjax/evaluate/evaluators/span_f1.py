"""Scores of answers that a model finds in texts."""

from dataclasses import dataclass

import numpy as np

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics.spans import best_spans, span_scores


@dataclass(frozen=True)
class SpanF1(Evaluator):
    """Measures the answers that a `Span` objective finds, as SQuAD does, by tokens and not by words.

    objective: its name in the experiment. longest: the most tokens of an answer.

    Texts whose answer isn't known, or was cut off, are left out. Metrics: `<name>/<objective>/exact`, `f1`
    (`span_scores`) and `examples`.
    """

    objective: str
    longest: int = 30
    split: str = "validation"
    when: When = "always"
    name: str = "spans"
    inputs: tuple[str, ...] = ()
    reads_embeddings = False

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there is no model, or no such objective, or it finds no spans."""
        predicted = embedded.model("SpanF1", "find no answer")(self.objective)
        if predicted.loss != "span":
            raise UserError(f"SpanF1(objective={self.objective!r}) finds no spans: name a Span objective")
        known = (predicted.label >= 0).all(axis=1)
        if not known.any():
            return {}
        found = best_spans(predicted.logits[known], self.longest)
        scores = span_scores(found, predicted.label[known]) | {"examples": float(np.sum(known))}
        return {f"{self.name}/{self.objective}/{name}": value for name, value in scores.items()}

    def possible(self, modalities: object, towers: object, prompts: bool) -> bool:
        """True: which objective there is, the model says when it is asked."""
        return True
