"""Late fusion: every input decides alone, and the decisions are combined."""

from collections.abc import Mapping
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError, not_among
from mmjax.models.fusion.embeddings import EmbeddingFusion
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import dense, parameter, projection_init

LateRule = Literal["mean", "product", "vote", "learned"]


class Late(EmbeddingFusion, kw_only=True):
    """Each input has a linear classifier of its own, `head_<input>`; the embedding is the combined decision, as the log
    of each class's probability.

    An input that is missing takes no part: the decision is that of the others alone. Where all are missing, every class
    is as probable.

    Attributes:
        classes: number of classes, the size of the embedding.
        rule: how decisions are combined.
            `mean`: the mean of the inputs' probabilities.
            `product`: the product of their probabilities, renormalised (product of experts); it counts on each input's
            being calibrated.
            `vote`: the class that most inputs find the most probable, of equal ones that with the highest mean of
            probabilities. The probabilities are the shares of the votes, where the mean has a vote too, which it
            divides among the classes. No gradient flows through a vote, so with train=True it is the `mean`.
            `learned`: the mean with a weight for each input, `weight_<input>`: their softmax over the inputs that are
            there. They start equal.
    """

    classes: int
    rule: LateRule = "mean"

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Mapping[str, TokensAndMask], Float[Array, "b e"]]:
        """The tokens as they came, and log-probabilities `[B, classes]`, float32.

        Raises:
            UserError: there are fewer than two inputs, an input isn't one token, or a field's value isn't allowed.
        """
        if self.rule not in get_args(LateRule):
            raise UserError(not_among("rule", self.rule, get_args(LateRule)))
        if self.classes < 2:
            raise UserError(f"classes={self.classes} of a Late must be at least 2: a decision is between classes")
        inputs = self._entered(tokens, train, keys)
        there = jnp.stack([each for _, each in inputs.values()], axis=1)
        logits = jnp.stack([self._logits(name, x) for name, (x, _) in inputs.items()], axis=1)
        # A missing input finds all classes equally probable, which leaves a product of the others as it is; a mean
        # doesn't count it, unless all are missing.
        log_probs = jax.nn.log_softmax(jnp.where(there[..., None], logits, 0), axis=-1)
        if self.rule == "product":
            return tokens, jax.nn.log_softmax(log_probs.sum(axis=1), axis=-1)
        weights = jnp.zeros(len(inputs))
        if self.rule == "learned":
            scalars = [parameter(self, f"weight_{name}", nn.initializers.zeros, (), ()) for name in inputs]
            weights = jnp.stack(scalars)
        counted = there | ~there.any(axis=1, keepdims=True)
        weights = jax.nn.softmax(jnp.where(there, weights, 0), axis=1, where=counted)
        mean = jax.nn.logsumexp(log_probs, axis=1, b=weights[..., None])
        return tokens, voted(log_probs, there, mean) if self.rule == "vote" and not train else mean

    def _logits(self, name: str, x: Float[Array, "b d"]) -> Float[Array, "b c"]:
        init = projection_init(x.shape[-1], self.classes)
        head = dense(self.classes, ("embed", None), init, dtype=self.dtype, name=f"head_{name}")
        return head(x).astype(jnp.float32)


def voted(
    log_probs: Float[Array, "b m c"], there: Bool[Array, "b m"], mean: Float[Array, "b c"]
) -> Float[Array, "b c"]:
    """The log of the votes' shares: one vote of each input that is there, and one that `mean`, the log of
    probabilities, divides: too little to overturn a majority, enough to decide between equal ones."""
    votes = jax.nn.one_hot(jnp.argmax(log_probs, axis=-1), log_probs.shape[-1]) * there[..., None]
    return jnp.logaddexp(jnp.log(votes.sum(axis=1)), mean) - jnp.log1p(there.sum(axis=1, keepdims=True))
