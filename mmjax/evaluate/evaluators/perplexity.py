"""Perplexity of the texts whose words a model predicts."""

from dataclasses import dataclass

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics.written.perplexity import language_scores


@dataclass(frozen=True)
class Perplexity(Evaluator):
    """Measures how well a `Caption` objective predicts the next words of a split, each of them once.

    objective: its name in the experiment. Words are its tokens; where the texts' chain tells the bytes of each row
    (`mmjax.data.TokenRows`), bits are counted by byte too, which compares models of different tokenizers.

    Metrics: `<name>/<objective>/perplexity`, `bits_per_token`, `bits_per_byte`, `word_accuracy` and `words`.
    """

    objective: str
    split: str = "validation"
    when: When = "always"
    name: str = "perplexity"
    inputs: tuple[str, ...] = ()
    reads_embeddings = False

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there is no model or objective, or the split has no word."""
        found = embedded.model("Perplexity", "predict no words").words(self.objective)
        if not found.words:
            raise UserError(
                f"Perplexity(objective={self.objective!r}): the {self.split} split has no word that is predicted"
            )
        scores = language_scores(found.nats, found.words, found.text_bytes or None)
        scores |= {"word_accuracy": found.hits / found.words, "words": float(found.words)}
        return {f"{self.name}/{self.objective}/{metric}": value for metric, value in scores.items()}
