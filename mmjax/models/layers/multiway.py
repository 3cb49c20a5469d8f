"""Multiway blocks: the tokens of all inputs attend to each other, and each goes by the parameters of its own way (VLMo:
Bao et al. 2021, arXiv:2111.02358; BEiT-3: Wang et al. 2022, arXiv:2208.10442; CAV-MAE: Gong et al. 2022,
arXiv:2210.07839)."""

from collections.abc import Callable
from functools import partial
from itertools import accumulate

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError, not_among
from mmjax.models.layers.attention_maps import attend_by
from mmjax.models.layers.attentions import ATTENTIONS, AttentionName
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import drop
from mmjax.models.layers.parameters import HIDDEN, DtypeName, Initializer, constrain, layer_norm, parameter
from mmjax.models.layers.transformer import HeadsIn, HeadsOut, LayerScale, Mlp

Ways = tuple[tuple[str, int], ...]  # the ways of a sequence, each with the number of its tokens, in their order
ALL = "all"  # the way of parameters that all tokens share


def by_way(ways: Ways, x: Float[Array, "b n d"], module: Callable[[str], Callable[[Array], Array]]) -> Array:
    """Each way's tokens through a module of its own: `module("_image")` makes the one of the way `image`."""
    return jnp.concatenate([module(f"_{name}")(piece) for name, piece in pieces(ways, x, axis=1)], axis=1)


def pieces(ways: Ways, x: Array, axis: int) -> list[tuple[str, Array]]:
    """The tokens of each way, by its name."""
    ends = list(accumulate(length for _, length in ways))
    return [(name, piece) for (name, _), piece in zip(ways, jnp.split(x, ends[:-1], axis=axis), strict=True)]


class MultiwayAttention(nn.Module):
    """Multi-head self-attention `[b n d]` -> `[b n d]` with projections of each way's own.

    ways: see `Ways`; none: all tokens share the projections. inner_norm: the epsilon of a LayerNorm before the last
    projection (Magneto: Wang et al. 2022, arXiv:2210.06423); None: there is none. key_bias: whether keys have a bias.
    distances: the number of relative positions, each of which has a number for each head; 0: there are none. out_bias:
    whether the last projection has a bias.
    """

    heads: int
    inits: dict[str, Initializer]
    ways: Ways
    attention: AttentionName
    dtype: DtypeName
    inner_norm: float | None = None
    key_bias: bool = True
    distances: int = 0
    out_bias: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"], between: Int[Array, "n n"] | None = None
    ) -> Float[Array, "b n d"]:
        if self.attention not in ATTENTIONS:
            raise UserError(not_among("attention", self.attention, ATTENTIONS))
        ways = [(f"_{name}", length) for name, length in self.ways] or [("", x.shape[1])]
        init = self.inits["qkv"]
        parts = [
            HeadsIn(self.heads, 3, init, key_bias=self.key_bias, name=f"qkv{way}")(piece)
            for way, piece in pieces(tuple(ways), x, axis=1)
        ]
        query, key, value = (jnp.concatenate(each, axis=2) for each in zip(*parts, strict=True))
        bias = None
        if between is not None:
            table = parameter(self, "relative", nn.initializers.zeros, (None, "heads"), (self.distances, self.heads))
            bias = jnp.moveaxis(table[between], -1, 0)
        attended = attend_by(self, self.attention, query, key, value, mask, bias=bias)
        out = []
        for way, piece in pieces(tuple(ways), attended, axis=2):
            piece = piece if self.inner_norm is None else self._normed(f"norm{way}", piece)
            out.append(HeadsOut(self.inits["out"], use_bias=self.out_bias, name=f"out{way}")(piece))
        return jnp.concatenate(out, axis=1)

    def _normed(self, name: str, x: Float[Array, "b h n k"]) -> Float[Array, "b h n k"]:
        """The heads of each token normalised together."""
        assert self.inner_norm is not None
        joined = jnp.moveaxis(x, 1, 2)
        batch, length, heads, size = joined.shape
        flat = joined.reshape(batch, length, heads * size)
        normed = layer_norm(name, eps=self.inner_norm, dtype=self.dtype)(flat)
        return jnp.moveaxis(normed.reshape(joined.shape), 2, 1)


class MultiwayBlock(nn.Module):
    """One pre-LN layer; returns a pair, as a scan's body does.

    Attributes:
        blocks: its sizes and choices.
        ways: of the tokens; none: all have one MLP, of the way `all`.
        idle: further ways, which have parameters here and no token in this call.
        apart: whether each way has everything of its own, attention's projections and the norms too (BEiT-3), or its
            MLP and the norm before it (VLMo).
        sub_norm: whether a LayerNorm stands before the last linear map of attention and of the MLP (Magneto).
        key_bias: whether keys have a bias.
        distances: the number of relative positions; 0: there are none.
        norms: whether each way has its two norms alone of its own, and all else is every token's (CAV-MAE).
    """

    blocks: Blocks
    ways: Ways
    idle: tuple[str, ...] = ()
    apart: bool = False
    sub_norm: bool = False
    key_bias: bool = True
    distances: int = 0
    norms: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"],
        keys: Key[Array, " b"] | None = None,
        layer: Int[Array, ""] | int = 0,
        between: Int[Array, "n n"] | None = None,
    ) -> tuple[Float[Array, "b n d"], None]:
        blocks, inits = self.blocks, self.blocks.initializers()
        if keys is not None:
            keys = jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)
        ways = self.ways or ((ALL, x.shape[1]),)
        if self.is_initializing():  # the others' parameters come of no tokens
            ways += tuple((name, 0) for name in self.idle)
        norm = partial(layer_norm, eps=blocks.norm_eps, dtype=blocks.dtype)
        inner = blocks.norm_eps if self.sub_norm else None
        attention = MultiwayAttention(
            blocks.heads, inits, ways if self.apart else (), blocks.attention, blocks.dtype, inner, self.key_bias,
            self.distances, blocks.out_bias, name="attention",
        )  # fmt: skip
        own_norms = self.apart or self.norms
        read = by_way(ways, x, lambda way: norm(f"norm_attention{way}")) if own_norms else norm("norm_attention")(x)
        x = self._plus(x, attention(read, mask, between), "scale_attention", keys, 0)
        chosen = blocks.activation, blocks.dtype, inner, blocks.out_bias
        if self.norms:
            read = by_way(ways, x, lambda way: norm(f"norm_mlp{way}"))
            return self._plus(x, Mlp(blocks.hidden, inits, *chosen, name="mlp")(read), "scale_mlp", keys, 1), None

        def mlp(way: str) -> Callable[[Array], Array]:
            own = Mlp(blocks.hidden, inits, *chosen, name=f"mlp{way}")
            before = norm(f"norm_mlp{way}")
            return lambda piece: own(before(piece))

        return self._plus(x, by_way(ways, x, mlp), "scale_mlp", keys, 1), None

    def _plus(
        self, x: Float[Array, "b n d"], branch: Float[Array, "b n d"], scale: str, keys: Key[Array, " b"] | None,
        place: int,
    ) -> Float[Array, "b n d"]:  # fmt: skip
        branch = LayerScale(self.blocks.layer_scale, name=scale)(branch)
        return constrain(x + drop(branch, self.blocks.dropout, keys, place), *HIDDEN)
