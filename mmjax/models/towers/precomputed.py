"""The tower of a modality that comes embedded."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError
from mmjax.models.towers.bare import BareTower, Incoming


class Given(BareTower, kw_only=True):
    """Vectors `[B, E]` are the embedding: what a frozen tower gave, cached (`mmjax.data.Features`). No parameters.

    Attributes:
        embed_dim: their size E.
    """

    embed_dim: int

    @property
    def embedding_size(self) -> int:
        """`embed_dim`."""
        return self.embed_dim

    def check_input(self, path: str, given: Incoming) -> None:
        if given.shape != (self.embed_dim,):
            raise UserError(f"data.transforms gives {given}, and {path}.embed_dim={self.embed_dim}: set it to theirs")

    def grid(self, x: Float[Array, "b e"]) -> tuple[int, ...]:
        """One token."""
        return (1,)

    def patches(self, x: Float[Array, "b e"], mask: None = None) -> tuple[Float[Array, "b 1 e"], Bool[Array, "b 1"]]:
        """The vector, real."""
        return x[:, None], jnp.ones((len(x), 1), bool)

    def tokens(
        self, x: Float[Array, "b e"], mask: None = None, keep: None = None, train: bool = False, keys: None = None
    ) -> tuple[Float[Array, "b 1 e"], Bool[Array, "b 1"]]:
        """The vector as the one token. Raises UserError where it is of another size."""
        if x.shape[1] != self.embed_dim:
            raise UserError(f"vectors of {x.shape[1]} numbers, and embed_dim={self.embed_dim}: set it to theirs")
        return self.patches(x)

    def pool(self, tokens: Float[Array, "b 1 e"], token_mask: Bool[Array, "b 1"]) -> Float[Array, "b e"]:
        """The vector."""
        return tokens[:, 0]

    def __call__(self, x: Float[Array, "b e"], mask: None = None, train: bool = False) -> Float[Array, "b e"]:
        """The vector."""
        return self.pool(*self.tokens(x))
