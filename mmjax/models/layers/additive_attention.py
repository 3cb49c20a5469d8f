"""Additive attention (Bahdanau et al. 2014, arXiv:1409.0473) of a recurrent state over tokens, with the scalar gate of
Show, Attend and Tell (Xu et al. 2015, arXiv:1502.03044).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.models.layers.parameters import DtypeName, Initializer, dense, parameter


class Annotations(NamedTuple):
    """The tokens that a recurrent state attends to (the paper's annotation vectors), projected once for all words."""

    tokens: Float[Array, "b c e"]
    keys: Float[Array, "b c k"]
    """`W_a a_i + b`."""
    real: Bool[Array, "b c"]


class AdditiveAttention(nn.Module):
    """Weights `softmax_i(v . tanh(W_a a_i + b + W_h h))` over tokens `a_i`, and their weighted sum times
    `sigmoid(w . h + b_w)`. A bias of the logits is left out: softmax doesn't see it.

    Attributes:
        width: of the hidden layer.
        gate: whether the sum is multiplied by the gate.
        initial: of the matrices.
    """

    width: int
    gate: bool
    initial: Initializer
    dtype: DtypeName

    def setup(self) -> None:
        self.of_tokens = dense(self.width, ("embed", None), self.initial, dtype=self.dtype)
        self.of_state = dense(self.width, ("embed", None), self.initial, dtype=self.dtype, bias=False)
        self.score = parameter(self, "score", self.initial, (None, None), (1, self.width))
        if self.gate:
            self.beta = dense(1, ("embed", None), self.initial, dtype=self.dtype)

    def annotated(self, tokens: Float[Array, "b c e"], real: Bool[Array, "b c"]) -> Annotations:
        """The tokens as `__call__` reads them. What those that aren't real hold changes nothing."""
        tokens = jnp.where(real[..., None], tokens, 0).astype(self.dtype)
        return Annotations(tokens, self.of_tokens(tokens), real)

    def __call__(
        self, state: Float[Array, "b h"], seen: Annotations
    ) -> tuple[Float[Array, "b e"], Float[Array, "b c"]]:
        """The gated sum, and the weights of the tokens, float32, which add up to 1, or to 0 where no token is real."""
        hidden = jnp.tanh(seen.keys + self.of_state(state)[:, None])
        score = self.score[0].astype(hidden.dtype)
        logits = jnp.einsum("bck,k->bc", hidden, score, preferred_element_type=jnp.float32)
        logits = jnp.where(seen.real, logits, jnp.finfo(logits.dtype).min)
        weights = jnp.where(seen.real, jax.nn.softmax(logits, axis=-1), 0)
        found = jnp.einsum("bc,bce->be", weights.astype(seen.tokens.dtype), seen.tokens)
        return found * nn.sigmoid(self.beta(state)) if self.gate else found, weights
