"""Attends within windows of a grid, which every other block shifts (Swin v2: Liu et al. 2021, arXiv:2111.09883).

A token attends to those of its own window alone, so that a block's cost grows with the tokens and not with their
square. Windows are cut out by a reshape; those at the edges that lie partly outside of the grid are filled with tokens
that nobody attends to, which is what Swin's rolled windows with their masks come to.
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from mmjax.errors import UserError
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.parameters import HIDDEN, Initializer, constrain, dense, layer_norm, parameter
from mmjax.models.layers.transformer import HeadsIn, HeadsOut, Mlp

BIAS_DIM = 384  # hidden units of the network that gives the bias, in AudioMAE's code
SHARPEST = 100.0  # the cosines are multiplied by this at most
UNHONOURED = ("norm", "layer_scale", "dropout", "attention")  # what of `Blocks` has no place in these
EPSILON = 1e-12  # added to a squared norm: the gradient at a zero vector stays finite


def _cut(
    x: Shaped[Array, "b n *rest"], grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]
) -> Shaped[Array, "bw a *rest"]:
    """Tokens of `grid` -> windows of `a = prod(window)` tokens, an example's one after the other.

    Along each axis a window begins at `shift`, and at each multiple of its size from there; where one lies outside of
    the grid it holds zeros (or False).
    """
    x, rest = x.reshape(len(x), *grid, *x.shape[2:]), x.shape[2:]
    margins = _margins(grid, window, shift)
    x = jnp.pad(x, ((0, 0), *margins, *((0, 0) for _ in rest)))
    sizes = [part for size, side in zip(x.shape[1:], window, strict=False) for part in (size // side, side)]
    axes = 2 * len(grid)
    order = (0, *range(1, axes, 2), *range(2, axes + 1, 2), *range(axes + 1, axes + 1 + len(rest)))
    return x.reshape(len(x), *sizes, *rest).transpose(order).reshape(-1, math.prod(window), *rest)


def _joined(
    windows: Float[Array, "bw a d"], grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]
) -> Float[Array, "b n d"]:
    """The inverse of `cut`."""
    margins = _margins(grid, window, shift)
    counts = [(sum(around) + size) // side for around, size, side in zip(margins, grid, window, strict=True)]
    x = windows.reshape(-1, *counts, *window, windows.shape[-1])
    dims = len(grid)
    order = (0, *(axis for i in range(dims) for axis in (1 + i, 1 + dims + i)), 2 * dims + 1)
    whole = [count * side for count, side in zip(counts, window, strict=True)]
    x = x.transpose(order).reshape(-1, *whole, windows.shape[-1])
    x = x[:, *(slice(before, before + size) for (before, _), size in zip(margins, grid, strict=True))]
    return x.reshape(len(x), math.prod(grid), windows.shape[-1])


def _margins(grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> list[tuple[int, int]]:
    """The tokens to add before and after, along each axis, so that windows fill it."""
    before = [-by % side for by, side in zip(shift, window, strict=True)]
    return [(add, -(add + size) % side) for add, size, side in zip(before, grid, window, strict=True)]


def offsets(window: tuple[int, ...]) -> Float[np.ndarray, "a a axes"]:
    """The distances d of a window's tokens, query minus key, along each axis, as `sign(d) log(1 + |d|)`."""
    places = np.stack(np.meshgrid(*(np.arange(side) for side in window), indexing="ij"), axis=-1)
    places = places.reshape(-1, len(window))
    apart = places[:, None] - places
    return (np.sign(apart) * np.log1p(np.abs(apart))).astype(np.float32)


class CosineAttention(nn.Module):
    """Self-attention of one window's tokens, `[b a d] -> [b a d]`: the logits are cosines of queries and keys times a
    learned scale a head (1 at first, 100 at most), plus a bias that a small network makes of `offsets`. out_bias:
    whether the last map has a bias."""

    heads: int
    window: tuple[int, ...]
    inits: dict[str, Initializer]
    out_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b a d"], mask: Bool[Array, "b a"]) -> Float[Array, "b a d"]:
        query, key, value = HeadsIn(self.heads, 3, self.inits["qkv"], name="qkv")(x)
        log_scale = parameter(self, "log_scale", nn.initializers.zeros, ("heads",), (self.heads,))
        scale = jnp.exp(jnp.minimum(log_scale, math.log(SHARPEST)))[:, None, None]
        logits = jnp.einsum("bhnk,bhmk->bhnm", _unit(query), _unit(key), preferred_element_type=jnp.float32)
        logits = jnp.where(mask[:, None, None], logits * scale + self._bias(), jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        out = HeadsOut(self.inits["out"], use_bias=self.out_bias, name="out")
        return out(jnp.einsum("bhnm,bhmk->bhnk", weights, value))

    def _bias(self) -> Float[Array, "h a a"]:
        init = nn.initializers.xavier_uniform()
        layer = partial(dense, init=init, dtype="float32")
        hidden = nn.relu(layer(BIAS_DIM, (None, "mlp"), name="bias_in")(jnp.asarray(offsets(self.window))))
        return jnp.moveaxis(layer(self.heads, ("mlp", "heads"), name="bias_out")(hidden), -1, 0)


def _unit(x: Float[Array, "b h n k"]) -> Float[Array, "b h n k"]:
    """Unit vectors, in x's own numbers; their norms are computed in fp32."""
    squared = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(squared + EPSILON)).astype(x.dtype)


class WindowBlock(nn.Module):
    """One block, with the norms at the ends of its branches: `x += norm(attention(x)); x += norm(mlp(x))`."""

    blocks: Blocks
    grid: tuple[int, ...]
    window: tuple[int, ...]
    shift: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b n d"]:
        blocks, inits = self.blocks, self.blocks.initializers()
        norm = partial(layer_norm, eps=blocks.norm_eps, dtype=blocks.dtype)
        where = self.grid, self.window, self.shift
        attention = CosineAttention(blocks.heads, self.window, inits, blocks.out_bias, name="attention")
        attended = _joined(attention(_cut(x, *where), _cut(mask, *where)), *where)
        x = constrain(x + norm("norm_attention")(attended), *HIDDEN)
        mlp = Mlp(blocks.hidden, inits, blocks.activation, blocks.dtype, out_bias=blocks.out_bias, name="mlp")
        return constrain(x + norm("norm_mlp")(mlp(x)), *HIDDEN)


class ShiftedPair(nn.Module):
    """Two blocks, the second's windows shifted. Returns a pair, as a scan's body does."""

    blocks: Blocks
    grid: tuple[int, ...]
    window: tuple[int, ...]
    shift: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> tuple[Float[Array, "b n d"], None]:
        block = partial(WindowBlock, self.blocks, self.grid, self.window)
        x = block((0,) * len(self.shift), name="straight")(x, mask)
        return block(self.shift, name="shifted")(x, mask), None


class WindowTransformer(nn.Module, kw_only=True):
    """Blocks on the tokens of a grid, scanned by pairs (the compiled program holds one pair), and a LayerNorm.

    Attributes:
        blocks: their number, which is even, sizes and choices. `UNHONOURED` ones are left at their defaults.
        window: size of a window along each axis of the grid.
        shift: where the first window of every second block begins, along each axis; 0 to below the window's size.
    """

    blocks: Blocks
    window: tuple[int, ...]
    shift: tuple[int, ...]

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], grid: tuple[int, ...], mask: Bool[Array, "b n"] | None = None
    ) -> Float[Array, "b n d"]:
        """The tokens' last states, normalised, in `dtype`.

        Args:
            x: the tokens of `grid`, in its order, and no others.
            grid: theirs; windows needn't divide it.
            mask: which tokens are attended to.

        Raises:
            UserError: an odd depth; a choice that these blocks don't have; a window or shift that doesn't fit the grid.
        """
        self._check(grid)
        blocks = self.blocks
        pairs = blocks.scanned(ShiftedPair, blocks.depth // 2, nn.broadcast)
        mask = jnp.ones(x.shape[:2], bool) if mask is None else mask
        x = constrain(x.astype(blocks.dtype), *HIDDEN)
        x, _ = pairs(blocks, grid, self.window, self.shift, name="blocks")(x, mask)
        return layer_norm("norm", eps=blocks.norm_eps, dtype=blocks.dtype)(x)

    def _check(self, grid: tuple[int, ...]) -> None:
        if self.blocks.depth % 2:
            raise UserError(f"depth={self.blocks.depth} is odd: blocks with windows come in pairs, one of them shifted")
        if given := self.blocks.set_among(UNHONOURED):
            raise UserError(
                f"blocks with windows have no {', '.join(given)}: leave it out (they attend by cosines, with the norms "
                "at the ends of their branches), or set window=None"
            )
        if not len(self.window) == len(self.shift) == len(grid) or min(self.window) < 1:
            raise UserError(
                f"window={self.window}, shift={self.shift}: give a size, and a shift, for each axis of the grid {grid}"
            )
        if any(not 0 <= by < side for by, side in zip(self.shift, self.window, strict=True)):
            raise UserError(f"shift={self.shift} must lie between 0 and below window={self.window}, axis by axis")
