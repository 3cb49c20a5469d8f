"""A transformer that towers share: one encoder for the tokens of several modalities (M3AE: Geng et al. 2022,
arXiv:2205.14204)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.models.layers.attention import AttentionName
from mmjax.models.layers.parameters import ActivationName, DtypeName, InitName, RematName, parameter
from mmjax.models.layers.transformer import Transformer

CLS_STD = 0.02  # as MAE's beside fixed positions


class Trunk(nn.Module, kw_only=True):
    """Tokens of one modality, or of several one after the other `[B, N, D]` -> a CLS and theirs, encoded `[B, 1+N, D]`.

    Towers hold the same one: `trunk = Trunk(...)`, `ViT(trunk=trunk, ...)`, `TextTransformer(trunk=trunk, ...)`. Each
    is then a tower of its own modality, and an objective may ask for several together (`mmjax.objectives.Together`).

    Attributes:
        width, depth, heads, mlp_dim, activation, norm_eps, inits, dropout, remat, dtype, attention: of its transformer.
    """

    width: int
    depth: int
    heads: int
    mlp_dim: int | None = None
    activation: ActivationName = "gelu"
    norm_eps: float = 1e-6
    inits: InitName = "xavier"
    dropout: float = 0.0
    remat: RematName | None = None
    dtype: DtypeName = "float32"
    attention: AttentionName = "plain"

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b n d"],
        real: Bool[Array, "b n"],
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n+1 d"], Bool[Array, "b n+1"]]:
        """The encoded tokens, the CLS first, and which are real."""
        cls = parameter(self, "cls", nn.initializers.normal(CLS_STD), ("embed",), (self.width,))
        cls = jnp.broadcast_to(cls.astype(tokens.dtype), (len(tokens), 1, self.width))
        real = jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)
        transformer = Transformer(
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            activation=self.activation,
            norm_eps=self.norm_eps,
            inits=self.inits,
            dropout=self.dropout,
            remat=self.remat,
            dtype=self.dtype,
            attention=self.attention,
            name="transformer",
        )
        return transformer(jnp.concatenate([cls, tokens], axis=1), real, train, keys), real
