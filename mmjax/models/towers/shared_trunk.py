"""A transformer that towers share: one encoder for the tokens of several modalities (M3AE: Geng et al. 2022,
arXiv:2205.14204)."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.parameters import parameter
from mmjax.models.layers.transformer import Transformer

CLS_STD = 0.02  # as MAE's beside fixed positions


class Trunk(nn.Module, kw_only=True):
    """Tokens of one modality, or of several one after the other `[B, N, D]` -> a CLS and theirs, encoded `[B, 1+N, D]`.

    Towers hold the same one: `trunk = Trunk(blocks=...)`, `ViT(trunk=trunk, ...)`, `TextTransformer(trunk=trunk, ...)`.
    Each is then a tower of its own modality, and an objective may ask for several together
    (`mmjax.objectives.Together`).

    Attributes:
        blocks: of its transformer, and of the parts that a tower with this trunk has of its own.
    """

    prefix: ClassVar[int] = 1  # the CLS
    ways: ClassVar[tuple[str, ...]] = ()  # a `MultiwayTrunk` has them
    kinds: ClassVar[bool] = True  # a tower has a vector that tells its modality

    blocks: Blocks

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b n d"],
        real: Bool[Array, "b n"],
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n+1 d"], Bool[Array, "b n+1"]]:
        """The encoded tokens, the CLS first, and which are real."""
        cls = parameter(self, "cls", nn.initializers.normal(CLS_STD), ("embed",), (self.blocks.width,))
        cls = jnp.broadcast_to(cls.astype(tokens.dtype), (len(tokens), 1, self.blocks.width))
        real = jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)
        transformer = Transformer(self.blocks, name="transformer")
        return transformer(jnp.concatenate([cls, tokens], axis=1), real, train, keys), real
