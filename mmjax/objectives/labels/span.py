"""Spans: the first and the last token of an answer in a text, with what a fusion has read beside it or without."""

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


class Span(nn.Module):
    """Finds an answer in a text by its first and its last token (BERT on SQuAD: Devlin et al. 2018, arXiv:1810.04805,
    sections 4.2 and 4.3): the mean of two cross-entropies, each over all real tokens of the text, averaged over the
    texts.

    The batch's `<modality>_span`, int32 `[B, 2]`, has the places of both tokens; 0 and 0, the [CLS], where the text
    holds no answer; -1 and -1 where nobody knows, which doesn't count (`mmjax.data.TokenizeAnswer`). Metrics, besides
    the loss: `accuracy`, the share of texts in which both tokens have the highest logits.

    Attributes:
        modality: the texts.
        fusion: one of the experiment's fusions, whose tokens of the text are read; None: the tower's.
        beside: what the fusion reads beside the text: `("image",)`. An example that lacks it counts.
    """

    modality: str = "text"
    fusion: str | None = None
    beside: tuple[str, ...] = ()

    @property
    def span(self) -> str:
        """The batch's entry of the answers."""
        return f"{self.modality}_span"

    def views(self) -> tuple[View | Fused, ...]:
        words = View(self.modality)
        return (words,) if self.fusion is None else (Fused(self.fusion, read_beside(words, self.beside)),)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where the data has no answers, or nothing is there for the fusion to read."""
        check_beside(path, self)
        if "span" not in inputs[self.modality].labels:
            raise UserError(
                f"{path} needs the places of the answers, {self.span}, and the chain of {self.modality!r} gives none: "
                "end it in TokenizeAnswer(...)"
            )

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> TokenErrors:
        logits = self.predict(encoded, batch, context)
        span: Int[Array, "b 2"] = entry(batch, self.span)
        there = (span >= 0).all(axis=1)
        ends = jnp.maximum(span, 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(jnp.moveaxis(logits, 2, 1), ends).mean(axis=1)
        hits = there & (jnp.argmax(logits, axis=1) == ends).all(axis=1)
        return TokenErrors(jnp.where(there, losses, 0), hits.astype(jnp.int32), there.astype(jnp.int32))

    @nn.compact
    def predict(
        self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context
    ) -> Float[Array, "b l 2"]:
        """The logits of each token, of being the answer's first and of being its last; very low ones of padding."""
        view = own_part(self, encoded)
        logits = linear_head(view.tokens[:, view.prefix :], 2, "ends")
        real = view.token_mask[:, view.prefix :, None]
        return jnp.where(real, logits, jnp.finfo(logits.dtype).min / 2)

    def counted(self, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
        """A mask of the texts whose answer is known."""
        return valid(batch, self.modality) & (entry(batch, self.span) >= 0).all(axis=1)

    def batch_loss(self, outputs: TokenErrors, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        return averaged(outputs, self.counted(batch))
