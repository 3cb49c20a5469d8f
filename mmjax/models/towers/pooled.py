"""The image tower of CoCa (Yu et al. 2022, arXiv:2205.01917): a ViT whose tokens are read by learned queries."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError
from mmjax.models.layers.attention_pooler import AttentionPooler
from mmjax.models.layers.pooling import PoolingName
from mmjax.models.layers.transformer import Transformer
from mmjax.models.towers.vit import ViT


class PooledViT(ViT, kw_only=True):
    """A ViT whose tokens are those of an `AttentionPooler` over its own: `queries` of them, `token_width` wide, for a
    decoder that writes. The embedding is that of one query, projected.

    Attributes:
        queries: the number of tokens that the tower gives.
        pooler_heads: heads of the poolers.
        token_width: of these tokens; None: the transformer's.
        cascade: whether a pooler of its own, with one query, reads those tokens for the embedding (the paper's); else
            it is the first of them, which a decoder is then to be spared (`WithoutFirst`), as open_clip has it.
        pooling: as it is: the queries pool.
    """

    queries: int = 256
    pooler_heads: int = 8
    token_width: int | None = None
    cascade: bool = True
    pooling: PoolingName = "mean"

    def setup(self) -> None:
        odd = {"norm_pooled": self.norm_pooled, "trunk": self.trunk, "projection_tanh": self.projection_tanh}
        if given := [name for name, value in {"pooling": self.pooling != "mean", **odd}.items() if value]:
            raise UserError(
                f"a PooledViT has no {', '.join(given)} to set: its queries pool, and norm, the tokens of blocks of "
                "its own; leave it out"
            )
        if self.queries < 1 + (not self.cascade):
            raise UserError(
                f"queries={self.queries} with cascade={self.cascade}: set 1 or more, or 2 where the first one is the "
                "embedding's"
            )
        super().setup()
        self.pooler = self._pooler(self.queries)
        if self.cascade:
            self.embedding_pooler = self._pooler(1)

    def make_transformer(self, causal: bool) -> Transformer:
        """Blocks without a last LayerNorm: the poolers have those."""
        return Transformer(self.sizes, causal, final_norm=False)

    def tokens(
        self,
        x: Array,
        mask: Array | None = None,
        keep: Array | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
        hidden: Bool[Array, "b n"] | None = None,
    ) -> tuple[Float[Array, "b m e"], Bool[Array, "b m"]]:
        """The queries' tokens, all of them real.

        Raises UserError where patches are to be kept or hidden: a query's token is no patch's.
        """
        if keep is not None or hidden is not None:
            raise UserError("patches of a PooledViT were to be kept or hidden: its tokens aren't patches'; take a ViT")
        tokens, _ = super().tokens(x, mask, train=train, keys=keys)
        tokens = self.pooler(tokens)
        return tokens, jnp.ones(tokens.shape[:2], bool)

    def pool(self, tokens: Float[Array, "b m e"], token_mask: Bool[Array, "b m"]) -> Float[Array, "b f"]:
        """The embedding of each example, float32, not normalised; all tokens are real."""
        pooled = (self.embedding_pooler(tokens) if self.cascade else tokens)[:, 0]
        pooled = pooled if self.embed_dim is None else self.projection(pooled)
        return pooled.astype(jnp.float32)

    @property
    def embedding_size(self) -> int:
        """The size of the projection, or the tokens' width where there is none."""
        return self.embed_dim or self.token_width or self.sizes.width

    def _pooler(self, queries: int) -> AttentionPooler:
        sizes = self.sizes
        return AttentionPooler(
            queries=queries,
            heads=self.pooler_heads,
            width=self.token_width,
            norm_eps=sizes.norm_eps,
            inits=sizes.inits,
            attention=sizes.attention,
            dtype=sizes.dtype,
        )
