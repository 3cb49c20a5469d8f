"""The light decoder of masked modelling (MAE: He et al. 2021, arXiv:2111.06377), and one that attends within windows
(AudioMAE: Huang et al. 2022, arXiv:2207.06405)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.parameters import constrain, dense, parameter
from mmjax.models.layers.positions import sincos
from mmjax.models.layers.transformer import Transformer
from mmjax.models.layers.window_attention import WindowTransformer

MASK_STD = 0.02


def placed_tokens(
    tokens: Float[Array, "b k w"],
    real: Bool[Array, "b k"],
    keep: Int[Array, "b k"],
    grid: tuple[int, ...],
    mask_token: Float[Array, " w"],
) -> Float[Array, "b n w"]:
    """The tokens of `keep` in their places on the grid, the mask token everywhere else, and fixed positions added."""
    # One-hot rows place the tokens by a matmul, which shards over the batch; a scatter is slow there, as for FLIP.
    place = jax.nn.one_hot(jnp.where(real, keep, -1), math.prod(grid), dtype=tokens.dtype)
    seen = place.sum(axis=1)[..., None] > 0
    patches = jnp.where(seen, jnp.einsum("bkn,bkd->bnd", place, tokens), mask_token)
    return patches + jnp.asarray(sincos(grid, tokens.shape[-1]), tokens.dtype)


def stem(blocks: Blocks) -> nn.Dense:
    """A tower's tokens to the width of a decoder's blocks."""
    init = nn.initializers.xavier_uniform()
    return dense(blocks.width, ("embed", None), init, dtype=blocks.dtype, name="stem")


class Decoder(nn.Module, kw_only=True):
    """Kept tokens `[B, prefix + K, D]` -> a prediction for every patch `[B, N, out_dim]`.

    Projects to its own width, puts the kept tokens in their places and a learned mask token everywhere else, adds fixed
    positions (none to the prefix), and runs its own transformer.

    With a `window` its blocks are Swin v2's, as in AudioMAE's released code (`window_attention`): attention within
    windows, those of every second block shifted; cosines instead of scaled dot products; a bias by relative position,
    made by a small network; norms at the ends of the branches. Two differences: that network has no dropout here (0.1
    there), and a head's scale is learned by its logarithm. The prefix is dropped before the first block.

    Attributes:
        blocks: of its transformer; the width that it projects to is theirs.
        window: size of the windows along each axis of the grid; None: every token attends to all.
        shift: where the first window of every second block begins, along each axis.
        out_dim: size of a prediction; None gives the last normalised states, `[B, N, width]`, for a head of one's own.
    """

    blocks: Blocks
    window: tuple[int, ...] | None = None
    shift: tuple[int, ...] = (0, 0)
    out_dim: int | None = None

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b k d"],
        token_mask: Bool[Array, "b k"],
        keep: Int[Array, "b s"],
        grid: tuple[int, ...],
        prefix: int = 0,
        patch_mask: Bool[Array, "b n"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b n o"]:
        """Predictions, float32, for the patches of `grid`, in its order.

        Args:
            tokens, token_mask: what the tower gave for `keep`: `prefix` tokens, then one for each slot of `keep`.
            keep: ids of the patches that the tower saw; slots of -1, and those that aren't real, are ignored.
            grid: of the patches; its product is N.
            prefix: how many tokens come before the patches; they take part, unless there are windows, and are dropped
                at the end.
            patch_mask: which patches are real; the others are not attended to.
            train: whether dropout acts.
            keys: each example's key for it; None: made of the `dropout` key, for the examples in their order.

        Raises:
            UserError: the number of tokens isn't `prefix` and one for each slot; windows that don't fit the grid.
        """
        if tokens.shape[1] != prefix + keep.shape[1]:
            raise UserError(f"{tokens.shape[1]} tokens are not {prefix} of a prefix and {keep.shape[1]} kept patches")
        x = stem(self.blocks)(tokens)
        mask_init = nn.initializers.normal(MASK_STD)
        mask_token = parameter(self, "mask", mask_init, ("embed",), (self.blocks.width,)).astype(x.dtype)
        patches = placed_tokens(x[:, prefix:], token_mask[:, prefix:], keep, grid, mask_token)
        x = self._transformed(x[:, :prefix], patches, token_mask[:, :prefix], patch_mask, grid, train, keys)
        if self.out_dim is not None:
            init = nn.initializers.xavier_uniform()
            x = dense(self.out_dim, ("embed", "patch"), init, dtype=self.blocks.dtype, name="out")(x)
        return x.astype(jnp.float32)

    def _transformed(
        self,
        prefix: Float[Array, "b p w"],
        patches: Float[Array, "b n w"],
        prefix_mask: Bool[Array, "b p"],
        patch_mask: Bool[Array, "b n"] | None,
        grid: tuple[int, ...],
        train: bool,
        keys: Key[Array, " b"] | None,
    ) -> Float[Array, "b n w"]:
        """The patches' last states."""
        if self.window is not None:
            windows = WindowTransformer(blocks=self.blocks, window=self.window, shift=self.shift, name="transformer")
            return windows(patches, grid, patch_mask)
        x = constrain(jnp.concatenate([prefix, patches], axis=1), "batch", "length", "embed")
        mask = None if patch_mask is None else jnp.concatenate([prefix_mask, patch_mask], axis=1)
        return Transformer(self.blocks, name="transformer")(x, mask, train, keys)[:, prefix.shape[1] :]
