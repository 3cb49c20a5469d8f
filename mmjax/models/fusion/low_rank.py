"""Low-rank fusion: tensor fusion whose weights are a sum of few outer products (LMF: Liu et al. 2018,
arXiv:1806.00064)."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.models.fusion.embeddings import EmbeddingFusion
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import parameter


class LowRank(EmbeddingFusion, kw_only=True):
    """The sum over r of w_r times the product over m of [1; x_m] F_m,r, plus a bias: what a linear layer over
    `TensorFusion`'s outer product computes, if its kernel has rank R, without ever making that product.

    An input that is missing is [1; 0], as it is there, so its factor is F_m,r's first row: a constant that stands for
    "missing" and is learned. No other parameter of that input has an effect.

    Attributes:
        embed_dim: size E of the embedding.
        rank: the number R of outer products.
    """

    embed_dim: int
    rank: int = 4

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Mapping[str, TokensAndMask], Float[Array, "b e"]]:
        """The tokens as they came, and the embedding `[B,E]`, float32.

        Raises:
            UserError: there are fewer than two inputs, an input isn't one token, or a field's value isn't allowed.
        """
        self._check_sizes(embed_dim=self.embed_dim, rank=self.rank)
        init = nn.initializers.glorot_normal(batch_axis=(0,))
        product = jnp.ones((), jnp.float32)
        for name, (x, _) in self._entered(tokens, train, keys).items():
            shape = (self.rank, x.shape[-1] + 1, self.embed_dim)
            factor = parameter(self, f"factor_{name}", init, (None, "embed", "mlp"), shape)
            with_one = jnp.pad(x, ((0, 0), (1, 0)), constant_values=1)
            product *= jnp.einsum("bd,rde->bre", with_one, factor.astype(self.dtype)).astype(jnp.float32)
        weights = parameter(self, "weights", nn.initializers.glorot_normal(), (None, None), (1, self.rank))
        bias = parameter(self, "bias", nn.initializers.zeros, ("mlp",), (self.embed_dim,))
        return tokens, jnp.einsum("r,bre->be", weights[0], product) + bias
