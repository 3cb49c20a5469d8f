"""The contract of every tower, and what a tower is told of the inputs that the data has for it."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError
from mmjax.models.layers.pooling import mean


@dataclass(frozen=True)
class Incoming:
    """The array of one example of a modality in a batch.

    labels: what else the data tells of an example, by name. rate: of sounds, the samples in a second, where the data
    says it. pieces: of texts, how many ids their tokenizer may come to have, and of codes, how many there are; 0:
    it isn't known. slots: of texts with places for others' tokens, each other's name and number of tokens, in the order
    in which these are counted through.
    """

    shape: tuple[int, ...]
    dtype: str
    labels: tuple[str, ...] = ()
    rate: int | None = None
    pieces: int = 0
    slots: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class BareTower(nn.Module):
    """The encoder of one modality: `tokens`, then `pool`. A tower of your own subclasses this, and writes `tokens`.

    `mmjax.models.Tower` adds the sizes and the parts of a transformer.
    """

    @property
    def prefix(self) -> int:
        """The number of tokens before those of the input."""
        return 0

    @property
    def embedding_size(self) -> int | None:
        """The number of dimensions E of an embedding, where the fields set it, for objectives that compare
        embeddings.
        """
        return None

    @property
    def vocabulary(self) -> int | None:
        """The number of token ids of a tower that reads them; None: it reads something else."""
        return None

    def check_input(self, path: str, given: Incoming) -> None:
        """Says what the tower accepts; here: anything.

        path: of the tower in the experiment, `towers.image`.

        Raises:
            UserError: it can't read this; names the path, with the value of what doesn't fit, and what to do.
        """

    def grid(self, x: Array) -> tuple[int, ...]:
        """The layout of the patches of `x`; the product is their number N."""
        return (1,)

    def patches(self, x: Array, mask: Array | None = None) -> tuple[Array, Array]:
        """The patches' values `[B, N, ...]`, and a mask of the real ones, for masking. Default: none."""
        raise UserError(f"a {type(self).__name__} has no patches that could be masked: leave masking out")

    def tokens(
        self,
        x: Array,
        mask: Array | None = None,
        keep: Array | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """Tokens `[B, prefix + N, D]` in `dtype`, and which of them are real.

        Args:
            x: the batch's entry of this modality.
            mask: which of its words or samples are real; None means all.
            keep: ids `[B, K]` of the tokens that stay (FLIP, MAE), in the order in which they are given; -1 is an empty
                slot, whose token is not real. A CLS always stays, comes first, and is not counted in the ids.
            train: whether dropout acts.
            keys: each example's key for it; None: made of the `dropout` key, for the examples in their order.
        """
        raise NotImplementedError

    def pool(self, tokens: Float[Array, "b n d"], token_mask: Bool[Array, "b n"]) -> Float[Array, "b e"]:
        """The embedding of each example, float32, not normalised. Here: the mean of its tokens."""
        return mean(tokens, token_mask).astype(jnp.float32)

    def __call__(self, x: Array, mask: Array | None = None, train: bool = False, **told: Array) -> Float[Array, "b e"]:
        """The embedding of each example, float32, not normalised; told: what else `tokens` takes, a text's types."""
        return self.pool(*self.tokens(x, mask, train=train, **told))
