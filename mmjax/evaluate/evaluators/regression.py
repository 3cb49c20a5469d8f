"""Errors of numbers that a model predicts."""

from dataclasses import dataclass

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics.regression import regression_scores


@dataclass(frozen=True)
class RegressionErrors(Evaluator):
    """Measures how far the numbers of a `Regress` objective are from the labels, in the labels' units.

    objective: its name in the experiment.

    Examples without the label, or without any input, are left out. Metrics: `<name>/<objective>/mae`, `rmse`, `r2`
    (`regression_scores`) and `examples`.
    """

    objective: str
    split: str = "validation"
    when: When = "always"
    name: str = "regression"
    inputs: tuple[str, ...] = ()
    reads_embeddings = False

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there is no model, or no such objective, or it predicts no numbers."""
        predicted = embedded.model("RegressionErrors", "tell no number")(self.objective)
        if predicted.loss != "regression":
            raise UserError(
                f"RegressionErrors(objective={self.objective!r}) is a classifier: judge it by Accuracy, or name a "
                "Regress objective"
            )
        if not len(predicted.logits):
            return {}
        scores = regression_scores(predicted.logits, predicted.label) | {"examples": float(len(predicted.logits))}
        return {f"{self.name}/{self.objective}/{name}": value for name, value in scores.items()}

    def possible(self, modalities: object, towers: object, prompts: bool) -> bool:
        """True: which objective there is, the model says when it is asked."""
        return True
