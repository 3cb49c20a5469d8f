"""The light decoder of masked modelling over several modalities in one sequence (M3AE: Geng et al. 2022,
arXiv:2205.14204)."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError
from mmjax.models.decoders.patches import MASK_STD, placed_tokens, stem
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.parameters import constrain, parameter
from mmjax.models.layers.transformer import Transformer


class Kept(NamedTuple):
    """The encoder's tokens of one modality, and their places."""

    keep: Int[Array, "b k"]
    """Ids of its patches or words, -1 in empty slots."""
    grid: tuple[int, ...]
    patch_mask: Bool[Array, "b n"]
    """Which of all are real; the others are not attended to."""


class JointDecoder(nn.Module, kw_only=True):
    """Kept tokens of several modalities `[B, prefix + K1 + K2 ..., D]` -> states of all their patches `[B, Ni, width]`.

    Projects to its own width; in each modality puts the kept tokens in their places, its learned mask token everywhere
    else, and adds fixed positions and a learned vector that tells the modality (neither to the prefix). Then its own
    transformer runs over all of them.

    Attributes:
        blocks: of its transformer; the width that it projects to is theirs.
    """

    blocks: Blocks

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b k d"],
        token_mask: Bool[Array, "b k"],
        kept: Sequence[Kept],
        prefix: int = 1,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> list[Float[Array, "b n o"]]:
        """The normalised states, float32, for the patches of each modality, in its order; see `Decoder` for the
        arguments.

        Raises:
            UserError: the number of tokens isn't `prefix` and one for each slot.
        """
        slots = [part.keep.shape[1] for part in kept]
        if tokens.shape[1] != prefix + sum(slots):
            raise UserError(f"{tokens.shape[1]} tokens are not {prefix} of a prefix and {slots} kept ones")
        x = stem(self.blocks)(tokens)
        normal = nn.initializers.normal(MASK_STD)
        shape, axes = (len(kept), self.blocks.width), (None, "embed")
        masks = parameter(self, "mask", normal, axes, shape).astype(x.dtype)
        kinds = parameter(self, "kind", normal, axes, shape).astype(x.dtype)
        sequence, real, begin = [x[:, :prefix]], [token_mask[:, :prefix]], prefix
        for part, mask, kind, count in zip(kept, masks, kinds, slots, strict=True):
            own = slice(begin, begin := begin + count)
            sequence.append(placed_tokens(x[:, own], token_mask[:, own], part.keep, part.grid, mask) + kind)
            real.append(part.patch_mask)
        x = constrain(jnp.concatenate(sequence, axis=1), "batch", "length", "embed")
        x = Transformer(self.blocks, name="transformer")(x, jnp.concatenate(real, axis=1), train, keys)
        ends = list(itertools.accumulate((math.prod(part.grid) for part in kept), initial=prefix))
        return [x[:, begin:end].astype(jnp.float32) for begin, end in itertools.pairwise(ends)]
