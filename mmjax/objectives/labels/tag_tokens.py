"""Tags of words: a class for each token of a text, with what a fusion has read beside it or without (NER)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.beside import check_beside, own_part, read_beside
from mmjax.objectives.contract import Context, Fused, View, entry, valid
from mmjax.objectives.head import linear_head
from mmjax.objectives.token_errors import TokenErrors, averaged


class TagTokens(nn.Module):
    """Predicts the tag of each word at its first token (BERT: Devlin et al. 2018, arXiv:1810.04805, section 5.3):
    cross-entropy, averaged over all tagged tokens of the batch.

    The batch's `<modality>_tags`, int32 `[B, L]`, has the class of each token that counts and -1 elsewhere
    (`mmjax.data.TokenizeTagged`). Metrics, besides the loss: `accuracy`, over the same tokens.

    Attributes:
        classes: number of tags.
        modality: the texts.
        fusion: one of the experiment's fusions, whose tokens of the text are read; None: the tower's.
        beside: what the fusion reads beside the text: `("image",)`. An example that lacks it counts.
    """

    classes: int
    modality: str = "text"
    fusion: str | None = None
    beside: tuple[str, ...] = ()

    @property
    def tags(self) -> str:
        """The batch's entry of the tags."""
        return f"{self.modality}_tags"

    def views(self) -> tuple[View | Fused, ...]:
        words = View(self.modality)
        return (words,) if self.fusion is None else (Fused(self.fusion, read_beside(words, self.beside)),)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where the data has no tags, or nothing is there for the fusion to read."""
        check_beside(path, self)
        if "tags" not in inputs[self.modality].labels:
            raise UserError(
                f"{path} needs the tags of the words, {self.tags}, and the chain of {self.modality!r} gives "
                "none: end it in TokenizeTagged(...)"
            )

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> TokenErrors:
        logits = self.predict(encoded, batch, context)
        tags: Int[Array, "b l"] = entry(batch, self.tags)
        counts = tags >= 0
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(tags, 0))
        hits = counts & (jnp.argmax(logits, axis=-1) == tags)
        return TokenErrors(jnp.sum(jnp.where(counts, losses, 0), axis=1), hits.sum(axis=1), counts.sum(axis=1))

    @nn.compact
    def predict(
        self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context
    ) -> Float[Array, "b l {self.classes}"]:
        """The logits of each token's tags."""
        view = own_part(self, encoded)
        return linear_head(view.tokens[:, view.prefix :], self.classes, "tags")

    def counted(self, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
        """A mask of the texts with a tagged word."""
        return valid(batch, self.modality) & jnp.any(entry(batch, self.tags) >= 0, axis=1)

    def batch_loss(self, outputs: TokenErrors, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        return averaged(outputs, self.counted(batch))
