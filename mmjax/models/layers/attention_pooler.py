"""The attention pooler of CoCa (Yu et al. 2022, arXiv:2205.01917): learned queries in the place of tokens."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.models.layers.attentions import AttentionName
from mmjax.models.layers.parameters import DtypeName, InitName, block_inits, layer_norm, parameter
from mmjax.models.layers.transformer import CrossAttention


class AttentionPooler(nn.Module, kw_only=True):
    """Learned queries, each of which reads all tokens by one attention: `[B, N, D]` -> `[B, M, E]`. Queries and tokens
    are normed before it, and what it gives after it; there is neither a sum nor an MLP.

    An example without a real token gets the mean of its tokens' values.

    Attributes:
        queries: their number M.
        heads: of the attention, a divisor of E.
        width: E, of a query and of what it gives; None: the tokens'.
    """

    queries: int
    heads: int
    width: int | None = None
    norm_eps: float = 1e-6
    inits: InitName = "xavier"
    attention: AttentionName = "plain"
    dtype: DtypeName = "float32"

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None = None) -> Float[Array, "b m e"]:
        width = self.width or tokens.shape[-1]
        norm = partial(layer_norm, eps=self.norm_eps, dtype=self.dtype)
        learned = parameter(self, "queries", nn.initializers.normal(1.0), (None, "embed"), (self.queries, width))
        queries = norm("norm_queries")(learned.astype(tokens.dtype))
        queries = jnp.broadcast_to(queries, (len(tokens), *queries.shape))
        inits = block_inits(self.inits, width, 4 * width, depth=1)
        attention = CrossAttention(self.heads, inits, self.attention, name="attention")
        return norm("norm")(attention(queries, norm("norm_tokens")(tokens), mask))
