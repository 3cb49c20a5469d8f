"""Projectors: the tokens of a view as a decoder reads them among its words."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError
from mmjax.models.layers.activations import ACTIVATIONS, ActivationName
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import DtypeName, dense, layer_norm, parameter, projection_init
from mmjax.models.layers.transformer import CrossAttention, Mlp


class LinearProjector(nn.Module, kw_only=True):
    """A linear map of each token: of zeros at first, as PaliGemma's (Beyer et al. 2024, arXiv:2407.07726), or not; and
    a LayerNorm after it, as GIT's (Wang et al. 2022, arXiv:2205.14100), or none.

    zeros: whether its matrix starts at zero. norm_eps: the LayerNorm's epsilon; None: there is none.
    """

    zeros: bool = False
    norm_eps: float | None = None
    dtype: DtypeName = "float32"

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n e"], mask: Bool[Array, "b n"], width: int) -> TokensAndMask:
        init = nn.initializers.zeros if self.zeros else projection_init(tokens.shape[-1], width)
        x = dense(width, (None, "embed"), init, dtype=self.dtype, name="dense")(tokens)
        return (x if self.norm_eps is None else layer_norm("norm", eps=self.norm_eps, dtype=self.dtype)(x)), mask


class MlpProjector(nn.Module, kw_only=True):
    """Dense, activation, Dense of each token, all of the decoder's width (LLaVA-1.5: Liu et al. 2023,
    arXiv:2310.03744).

    skip: the number of first tokens that are left out, a CLS say.
    """

    activation: ActivationName = "gelu"
    dtype: DtypeName = "float32"
    skip: int = 0

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n e"], mask: Bool[Array, "b n"], width: int) -> TokensAndMask:
        tokens, mask = tokens[:, self.skip :], mask[:, self.skip :]
        first, second = projection_init(tokens.shape[-1], width), projection_init(width, width)
        hidden = dense(width, (None, "mlp"), first, dtype=self.dtype, name="in")(tokens)
        return dense(width, ("mlp", "embed"), second, dtype=self.dtype, name="out")(
            ACTIVATIONS[self.activation](hidden)
        ), mask


class Resampler(nn.Module, kw_only=True):
    """Learned queries that read the tokens, layer by layer, however many those are (Flamingo's Perceiver resampler:
    Alayrac et al. 2022, arXiv:2204.14198). Keys and values are of the tokens and of the queries themselves.

    An example without a real token has no real query either.

    Attributes:
        queries: their number M.
        blocks: of the layers, pre-norm, as wide as the tokens.
    """

    queries: int
    blocks: Blocks

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n e"], mask: Bool[Array, "b n"], width: int) -> TokensAndMask:
        blocks = self.blocks
        blocks.check()
        if tokens.shape[-1] != blocks.width or blocks.norm != "pre" or blocks.dropout:
            raise UserError(
                f"a Resampler with blocks.width={blocks.width}, norm={blocks.norm!r} and dropout={blocks.dropout} was "
                f"given tokens that are {tokens.shape[-1]} wide: its width is theirs, its norm 'pre', its dropout 0"
            )
        learned = parameter(self, "queries", nn.initializers.normal(1.0), (None, "embed"), (self.queries, blocks.width))
        x = jnp.broadcast_to(learned.astype(blocks.dtype), (len(tokens), self.queries, blocks.width))
        own, inits = jnp.ones((len(tokens), self.queries), bool), blocks.initializers()
        for i in range(blocks.depth):

            def norm(name: str, i: int = i) -> nn.LayerNorm:
                return layer_norm(f"{name}_{i}", eps=blocks.norm_eps, dtype=blocks.dtype)

            queries = norm("norm_queries")(x)
            read = jnp.concatenate([norm("norm_tokens")(tokens), queries], axis=1)
            attention = CrossAttention(blocks.heads, inits, blocks.attention, name=f"attention_{i}")
            x = x + attention(queries, read, jnp.concatenate([mask, own], axis=1))
            x = x + Mlp(blocks.hidden, inits, blocks.activation, blocks.dtype, name=f"mlp_{i}")(norm("norm_mlp")(x))
        x = layer_norm("norm", eps=blocks.norm_eps, dtype=blocks.dtype)(x)
        there = jnp.broadcast_to(mask.any(axis=1, keepdims=True), own.shape)
        if width != blocks.width:
            init = projection_init(blocks.width, width)
            x = dense(width, (None, "embed"), init, dtype=blocks.dtype, name="dense")(x)
        return x, there


class WithoutFirst(nn.Module, kw_only=True):
    """The tokens without the first ones: without the query that a picture's embedding is of (`PooledViT` without
    `cascade`), or a CLS. There are no parameters.

    first: their number.
    """

    first: int = 1

    def __call__(self, tokens: Float[Array, "b n e"], mask: Bool[Array, "b n"], width: int) -> TokensAndMask:
        del width
        return tokens[:, self.first :], mask[:, self.first :]
