"""Multiway fusion: one attention for the tokens of all inputs, and an MLP for each (VLMo: Bao et al. 2022,
arXiv:2111.02358)."""

from collections.abc import Mapping
from functools import partial
from itertools import accumulate
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError, not_among
from mmjax.models.fusion.contract import TokensAndMask
from mmjax.models.fusion.tokens import TokenFusion, first_real
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import drop, dropout_keys
from mmjax.models.layers.parameters import HIDDEN, constrain, layer_norm
from mmjax.models.layers.pooling import mean
from mmjax.models.layers.transformer import Attention, LayerScale, Mlp

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

    def _checked(self) -> Blocks:
        blocks = self.blocks
        if self.pooling not in MULTIWAY_POOLINGS:
            raise UserError(not_among("pooling", self.pooling, MULTIWAY_POOLINGS))
        if not 0 <= self.joint <= blocks.depth:
            raise UserError(f"joint={self.joint} must be between 0 and blocks.depth={blocks.depth}: it counts layers")
        if blocks.norm != "pre":
            raise UserError(f"a Multiway fusion is pre-LN, and has blocks.norm={blocks.norm!r}: set norm='pre'")
        return blocks


class MultiwayBlock(nn.Module):
    """One layer of `Multiway`; returns a pair, as a scan's body does.

    ways: the inputs, each with the number of its tokens, in their order; none: one MLP is for all.
    """

    blocks: Blocks
    ways: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"],
        keys: Key[Array, " b"] | None = None,
        layer: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "b n d"], None]:
        blocks, inits = self.blocks, self.blocks.initializers()
        if keys is not None:
            keys = jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)
        norm = partial(layer_norm, eps=blocks.norm_eps, dtype=blocks.dtype)
        attention = Attention(blocks.heads, inits, attention=blocks.attention, name="attention")
        x = self._plus(x, attention(norm("norm_attention")(x), mask), "scale_attention", keys, 0)
        ways = self.ways or (("all", x.shape[1]),)
        pieces = jnp.split(x, list(accumulate(length for _, length in ways))[:-1], axis=1)
        through = []
        for (name, _), piece in zip(ways, pieces, strict=True):
            mlp = Mlp(blocks.hidden, inits, blocks.activation, blocks.dtype, name=f"mlp_{name}")
            through.append(mlp(norm(f"norm_mlp_{name}")(piece)))
        return self._plus(x, jnp.concatenate(through, axis=1), "scale_mlp", keys, 1), None

    def _plus(
        self, x: Float[Array, "b n d"], branch: Float[Array, "b n d"], scale: str, keys: Key[Array, " b"] | None,
        place: int,
    ) -> Float[Array, "b n d"]:  # fmt: skip
        branch = LayerScale(self.blocks.layer_scale, name=scale)(branch)
        return constrain(x + drop(branch, self.blocks.dropout, keys, place), *HIDDEN)
