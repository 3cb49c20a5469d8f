"""Gated fusion: the gated multimodal unit (GMU: Arevalo et al. 2017, arXiv:1702.01992)."""

from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.errors import UserError, not_among
from mmjax.models.fusion.embeddings import EmbeddingFusion, Entered
from mmjax.models.fusion.joined import JoinedDense
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import dense, projection_init

GATES = ("complementary", "independent")


class Gated(EmbeddingFusion, kw_only=True):
    """A gate decides for each dimension how much of each input passes: h_m = tanh(W_m x_m), and either
    z = sigmoid(Z [x_1; x_2]) with z h_1 + (1 - z) h_2, or, for any number of inputs, z_m = sigmoid(Z_m [x_1; ...; x_M])
    with the sum of all z_m h_m, which nothing normalises. There are no biases. Input 1 is the first by its name.

    An example that lacks inputs is gated over those that are there. Where the gates are independent, it has the
    embedding that the unit would have without these inputs at all; where they are complementary, the other input passes
    whole. One that lacks all inputs has an embedding of zeros.

    Attributes:
        embed_dim: size E of the embedding.
        gates: `complementary`, z and 1 - z, for two inputs only; `independent`, one for each input; None: the first for
            two inputs, the second for more.
    """

    embed_dim: int
    gates: Literal["complementary", "independent"] | None = None

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Mapping[str, TokensAndMask], Float[Array, "b e"]]:
        """The tokens as they came, and the embedding `[B,E]`, float32.

        Raises:
            UserError: there are fewer than two inputs, or more and gates="complementary"; an input isn't one token; or
                a field's value isn't allowed.
        """
        self._check_sizes(embed_dim=self.embed_dim)
        inputs = self._entered(tokens, train, keys)
        if self.gates not in (None, *GATES):
            raise UserError(not_among("gates", self.gates, GATES))
        if self.gates == "complementary" and len(inputs) != 2:
            raise UserError(
                f"gates='complementary' are z and 1 - z of two inputs, and here are {len(inputs)}, {', '.join(inputs)}"
                ": set gates='independent'"
            )
        values = {name: self._value(name, x) for name, (x, _) in inputs.items()}
        if self.gates == "complementary" or (self.gates is None and len(inputs) == 2):
            h = self._complementary(inputs, values)
        else:
            h = sum(self._gate(f"gate_{name}", inputs) * value for name, value in values.items())
        return tokens, jnp.asarray(h, jnp.float32)

    def _value(self, name: str, x: Float[Array, "b d"]) -> Float[Array, "b e"]:
        """What an input has to give; zeros where it is missing, as there is no bias."""
        init = projection_init(x.shape[-1], self.embed_dim)
        value = dense(self.embed_dim, ("embed", "mlp"), init, dtype=self.dtype, bias=False, name=f"value_{name}")
        return jnp.tanh(value(x))

    def _gate(self, name: str, inputs: Mapping[str, Entered]) -> Float[Array, "b e"]:
        return jax.nn.sigmoid(JoinedDense(self.embed_dim, bias=False, dtype=self.dtype, name=name)(inputs))

    def _complementary(
        self, inputs: Mapping[str, Entered], values: Mapping[str, Float[Array, "b e"]]
    ) -> Float[Array, "b e"]:
        """z h_1 + (1 - z) h_2, with z = 1 where the second is missing, and 0 where the first is."""
        (_, first), (_, second) = inputs.values()
        gate = self._gate("gate", inputs)
        gate = jnp.where((first & second)[:, None], gate, first[:, None].astype(gate.dtype))
        one, other = values.values()
        return gate * one + (1 - gate) * other
