"""The validation loss: the training loss on a split that isn't trained on."""

from dataclasses import dataclass

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When


@dataclass(frozen=True)
class Losses(Evaluator):
    """The validation loss: all objectives on batches of `split`, made as training makes its own, without dropout.

    The batches are of the experiment's `batch_size`, whole, augmented and masked at random by `seed`, so that the
    numbers are comparable with the training log: the difference is the generalisation gap. batches: their number; None:
    as many as hold each example about once (on a small split more batches draw each example in more ways).

    Metrics, means over batches: `<name>/loss`, weighted as in training, and `<name>/<objective>/<metric>`, such as
    `losses/masked/accuracy`.
    """

    split: str = "validation"
    batches: int | None = None
    seed: int = 0
    when: When = "always"
    name: str = "losses"
    inputs: tuple[str, ...] = ()
    reads_embeddings = False

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError for batches below 1, and where there are embeddings but no model."""
        if self.batches is not None and self.batches < 1:
            raise UserError(f"Losses(batches={self.batches}) must be at least 1, or None: each example about once")
        if embedded.losses is None:
            raise UserError("Losses need the model: embeddings alone don't tell them. Evaluate the model itself")
        found = embedded.losses(count=self.batches, seed=self.seed)
        return {f"{self.name}/{metric}": value for metric, value in found.items()}
