"""The base of transformer towers: their sizes, the way from tokens to the embedding, and the encoding of patches."""

import math
from typing import Any, get_args

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError, not_among, unknown
from mmjax.models.layers import rotary
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import BEFORE_BLOCKS, drop, dropout_keys
from mmjax.models.layers.parameters import (
    BERT_STD,
    HIDDEN,
    Initializer,
    check_heads,
    constrain,
    dense,
    layer_norm,
    parameter,
)
from mmjax.models.layers.pooling import POOLINGS, AttentionPool, PoolingName, check_pooling, mean
from mmjax.models.layers.positions import PositionName, sincos
from mmjax.models.layers.transformer import Transformer
from mmjax.models.towers.bare import BareTower

# What of `Blocks` only a trunk decides.
TRUNKS = ("norm", "dropout", "layer_scale", "out_bias", "remat", "unroll", "attention")
CLS_STD = 0.02  # of a CLS token beside fixed positions (MAE)


class Tower(BareTower, kw_only=True):
    """The encoder of one modality: `tokens`, then `pool`. What a subclass adds is how its inputs become tokens.

    Attributes:
        blocks: of the transformer; None where there is a trunk, whose they are then.
        embed_dim: size E of the embedding; None leaves the pooled token as it is (E = width).
        projection_bias: whether the projection to E has a bias.
        projection_tanh: whether the embedding is the projection's tanh (BERT's pooler).
        pooling: `cls` (first token), `pair` (the mean of the first two), `last` (last one allowed), `mean`, `max`,
            `mean_sqrt` (a sum over the root of its count), `mean_weighted` (by place), `patches` (the mean without what
            stands before the patches), or `map` (attention pooling with an MLP).
        norm_pooled: whether the last LayerNorm is of the pooled token rather than of all tokens before (CLIPA).
        trunk: a `Trunk` that other towers, or a fusion, hold too, in the place of a CLS and a transformer of its own;
            all tokens get a learned vector that tells the modality, where its `kinds` says so. Or a `MultiwayTrunk`,
            whose towers have a CLS of their own.
        way: of a `MultiwayTrunk` whose parameters the tokens go by; None with any other.
        early: blocks of the tower's own before the trunk, without a LayerNorm after the last (CAV-MAE: Gong et al.
            2022, arXiv:2210.07839). A fusion through the trunk, and `Together`, read what comes out of them. They have
            no dropout. None: the trunk's are all.
    """

    blocks: Blocks | None = None
    embed_dim: int | None = None
    projection_bias: bool = False
    projection_tanh: bool = False
    pooling: PoolingName
    trunk: Any = None
    way: str | None = None
    early: Blocks | None = None
    norm_pooled: bool = False

    @property
    def sizes(self) -> Blocks:
        """The tower's own blocks, or those of its trunk: stem, pooling and projection have their width and dtype.

        Raises:
            UserError: it has neither.
        """
        if self.blocks is None and self.trunk is None:
            raise UserError(
                f"a {type(self).__name__} with blocks=None has no transformer: set blocks=Blocks(width=..., depth=..., "
                "heads=...), or a trunk"
            )
        return self.trunk.blocks if self.blocks is None else self.blocks

    @property
    def embedding_size(self) -> int:
        """The size of the projection, or the width where there is none."""
        return self.sizes.width if self.embed_dim is None else self.embed_dim

    def _make_trunk(self, causal: bool = False) -> None:
        """The parts of every tower, for `setup`."""
        check_pooling(self.pooling)
        sizes = self.sizes
        if self.trunk is not None:
            self._check_trunk(causal)
            if self.trunk.kinds:
                self.kind = parameter(self, "kind", nn.initializers.normal(CLS_STD), ("embed",), (sizes.width,))
            if self.early is not None:
                self.transformer = Transformer(self.early, final_norm=False)
        elif self.early is not None:
            raise UserError("early blocks come before a trunk, and there is none: set trunk, or make them the blocks")
        elif self.way is not None:
            raise UserError(f"way={self.way!r} is a MultiwayTrunk's, and there is no trunk: set trunk, or leave it out")
        else:
            self.transformer = self.make_transformer(causal)
        if self.norm_pooled:
            if sizes.norm == "post" or self.pooling == "map":
                raise UserError(
                    f"norm_pooled=True goes with norm='pre' and a pooling that only picks or averages, not with "
                    f"norm={sizes.norm!r} and pooling={self.pooling!r}"
                )
            self.norm_post = layer_norm(eps=sizes.norm_eps, dtype=sizes.dtype)
        if self.pooling == "map":
            self.attention_pool = AttentionPool(
                heads=sizes.heads,
                mlp_dim=sizes.hidden,
                activation=sizes.activation,
                norm_eps=sizes.norm_eps,
                inits=sizes.inits,
                dtype=sizes.dtype,
            )
        if self.projection_tanh and self.embed_dim is None:
            raise UserError("projection_tanh=True needs a projection: set embed_dim, to the width say")
        if self.embed_dim is not None:
            init = nn.initializers.normal(sizes.width**-0.5)
            if sizes.inits == "bert":
                init = nn.initializers.truncated_normal(BERT_STD)
            axes = ("embed", "joint")
            self.projection = dense(self.embed_dim, axes, init, dtype=sizes.dtype, bias=self.projection_bias)

    def make_transformer(self, causal: bool) -> Any:
        """The tower's own transformer, where it has no trunk."""
        return Transformer(self.sizes, causal, final_norm=not self.norm_pooled)

    def _check_trunk(self, causal: bool) -> None:
        """Raises UserError where a tower wants something else than the trunk gives it."""
        if self.trunk.ways and self.way not in self.trunk.ways:
            raise UserError(unknown("a tower goes its trunk's way", str(self.way), self.trunk.ways, "ways"))
        if not self.trunk.ways and self.way is not None:
            raise UserError(
                f"way={self.way!r} is a MultiwayTrunk's, and a {type(self.trunk).__name__} has none: leave it out"
            )
        if self.early is not None and (self.early.width != self.trunk.blocks.width or self.early.dropout):
            raise UserError(
                f"early.width={self.early.width} and early.dropout={self.early.dropout}: blocks before a trunk are as "
                f"wide as its own, trunk.blocks.width={self.trunk.blocks.width}, and have no dropout"
            )
        own = {"causal": causal, "norm_pooled": self.norm_pooled}
        if self.blocks is not None:
            for name in ("width", "depth", "heads"):
                mine, its = getattr(self.blocks, name), getattr(self.trunk.blocks, name)
                if mine != its:
                    raise UserError(
                        f"blocks.{name}={mine}, but trunk.blocks.{name}={its}: set both alike, or leave out blocks, "
                        "which are then the trunk's"
                    )
            own |= dict.fromkeys(self.blocks.set_among(TRUNKS), True)
        if given := [name for name, value in own.items() if value]:
            raise UserError(
                f"with a trunk a tower has no {', '.join(given)} of its own: leave it out, or set the trunk's"
            )

    def pool(self, tokens: Float[Array, "b n d"], token_mask: Bool[Array, "b n"]) -> Float[Array, "b e"]:
        """The embedding of each example, float32, not normalised."""
        if self.pooling == "patches":
            pooled = mean(tokens[:, self.prefix :], token_mask[:, self.prefix :])
        else:
            pooling = self.attention_pool if self.pooling == "map" else POOLINGS[self.pooling]
            pooled = pooling(tokens, token_mask)
        if self.norm_pooled:
            pooled = self.norm_post(pooled)
        if self.embed_dim is not None:
            pooled = self.projection(pooled)
            pooled = jnp.tanh(pooled) if self.projection_tanh else pooled
        return pooled.astype(jnp.float32)

    def through_trunk(
        self, tokens: Float[Array, "b n d"], real: Bool[Array, "b n"], train: bool, keys: Key[Array, " b"] | None
    ) -> tuple[Float[Array, "b m d"], Bool[Array, "b m"]]:
        """The trunk's encoding of what `front` gives."""
        if self.way is None:
            return self.trunk(tokens, real, train, keys)
        return self.trunk(tokens, real, train, keys, ((self.way, tokens.shape[1]),))

    def _for_trunk(self, tokens: Float[Array, "b n d"], real: Bool[Array, "b n"]) -> Float[Array, "b n d"]:
        """The trunk's input: with the vector that tells the modality, where towers have one, through `early`."""
        tokens = tokens + self.kind.astype(tokens.dtype) if self.trunk.kinds else tokens
        return tokens if self.early is None else self.transformer(tokens, real)

    def normed(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """The tokens after the last LayerNorm, which with `norm_pooled` `tokens` comes before."""
        return self.norm_post(tokens) if self.norm_pooled else tokens

    def front(
        self, x: Array, mask: Array | None = None, keep: Array | None = None
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The transformer's input (the trunk's, where there is one), `[B, N, D]` in `dtype`, and a mask of the real
        tokens: without a prefix, but for the tower's own where it has a trunk.
        """
        raise NotImplementedError


def check_positions(positions: str, trunk: Any) -> None:
    """Raises UserError where there are no such positions, or not with a trunk."""
    if positions not in get_args(PositionName):
        raise UserError(not_among("positions", positions, get_args(PositionName)))
    if positions == "rotary" and trunk is not None:
        raise UserError("positions='rotary' acts in a tower's own blocks, which it hasn't with a trunk: take sincos")


def take_kept(values: Array, keep: Int[Array, "b k"]) -> Array:
    """Takes those of `values` `[B, N, ...]` that the tokens `keep` have; an empty slot (-1) takes token 0's, and must
    be masked.
    """
    ids = jnp.maximum(keep, 0).reshape(*keep.shape, *(1,) * (values.ndim - 2))
    return jnp.take_along_axis(values, ids, axis=1)


class PatchTower(Tower, kw_only=True):
    """A tower whose tokens are patches of a grid: linear stem, positions, perhaps a CLS, transformer.

    Attributes:
        positions: `learned` (one more for the CLS, and for what follows it), `sincos` (fixed; none for these), or
            `rotary` (no table: each block turns queries and keys by the patch's place along each axis; not a CLS's), or
            `none`, for a trunk that knows places by itself.
        cls: whether a learned CLS token comes first.
        distill: whether another one follows it (AST's and DeiT's distillation token).
        pre_norm: whether a LayerNorm stands before the first block (CLIP).
        stem_bias: whether the stem has a bias.
        position_std: deviation of initial learned positions; None means width^-1/2 (CLIP).
        position_offset: number of rows of learned positions before the first token's, which none reads (fairseq's: 2).
        mask_token: whether there is a learned token that stands for hidden patches (BEiT), see `CorruptPatches`.
    """

    positions: PositionName = "learned"
    cls: bool = False
    distill: bool = False
    pre_norm: bool = False
    stem_bias: bool = True
    position_std: float | None = None
    position_offset: int = 0
    mask_token: bool = False

    @property
    def prefix(self) -> int:
        """The number of tokens before the patches: a CLS, perhaps another one, or none."""
        return self.cls + self.distill + (0 if self.trunk is None else self.trunk.prefix)

    def capacity(self) -> tuple[int, ...]:
        """The grid for which learned positions are kept."""
        raise NotImplementedError

    def grid(self, x: Array) -> tuple[int, ...]:
        """The grid of `x`'s patches; its product is their number N."""
        raise NotImplementedError

    def patches(self, x: Array, mask: Array | None = None) -> tuple[Float[Array, "b n p"], Bool[Array, "b n"]]:
        """The patches' values, normalised, float32, and a mask of the real ones: the stem's input, a masked loss's
        target.
        """
        raise NotImplementedError

    def setup(self) -> None:
        check_positions(self.positions, self.trunk)
        if self.trunk is not None and (self.pre_norm or (self.trunk.prefix and (self.cls or self.distill))):
            raise UserError("the trunk has a CLS: a tower with one has no cls, distill or pre_norm of its own")
        if self.pooling == "cls" and not self.prefix:
            raise UserError("pooling='cls' needs cls=True: without it the first token is the first patch")
        if (self.distill and not self.cls) or (self.pooling == "pair" and not self.distill):
            raise UserError("pooling='pair' needs distill=True, and that a CLS before it: set cls=True too")
        self._make_trunk()
        sizes = self.sizes
        self.stem = dense(sizes.width, ("patch", "embed"), self.stem_init(), dtype=sizes.dtype, bias=self.stem_bias)
        if self.positions == "learned":
            init = nn.initializers.normal(sizes.width**-0.5 if self.position_std is None else self.position_std)
            shape = (self.position_offset + self.cls + self.distill + math.prod(self.capacity()), sizes.width)
            self.position = parameter(self, "position", init, ("position", "embed"), shape)
        if self.cls:
            std = sizes.width**-0.5 if self.positions == "learned" else CLS_STD
            self.cls_token = parameter(self, "cls", nn.initializers.normal(std), ("embed",), (sizes.width,))
            if self.distill:
                self.distill_token = parameter(self, "distill", nn.initializers.normal(std), ("embed",), (sizes.width,))
        if self.mask_token:
            self.hidden_patch = parameter(self, "mask", nn.initializers.normal(CLS_STD), ("embed",), (sizes.width,))
        if self.pre_norm:
            self.norm_pre = layer_norm(eps=sizes.norm_eps, dtype=sizes.dtype)

    def stem_init(self) -> Initializer:
        """The initialiser of the stem's matrix."""
        return nn.initializers.xavier_uniform()

    def turned(self, size: int, axes: int) -> int:
        """The number of channels that `rotary` turns along so many axes, of heads of that size; here: all."""
        del axes
        return size

    def coordinates(self, grid: tuple[int, ...]) -> Float[np.ndarray, "n a"]:
        """The positions of the patches of `grid` along each axis, for `rotary`."""
        return np.moveaxis(np.indices(grid, np.float32), 0, -1).reshape(-1, len(grid))

    def _angles(self, grid: tuple[int, ...], keep: Int[Array, "b k"] | None) -> Float[Array, "*b n p"] | None:
        """The rotary angles of the transformer's tokens; None where positions aren't rotary."""
        if self.positions != "rotary":
            return None
        size = check_heads(self.sizes.width, self.sizes.heads)
        found = rotary.angles(self.coordinates(grid), self.turned(size, len(grid)))
        if keep is not None:
            found = found[jnp.maximum(keep, 0)]
        before = [(0, 0)] * (found.ndim - 2)
        return jnp.pad(found, [*before, (self.prefix, 0), (0, 0)])

    def _positions(self, grid: tuple[int, ...]) -> Float[Array, "n d"] | None:
        """The position embeddings of the patches of `grid`, without the CLS's."""
        if self.positions in ("rotary", "none"):
            return None
        if self.positions == "sincos":
            return jnp.asarray(sincos(grid, self.sizes.width))
        full = self.capacity()
        if any(size > most for size, most in zip(grid, full, strict=True)):
            raise UserError(f"a grid of {grid} patches is larger than the {full} that learned positions are kept for")
        rows = self.position[self.position_offset + self.cls + self.distill :].reshape(*full, self.sizes.width)
        return rows[tuple(slice(size) for size in grid)].reshape(-1, self.sizes.width)

    def front(
        self,
        x: Array,
        mask: Array | None = None,
        keep: Int[Array, "b k"] | None = None,
        hidden: Bool[Array, "b n"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        patches, real = self.patches(x, mask)
        positions = self._positions(self.grid(x))
        if keep is not None:  # before the stem: what is dropped costs nothing
            patches = take_kept(patches, keep)
            real = (keep >= 0) & take_kept(real, keep)
            positions = None if positions is None else positions[jnp.maximum(keep, 0)]
        tokens = self.stem(patches)
        if hidden is not None:
            hidden = hidden if keep is None else take_kept(hidden, keep)
            tokens = jnp.where(hidden[..., None], self.hidden_patch.astype(tokens.dtype), tokens)
        tokens = tokens if positions is None else tokens + positions.astype(self.sizes.dtype)
        if self.trunk is None:
            return tokens, real
        tokens, real = self._with_prefix(tokens, real) if self.cls else (tokens, real)
        return self._for_trunk(tokens, real), real

    def _with_prefix(
        self, tokens: Float[Array, "b n d"], real: Bool[Array, "b n"]
    ) -> tuple[Float[Array, "b m d"], Bool[Array, "b m"]]:
        """The tokens after the tower's CLS, and what follows it."""
        first = jnp.stack([self.cls_token, self.distill_token] if self.distill else [self.cls_token])
        if self.positions == "learned":
            first = first + self.position[self.position_offset : self.position_offset + len(first)]
        first = jnp.broadcast_to(first.astype(tokens.dtype), (len(tokens), *first.shape))
        tokens = jnp.concatenate([first, tokens], axis=1)
        return tokens, jnp.pad(real, ((0, 0), (first.shape[1], 0)), constant_values=True)

    def tokens(
        self,
        x: Array,
        mask: Array | None = None,
        keep: Int[Array, "b k"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
        hidden: Bool[Array, "b n"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The tokens, as every tower's.

        hidden: a mask of the patches in whose place the mask token is read; the tower has `mask_token=True`.
        """
        tokens, real = self.front(x, mask, keep, hidden)
        if self.trunk is not None:
            return self.through_trunk(tokens, real, train, keys)
        tokens, real = self._with_prefix(tokens, real) if self.cls else (tokens, real)
        if self.pre_norm:
            tokens = self.norm_pre(tokens)
        rate = self.sizes.dropout
        keys = dropout_keys(self, rate, train, keys, len(tokens))
        tokens = drop(constrain(tokens, *HIDDEN), rate, keys, BEFORE_BLOCKS)
        all_real = mask is None and keep is None  # then attention needs no mask
        angles = self._angles(self.grid(x), keep)
        return self.transformer(tokens, None if all_real else real, train, keys, angles), real
