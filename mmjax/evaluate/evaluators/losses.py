"""The validation loss: the training loss on a split that isn't trained on."""

from dataclasses import dataclass

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When


@dataclass(frozen=True)
class Losses(Evaluator):
    """The validation loss: all objectives on batches of `split`, made as training makes its own, without dropout.

    The batches are of the experiment's `batch_size`, whole, augmented and masked at random by `seed`, so that the
    numbers are comparable with the training log: the difference is the generalisation gap. batches: their number; None:
    as many as hold each example about once (on a small split more batches draw each example in more ways). without:
    inputs that are taken for missing in every example: beside a second one without any, `Losses(name="alone",
    without=("video",))` tells what masked words lose by the video, for the same words are hidden. An objective that has
    no example then gives no numbers.

    Metrics, means over batches: `<name>/loss`, weighted as in training, and `<name>/<objective>/<metric>`, such as
    `losses/masked/accuracy`.
    """

    split: str = "validation"
    batches: int | None = None
    seed: int = 0
    when: When = "always"
    name: str = "losses"
    inputs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    reads_embeddings = False

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError for batches below 1, an input that isn't there, and where there are embeddings but no
        model."""
        if self.batches is not None and self.batches < 1:
            raise UserError(f"Losses(batches={self.batches}) must be at least 1, or None: each example about once")
        if embedded.losses is None:
            raise UserError("Losses need the model: embeddings alone don't tell them. Evaluate the model itself")
        found = embedded.losses(count=self.batches, seed=self.seed, without=self.without)
        return {f"{self.name}/{metric}": value for metric, value in found.items()}
