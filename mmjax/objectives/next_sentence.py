"""Next-sentence prediction: does the second segment of a text follow the first one?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import Context, View, entry, selected, valid
from mmjax.objectives.encoded import Encoded
from mmjax.objectives.head import linear_head
from mmjax.objectives.masking import Corrupt
from mmjax.objectives.numerics import at_least_fp32, weighted_mean

FOLLOWS, RANDOM = 0, 1  # the classes, numbered as in BERT's released heads


class Guesses(NamedTuple):
    """The cross-entropy of each pair, and whether the likelier class is the right one."""

    cross_entropy: Float[Array, " b"]
    hit: Bool[Array, " b"]


class NextSentence(nn.Module):
    """Predicts whether the text's second segment follows the first in their document (BERT, arXiv:1810.04805).

    Reads `text_next` (`mmjax.data.SentencePair`), bool `[B]`. Two logits, of "follows" and of "random",
    are a linear map of the embedding: BERT's is the tanh of a projection of [CLS] (`projection_tanh=True`,
    `pooling="cls"`). The loss is their cross-entropy, the mean over valid rows; it starts near ln 2. Metrics, besides
    the loss: `accuracy`.

    Attributes:
        corrupt: the masking of the text; equal to a `MaskedText`'s, it shares the encoding, as in BERT.
            None: the text is whole.
        modality: the texts.
    """

    corrupt: Corrupt | None = None
    modality: str = "text"

    def views(self) -> tuple[View, ...]:
        return (View(self.modality, self.corrupt),)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where the data doesn't tell whether a segment follows."""
        if "next" not in inputs[self.modality].labels:
            raise UserError(
                f"{path} reads whether a segment follows another, and data.transforms doesn't tell: end the chain of "
                f"{self.modality!r} in SentencePair(...), and wrap its source, Documents(...)"
            )

    @nn.compact
    def per_example(self, encoded: Mapping[View, Encoded], batch: Mapping[str, Array], context: Context) -> Guesses:
        right = jnp.where(entry(batch, f"{self.modality}_next"), FOLLOWS, RANDOM)
        embedding = selected(valid(batch, self.modality), encoded[self.views()[0]].embedding)
        logits = linear_head(embedding, 2, "classify", "joint")
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, right)
        return Guesses(cross_entropy, jnp.argmax(logits, axis=-1) == right)

    def batch_loss(self, outputs: Guesses, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        rows = valid(batch, self.modality)
        ones = jnp.ones_like(outputs.cross_entropy)
        accuracy = weighted_mean(at_least_fp32(outputs.hit), ones, rows)
        return weighted_mean(outputs.cross_entropy, ones, rows), {"accuracy": accuracy}
