"""Multiway fusion: one attention for the tokens of all inputs, and an MLP for each (VLMo: Bao et al. 2022,
arXiv:2111.02358)."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.errors import UserError, not_among
from mmjax.models.fusion.attention_flow import Spans, Step, of_layers, spans_of
from mmjax.models.fusion.tokens import TokenFusion, first_real
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import dropout_keys
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.multiway import MultiwayBlock
from mmjax.models.layers.parameters import layer_norm
from mmjax.models.layers.pooling import mean

MULTIWAY_POOLINGS = ("first", "mean")


class Multiway(TokenFusion, kw_only=True):
    """Tokens of all inputs attend to each other with the same weights; each then goes through its input's MLP, and in
    the last layers through one MLP for all. An example that lacks an input is fused from the others' tokens alone.

    Attributes:
        blocks: pre-LN; `depth` counts all layers.
        joint: number of the last layers in which all tokens have one MLP (VLMo base: 2).
        pooling: the embedding is that of the `first` real token, or the `mean` of all real ones.
        project: whether each input's tokens come in by a linear map of their own, which they need where they are not as
            wide as the blocks.
        kinds: whether each input has a learned vector that is added to its tokens.
    """

    blocks: Blocks
    joint: int = 0
    pooling: Literal["first", "mean"] = "first"
    project: bool = False
    kinds: bool = True

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[dict[str, TokensAndMask], Float[Array, "b e"]]:
        """Each input's tokens after they have met, and the embedding.

        Raises:
            UserError: there is no such pooling, `joint` is beyond the depth, the blocks are post-LN, or tokens of
                another width come in with project=False.
        """
        blocks = self._checked()
        masks = self._there(tokens, train, keys)
        parts = [self._entered(name, x, blocks, self.project, self.kinds) for name, (x, _) in tokens.items()]
        lengths = tuple((name, part.shape[1]) for name, part in zip(tokens, parts, strict=True))
        x, real = jnp.concatenate(parts, axis=1), jnp.concatenate(list(masks.values()), axis=1)
        keys = dropout_keys(self, blocks.dropout, train, keys, len(x))
        apart = blocks.depth - self.joint
        for name, ways, begin, end in (("apart", lengths, 0, apart), ("joint", (), apart, blocks.depth)):
            if begin < end:
                scanned = blocks.scanned(MultiwayBlock, end - begin, (nn.broadcast, nn.broadcast, 0))
                x, _ = scanned(blocks, ways, name=name)(x, real, keys, jnp.arange(begin, end))
        x = layer_norm("norm", eps=blocks.norm_eps, dtype=blocks.dtype)(x)
        pooled = first_real(x, real) if self.pooling == "first" else mean(x, real)
        pieces = jnp.split(x, list(accumulate(length for _, length in lengths))[:-1], axis=1)
        found = {name: (piece, masks[name]) for name, piece in zip(tokens, pieces, strict=True)}
        return found, self._projected(pooled, blocks)

    def attention_steps(self, kept: Mapping[str, Any], lengths: Mapping[str, int]) -> tuple[Spans, list[Step]]:
        """Its attentions in order (`attention_flow`). kept: of it in `attention_weights`. lengths: of each input."""
        every = slice(0, sum(lengths.values()))
        layers = (kept[name]["attention"] for name in ("apart", "joint") if name in kept)
        return spans_of(lengths), [step for some in layers for step in of_layers(some, every, every)]

    def _checked(self) -> Blocks:
        blocks = self.blocks
        if self.pooling not in MULTIWAY_POOLINGS:
            raise UserError(not_among("pooling", self.pooling, MULTIWAY_POOLINGS))
        if not 0 <= self.joint <= blocks.depth:
            raise UserError(f"joint={self.joint} must be between 0 and blocks.depth={blocks.depth}: it counts layers")
        if blocks.norm != "pre":
            raise UserError(f"a Multiway fusion is pre-LN, and has blocks.norm={blocks.norm!r}: set norm='pre'")
        return blocks
