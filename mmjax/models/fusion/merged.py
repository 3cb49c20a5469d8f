"""Merged fusion: the tokens of all inputs as one sequence through a transformer (FLAVA: Singh et al. 2022,
arXiv:2112.04482; VideoBERT: Sun et al. 2019, arXiv:1904.01766)."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError, not_among
from mmjax.models.fusion.attention_flow import Spans, Step, of_layers, spans_of
from mmjax.models.fusion.tokens import KIND_STD, TokenFusion, first_real
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import BEFORE_BLOCKS, drop, dropout_keys
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import HIDDEN, constrain, layer_norm, parameter
from mmjax.models.layers.pooling import mean
from mmjax.models.layers.transformer import Transformer

MERGED_POOLINGS = ("cls", "first", "mean")


class Merged(TokenFusion, kw_only=True):
    """Tokens of the inputs one after the other, each with its input's vector -> transformer. An example that lacks an
    input is fused from the tokens of the others alone.

    Attributes:
        blocks: of the transformer.
        pooling: the embedding is that of a learned `cls` token before all others, of the `first` real one, or the
            `mean` of all real ones.
        project: whether each input's tokens come in by a linear map of their own (FLAVA), which they need where they
            are not as wide as the blocks.
        kinds: whether each input has a learned vector that is added to its tokens (FLAVA has none).
        positions: number of learned positions of the joined sequence, added to its tokens; what isn't real has no place
            in it and takes none. 0: there are none, for tokens that bring positions of their own.
        pre_norm: whether a LayerNorm, and dropout, stand before the first block, as BERT's stand behind its sum of
            words, positions and types.
    """

    blocks: Blocks
    pooling: Literal["cls", "first", "mean"] = "cls"
    project: bool = False
    kinds: bool = True
    positions: int = 0
    pre_norm: bool = False

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[dict[str, TokensAndMask], Float[Array, "b e"]]:
        """Each input's tokens, as wide as the blocks, after they have met; and the embedding.

        Raises:
            UserError: there is no such pooling, tokens of another width come in with project=False, or there are more
                tokens than positions.
        """
        if self.pooling not in MERGED_POOLINGS:
            raise UserError(not_among("pooling", self.pooling, MERGED_POOLINGS))
        blocks, masks = self.blocks, self._there(tokens, train, keys)
        parts = [self._entered(name, x, blocks, self.project, self.kinds) for name, (x, _) in tokens.items()]
        ends = list(accumulate(part.shape[1] for part in parts))
        x, real = jnp.concatenate(parts, axis=1), jnp.concatenate(list(masks.values()), axis=1)
        prefix = int(self.pooling == "cls")
        if prefix:
            cls = parameter(self, "cls", nn.initializers.normal(KIND_STD), ("embed",), (blocks.width,))
            x = jnp.concatenate([jnp.broadcast_to(cls.astype(x.dtype), (len(x), 1, blocks.width)), x], axis=1)
            real = jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)
        x = self._placed(x, real) if self.positions else x
        if self.pre_norm:
            x = layer_norm("norm_pre", eps=blocks.norm_eps, dtype=blocks.dtype)(x)
            own = dropout_keys(self, blocks.dropout, train, keys, len(x))
            x = drop(constrain(x, *HIDDEN), blocks.dropout, own, BEFORE_BLOCKS)
        x = Transformer(blocks, name="transformer")(x, real, train, keys)
        pooled = x[:, 0] if prefix else first_real(x, real) if self.pooling == "first" else mean(x, real)
        pieces = jnp.split(x[:, prefix:], ends[:-1], axis=1)
        found = {name: (piece, masks[name]) for name, piece in zip(tokens, pieces, strict=True)}
        return found, self._projected(pooled, blocks)

    def _placed(self, x: Float[Array, "b n d"], real: Bool[Array, "b n"]) -> Float[Array, "b n d"]:
        """The sequence with the position of each real token, counted from the first real one."""
        if x.shape[1] > self.positions:
            raise UserError(
                f"a Merged with positions={self.positions} was given a sequence of {x.shape[1]} tokens: set "
                f"positions={x.shape[1]}, or shorten what goes in"
            )
        normal = nn.initializers.truncated_normal if self.blocks.inits == "bert" else nn.initializers.normal
        shape = (self.positions, self.blocks.width)
        table = parameter(self, "position", normal(KIND_STD), ("position", "embed"), shape)
        places = jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0)
        return x + jnp.where(real[..., None], table.astype(x.dtype)[places], 0)

    def attention_steps(self, kept: Mapping[str, Any], lengths: Mapping[str, int]) -> tuple[Spans, list[Step]]:
        """Its attentions in order (`attention_flow`). kept: of it in `attention_weights`. lengths: of each input."""
        before = int(self.pooling == "cls")
        every = slice(0, before + sum(lengths.values()))
        return spans_of(lengths, before), of_layers(kept["transformer"]["blocks"]["attention"], every, every)
