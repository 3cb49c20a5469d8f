"""Attends within windows of a grid, which every other block shifts (Swin v2: Liu et al. 2021, arXiv:2111.09883).

A token attends to those of its own window alone, so that a block's cost grows with the tokens and not with their
square. Windows are cut out by a reshape; those at the edges that lie partly outside of the grid are filled with tokens
that nobody attends to, which is what Swin's rolled windows with their masks come to.
"""

import math
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from mmjax.errors import UserError, not_among
from mmjax.models.layers.parameters import (
    HIDDEN,
    REMAT_POLICIES,
    ActivationName,
    DtypeName,
    Initializer,
    InitName,
    RematName,
    block_inits,
    constrain,
    dense,
    layer_norm,
    parameter,
)
from mmjax.models.layers.transformer import HeadsIn, HeadsOut, Mlp

BIAS_DIM = 384  # hidden units of the network that gives the bias, in AudioMAE's code
SHARPEST = 100.0  # the cosines are multiplied by this at most
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
    """How many tokens to add before and after, along each axis, so that windows fill it."""
    before = [-by % side for by, side in zip(shift, window, strict=True)]
    return [(add, -(add + size) % side) for add, size, side in zip(before, grid, window, strict=True)]


def offsets(window: tuple[int, ...]) -> Float[np.ndarray, "a a axes"]:
    """How far a window's tokens lie apart along each axis: `sign(d) log(1 + |d|)`, of the one that looks minus the one
    that is looked at."""
    places = np.stack(np.meshgrid(*(np.arange(side) for side in window), indexing="ij"), axis=-1)
    places = places.reshape(-1, len(window))
    apart = places[:, None] - places
    return (np.sign(apart) * np.log1p(np.abs(apart))).astype(np.float32)


class CosineAttention(nn.Module):
    """Self-attention of one window's tokens, `[b a d] -> [b a d]`: the logits are cosines of queries and keys times a
    learned scale a head (1 at first, 100 at most), plus a bias that a small network makes of `offsets`."""

    heads: int
    window: tuple[int, ...]
    inits: dict[str, Initializer]

    @nn.compact
    def __call__(self, x: Float[Array, "b a d"], mask: Bool[Array, "b a"]) -> Float[Array, "b a d"]:
        query, key, value = HeadsIn(self.heads, 3, self.inits["qkv"], name="qkv")(x)
        log_scale = parameter(self, "log_scale", nn.initializers.zeros, ("heads",), (self.heads,))
        scale = jnp.exp(jnp.minimum(log_scale, math.log(SHARPEST)))[:, None, None]
        logits = jnp.einsum("bhnk,bhmk->bhnm", _unit(query), _unit(key), preferred_element_type=jnp.float32)
        logits = jnp.where(mask[:, None, None], logits * scale + self._bias(), jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        return HeadsOut(self.inits["out"], name="out")(jnp.einsum("bhnm,bhmk->bhnk", weights, value))

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

    heads: int
    mlp_dim: int
    grid: tuple[int, ...]
    window: tuple[int, ...]
    shift: tuple[int, ...]
    inits: dict[str, Initializer]
    activation: ActivationName = "gelu"
    norm_eps: float = 1e-6
    dtype: DtypeName = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b n d"]:
        norm = partial(layer_norm, eps=self.norm_eps, dtype=self.dtype)
        where = self.grid, self.window, self.shift
        attention = CosineAttention(self.heads, self.window, self.inits, name="attention")
        attended = _joined(attention(_cut(x, *where), _cut(mask, *where)), *where)
        x = constrain(x + norm("norm_attention")(attended), *HIDDEN)
        mlp = Mlp(self.mlp_dim, self.inits, self.activation, self.dtype, name="mlp")
        return constrain(x + norm("norm_mlp")(mlp(x)), *HIDDEN)


class ShiftedPair(nn.Module):
    """Two blocks, the second's windows shifted. Returns a pair, as a scan's body does."""

    shift: tuple[int, ...]
    block: dict[str, Any]

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> tuple[Float[Array, "b n d"], None]:
        x = WindowBlock(shift=(0,) * len(self.shift), **self.block, name="straight")(x, mask)
        return WindowBlock(shift=self.shift, **self.block, name="shifted")(x, mask), None


class WindowTransformer(nn.Module, kw_only=True):
    """`depth` blocks on the tokens of a grid, scanned by pairs (the compiled program holds one pair), and a LayerNorm.

    Attributes:
        depth: number of blocks, even.
        window: size of a window along each axis of the grid.
        shift: where the first window of every second block begins, along each axis; 0 to below the window's size.
        width, heads, mlp_dim, activation, norm_eps, inits, remat, dtype: as in `Transformer`.
    """

    width: int
    depth: int
    heads: int
    window: tuple[int, ...]
    shift: tuple[int, ...]
    mlp_dim: int | None = None
    activation: ActivationName = "gelu"
    norm_eps: float = 1e-6
    inits: InitName = "xavier"
    remat: RematName | None = None
    dtype: DtypeName = "float32"

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
            UserError: an odd depth; a window or shift that doesn't fit the grid.
        """
        self._check(grid)
        pair: type[nn.Module] = ShiftedPair
        if self.remat is not None:
            if self.remat not in REMAT_POLICIES:
                raise UserError(not_among("remat", self.remat, REMAT_POLICIES))
            pair = nn.remat(ShiftedPair, prevent_cse=False, policy=REMAT_POLICIES[self.remat])
        pairs = nn.scan(
            pair,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=cast(Any, nn.broadcast),
            length=self.depth // 2,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        mlp_dim = self.mlp_dim or 4 * self.width
        block = {
            "heads": self.heads,
            "mlp_dim": mlp_dim,
            "grid": grid,
            "window": self.window,
            "inits": block_inits(self.inits, self.width, mlp_dim, self.depth),
            "activation": self.activation,
            "norm_eps": self.norm_eps,
            "dtype": self.dtype,
        }
        mask = jnp.ones(x.shape[:2], bool) if mask is None else mask
        x = constrain(x.astype(self.dtype), *HIDDEN)
        x, _ = pairs(self.shift, block, name="blocks")(x, mask)
        return layer_norm("norm", eps=self.norm_eps, dtype=self.dtype)(x)

    def _check(self, grid: tuple[int, ...]) -> None:
        if self.depth % 2:
            raise UserError(f"depth={self.depth} is odd: blocks with windows come in pairs, one of them shifted")
        if not len(self.window) == len(self.shift) == len(grid) or min(self.window) < 1:
            raise UserError(
                f"window={self.window}, shift={self.shift}: give a size, and a shift, for each axis of the grid {grid}"
            )
        if any(not 0 <= by < side for by, side in zip(self.shift, self.window, strict=True)):
            raise UserError(f"shift={self.shift} must lie between 0 and below window={self.window}, axis by axis")
