"""The transformer of all of MERLOT Reserve's parts, the places of its tokens, and the pooling of their neighbours."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from mmjax.models.layers import rotary
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.parameters import check_heads, dense, layer_norm, parameter, reserve_init
from mmjax.models.layers.transformer import CrossAttention, Transformer
from mmjax.models.towers.contract import CLS_STD

FASTEST = 5.0  # of the pairs of channels: so many times as fast as the slowest
TRUNCATED = 0.87962566  # the deviation of a normal distribution that is cut off at two of its own


def centred(count: int) -> Float[np.ndarray, " n"]:
    """Places along an axis, -n/2, ..., -1, 1, ..., n/2: none is 0, which is a CLS's and that of what has no place."""
    places = np.arange(count, dtype=np.float32) - count // 2
    return np.where(places < 0, places, places + 1)


def on_grid(rows: int, columns: int) -> Float[np.ndarray, "n 2"]:
    """Row and column of each cell, row by row, in shares of the longer side."""
    row, column = np.meshgrid(centred(rows), centred(columns), indexing="ij")
    return np.stack([row, column], axis=-1).reshape(-1, 2) / (max(rows, columns) + 1)


class ReserveEncoder(nn.Module):
    """A LayerNorm, blocks that turn the first half of each head's channels by the tokens' places, and a last LayerNorm;
    perhaps with a CLS, which has no place, and a linear map of that.

    cls: whether there is one. scaled: whether channels are scaled and not turned, as in the released code
    (`rotary.rotate`).
    """

    blocks: Blocks
    cls: bool = False
    scaled: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        places: Float[Array, "*b n a"] | Float[np.ndarray, "*b n a"],
        mask: Bool[Array, "b n"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
        allowed: Bool[Array, "#b n n"] | None = None,
    ) -> Float[Array, "b m d"]:
        """The tokens `[B, N, D]`, or with a CLS `[B, 1 + N, D]`, the first the map of it.

        Args:
            x: tokens.
            places: of each, along each axis.
            mask: which of them are attended to; None: all.
            train, keys, allowed: a `Transformer`'s; with a CLS there is no `allowed`.
        """
        blocks = self.blocks
        if self.cls:
            cls = parameter(self, "cls", nn.initializers.normal(CLS_STD), ("embed",), (blocks.width,))
            first = jnp.broadcast_to(cls.astype(x.dtype), (len(x), 1, blocks.width))
            x = jnp.concatenate([first, x], axis=1)
            places = jnp.pad(places, [*[(0, 0)] * (places.ndim - 2), (1, 0), (0, 0)])
            mask = None if mask is None else jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        turned = check_heads(blocks.width, blocks.heads) // 2
        angles = rotary.angles(places, turned, fastest=FASTEST)
        x = layer_norm("norm_pre", eps=blocks.norm_eps, dtype=blocks.dtype)(x)
        x = Transformer(blocks, scaled=self.scaled, name="transformer")(x, mask, train, keys, angles, allowed)
        if not self.cls:
            return x
        # Its outputs aren't cut over devices: where they were, and stood beside tokens that weren't, XLA (jax 0.10)
        # gave wrong gradients on a 2x2x2 mesh.
        init = reserve_init(blocks.width)
        mapped = dense(blocks.width, ("embed", None), init, dtype=blocks.dtype, name="projection")(x[:, :1])
        return jnp.concatenate([mapped, x[:, 1:]], axis=1)


class NeighbourPool(nn.Module):
    """One token of each few: attention of their mean over them, `[g r d]` -> `[g d]`."""

    heads: int

    @nn.compact
    def __call__(self, tokens: Float[Array, "g r d"]) -> Float[Array, "g d"]:
        lecun = nn.initializers.truncated_normal(tokens.shape[-1] ** -0.5 / TRUNCATED)
        queries = jnp.mean(tokens, axis=1, keepdims=True, dtype=jnp.float32).astype(tokens.dtype)
        return CrossAttention(self.heads, {"qkv": lecun, "out": lecun}, name="attention")(queries, tokens)[:, 0]
