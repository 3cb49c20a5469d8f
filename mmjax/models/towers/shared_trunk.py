"""A transformer that is shared: by towers, as one encoder for the tokens of several modalities (M3AE: Geng et al. 2022,
arXiv:2205.14204), or by a tower and the fusion in which its tokens read others' (BLIP: Li et al. 2022,
arXiv:2201.12086)."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.parameters import parameter
from mmjax.models.layers.transformer import Transformer

CLS_STD = 0.02  # as MAE's beside fixed positions


class Trunk(nn.Module, kw_only=True):
    """Tokens of one modality, or of several one after the other `[B, N, D]` -> a CLS and theirs, encoded `[B, 1+N, D]`.

    Towers hold the same one: `trunk = Trunk(blocks=...)`, `ViT(trunk=trunk, ...)`, `TextTransformer(trunk=trunk, ...)`.
    Each is then a tower of its own modality, and an objective may ask for several together
    (`mmjax.objectives.Together`).

    With `cross` each block has an attention to a context too, between its own attention and the MLP. A tower goes by
    all but that, and `Cross(reader=..., trunk=trunk)` by all: the same self-attention and MLPs read a text alone, and
    with its picture (BLIP: `Trunk(blocks=..., cls=False, kinds=False, cross=True)`).

    Attributes:
        blocks: of its transformer, and of the parts that a tower with this trunk has of its own.
        cls: whether it puts a learned CLS before the tokens.
        kinds: whether each tower has a learned vector that is added to its tokens, and tells its modality.
        cross: whether its blocks have an attention to a context.
    """

    ways: ClassVar[tuple[str, ...]] = ()  # a `MultiwayTrunk` has them

    blocks: Blocks
    cls: bool = True
    kinds: bool = True
    cross: bool = False

    @property
    def prefix(self) -> int:
        """The number of tokens that it puts before those of a tower: the CLS, or none."""
        return int(self.cls)

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b n d"],
        real: Bool[Array, "b n"],
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
        context: Float[Array, "b m d"] | None = None,
        context_mask: Bool[Array, "b m"] | None = None,
    ) -> tuple[Float[Array, "b p d"], Bool[Array, "b p"]]:
        """The encoded tokens, the CLS first where there is one, and which are real.

        context, context_mask: other tokens to which every block attends, and which of them; with `cross` alone. Without
        them the blocks do without that attention.

        Raises:
            UserError: there is a context, and no `cross`; or it doesn't fit the tokens.
        """
        if self.cls:
            cls = parameter(self, "cls", nn.initializers.normal(CLS_STD), ("embed",), (self.blocks.width,))
            cls = jnp.broadcast_to(cls.astype(tokens.dtype), (len(tokens), 1, self.blocks.width))
            tokens = jnp.concatenate([cls, tokens], axis=1)
            real = jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)
        if context is not None and not self.cross:
            raise UserError("a Trunk was given a context, and its blocks have no attention to one: set its cross=True")
        if self.cross and context is None and self.is_initializing():
            context = tokens[:, :1]  # of any tokens, for the tower alone comes first, and a scan makes all parameters
        transformer = Transformer(self.blocks, cross=context is not None, name="transformer")
        return transformer(tokens, real, train, keys, context=context, context_mask=context_mask), real
