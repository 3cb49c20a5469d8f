"""The text tower: a transformer over token ids, causal (CLIP) or not (SigLIP)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.models.heads import PoolingName
from mmjax.models.layers import BEFORE_BLOCKS, HIDDEN, constrain, drop, dropout_keys, parameter
from mmjax.models.tower import Tower, take_kept


class TextTransformer(Tower, kw_only=True):
    """Token ids int32 `[B, L]` -> embeddings and learned positions -> transformer. There is no prefix.

    Attributes:
        vocab: number of token ids.
        length: the longest text, in tokens; shorter ones use its first positions.
        causal: whether a token sees only itself and those before it.
        attend_padding: whether padding counts as text (SigLIP: padded with its end token, pooled at the last position).
        token_std, position_std: of the initial tables (the defaults are CLIP's).
    """

    vocab: int
    length: int
    causal: bool = False
    attend_padding: bool = False
    pooling: PoolingName = "last"
    token_std: float = 0.02
    position_std: float = 0.01

    @property
    def prefix(self) -> int:
        """No token stands before the words."""
        return 0

    def setup(self) -> None:
        self._make_trunk(self.causal)
        token_init = nn.with_logical_partitioning(nn.initializers.normal(self.token_std), ("vocab", "embed"))
        self.token = nn.Embed(self.vocab, self.width, dtype=jnp.dtype(self.dtype), embedding_init=token_init)
        init = nn.initializers.normal(self.position_std)
        self.position = parameter(self, "position", init, ("position", "embed"), (self.length, self.width))

    def grid(self, x: Int[Array, "b l"]) -> tuple[int, ...]:
        """The number of positions, `(L,)`."""
        return (x.shape[1],)

    def patches(
        self, x: Int[Array, "b l"], mask: Bool[Array, "b l"] | None = None
    ) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
        """The ids, and which of them are text rather than padding."""
        return x, jnp.ones(x.shape, bool) if mask is None else mask

    def tokens(
        self,
        x: Int[Array, "b l"],
        mask: Bool[Array, "b l"] | None = None,
        keep: Int[Array, "b k"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        if x.shape[1] > self.length:
            raise ValueError(
                f"texts of {x.shape[1]} tokens are longer than the {self.length} positions of length={self.length}"
            )
        ids, real = self.patches(x, None if self.attend_padding else mask)
        all_real = keep is None and (mask is None or self.attend_padding)  # then attention needs no mask
        positions = self.position[: x.shape[1]]
        if keep is not None:
            ids, real = take_kept(ids, keep), (keep >= 0) & take_kept(real, keep)
            positions = positions[jnp.maximum(keep, 0)]
        tokens = self.token(ids) + positions.astype(self.dtype)
        keys = dropout_keys(self, self.dropout, train, keys, len(tokens))
        tokens = drop(constrain(tokens, *HIDDEN), self.dropout, keys, BEFORE_BLOCKS)
        # With a causal mask and a kept subset, "before" is the order of the slots.
        return self.transformer(tokens, None if all_real else real, train, keys), real
