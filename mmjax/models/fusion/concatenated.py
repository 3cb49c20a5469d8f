"""Fusion of concatenated embeddings by an MLP."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.models.fusion.embeddings import EmbeddingFusion
from mmjax.models.fusion.joined import FollowingLayers, JoinedDense
from mmjax.models.layers.activations import ActivationName
from mmjax.models.layers.masks import TokensAndMask


class Concatenated(EmbeddingFusion, kw_only=True):
    """The embeddings one after the other -> MLP.

    Its first layer is kept as one product for each input, which are summed (`JoinedDense`): the same as a Dense over
    the concatenation, with zeros for an input that is missing. So an example that lacks an input has the embedding that
    this MLP would have without the input at all. One that lacks all of them has the embedding of the biases.

    Attributes:
        embed_dim: size E of the embedding.
        hidden: widths of the MLP's hidden layers; () leaves one linear layer.
        activation: behind each hidden layer: `gelu` (erf), `gelu_tanh` or `quick_gelu`.
    """

    embed_dim: int
    hidden: tuple[int, ...] = ()
    activation: ActivationName = "gelu"

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Mapping[str, TokensAndMask], Float[Array, "b e"]]:
        """The tokens as they came, and the embedding `[B,E]`, float32.

        Raises:
            UserError: there are fewer than two inputs, an input isn't one token, or a field's value isn't allowed.
        """
        self._check_sizes(embed_dim=self.embed_dim, hidden=min(self.hidden, default=1))
        first, *rest = (*self.hidden, self.embed_dim)
        x = JoinedDense(first, dtype=self.dtype, name="joined")(self._entered(tokens, train, keys))
        x = FollowingLayers(tuple(rest), self.activation, self.dtype, name="mlp")(x)
        return tokens, x.astype(jnp.float32)
