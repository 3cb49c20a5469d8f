"""Scores of entities that a model has tagged in texts."""

from dataclasses import dataclass

import numpy as np

from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics.entities import entity_scores, scored_tags


@dataclass(frozen=True)
class TagF1(Evaluator):
    """Measures precision, recall and F1 of entities by the tags that a `TagTokens` objective gives (`entity_scores`).

    objective: its name in the experiment. strict: whether an entity must begin with `B-`.

    Words beyond the text's length are not judged. Metrics: `<name>/<objective>/precision`, `recall`, `f1` and
    `examples`.
    """

    objective: str
    strict: bool = False
    split: str = "validation"
    when: When = "always"
    name: str = "tags"
    inputs: tuple[str, ...] = ()
    reads_embeddings = False

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there is no model or objective, or seqeval isn't installed."""
        predicted = embedded.model("TagF1", "tag nothing")(self.objective)
        count = len(predicted.logits)
        if not count:
            return {}
        tags = scored_tags(predicted.label, np.asarray(predicted.logits.argmax(axis=-1)), predicted.names)
        prefix, scores = f"{self.name}/{self.objective}", entity_scores(*tags, strict=self.strict)
        return {f"{prefix}/{name}": value for name, value in scores.items()} | {f"{prefix}/examples": float(count)}
