"""Fusion by the trunk of the towers themselves: inputs go through it together (VLMo: Bao et al. 2021, arXiv:2111.02358;
BEiT-3: Wang et al. 2022, arXiv:2208.10442)."""

from collections.abc import Mapping
from dataclasses import field
from itertools import accumulate
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.errors import UserError, unknown
from mmjax.models.fusion.tokens import TokenFusion, first_real
from mmjax.models.layers.masks import TokensAndMask


class ThroughTrunk(TokenFusion, kw_only=True):
    """Inputs one after the other through the `MultiwayTrunk` that their towers hold, by the same parameters as each
    alone. It reads what the towers put in (stems, words, positions), not what the trunk made of each alone. An example
    that lacks an input is encoded from the others' tokens alone.

    Its own parameters are those of the projection, where there is one.

    Attributes:
        trunk: the towers' own, the very same.
        first: the input whose first token the embedding is; None: the first real one of all.
        ways: the way of an input in the trunk, by the input's name, where that isn't the way's name.
    """

    reads: ClassVar[str] = "fronts"

    trunk: Any
    first: str | None = None
    ways: Mapping[str, str] = field(default_factory=dict)

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[dict[str, TokensAndMask], Float[Array, "b e"]]:
        """Each input's tokens after the trunk, and the embedding.

        tokens: of each input what its tower gives the trunk (`Tower.front`).

        Raises:
            UserError: `first` is none of the inputs, the trunk has no such way, or tokens are of another width.
        """
        if self.first is not None and self.first not in tokens:
            raise UserError(unknown("a ThroughTrunk has the embedding of", self.first, tokens, "inputs"))
        blocks, masks = self.trunk.blocks, self._there(tokens, train, keys)
        parts = [self._entered(name, x, blocks, project=False, kinds=False) for name, (x, _) in tokens.items()]
        ways = tuple((self.ways.get(name, name), part.shape[1]) for name, part in zip(tokens, parts, strict=True))
        x, real = jnp.concatenate(parts, axis=1), jnp.concatenate(list(masks.values()), axis=1)
        x, real = self.trunk(x, real, train, keys, ways)
        ends = list(accumulate(length for _, length in ways))
        pieces = jnp.split(x, ends[:-1], axis=1)
        found = {name: (piece, masks[name]) for name, piece in zip(tokens, pieces, strict=True)}
        if self.first is None:
            pooled = first_real(x, real)
        else:
            own, mask = found[self.first]
            pooled = jnp.where(mask[:, :1], own[:, 0], 0)
        return found, self._projected(pooled, blocks)
