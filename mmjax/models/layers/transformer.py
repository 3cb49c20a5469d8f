"""Transformer blocks (Vaswani et al. 2017, arXiv:1706.03762), pre-LN (Xiong et al. 2020, arXiv:2002.04745) or post-LN
(BERT: Devlin et al. 2018, arXiv:1810.04805), scanned.

Parameters are fp32 and carry logical axis names; compute is in `dtype`; attention logits and their softmax are fp32.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError, not_among
from mmjax.models.layers.activations import ACTIVATIONS, ActivationName
from mmjax.models.layers.attention_maps import attend_by
from mmjax.models.layers.attentions import ATTENTIONS, AttentionName, spare_tokens
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import drop, dropout_keys
from mmjax.models.layers.masks import check_allowed, check_context
from mmjax.models.layers.parameters import (
    HIDDEN,
    DtypeName,
    Initializer,
    check_heads,
    constrain,
    dense,
    layer_norm,
    parameter,
)
from mmjax.models.layers.rotary import rotate


def _flat(x: Float[Array, "b n d"]) -> Float[Array, "t d"]:
    """The tokens of all examples one after the other: products and sums over them are faster than over `[b n d]`, and
    compilers keep their layout."""
    return x.reshape(-1, x.shape[-1])


class HeadsIn(nn.Module):
    """`[b n d]` -> `parts` arrays `[b h n k]`: one matmul for query, key and value together.

    The kernel is stored as [D, heads, parts, head_dim]: split over heads, each device holds whole heads of all parts.
    The product has the parts first, so that each is one piece of its rows, and the heads as an axis of their own, so
    that a device that holds some of them computes those alone.

    inner: the width of all heads together; None: the tokens'.
    key_bias: whether the second of three parts, the key, has a bias, which moves all logits of a query alike.
    """

    heads: int
    parts: int
    init: Initializer
    inner: int | None = None
    key_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> tuple[Float[Array, "b h n k"], ...]:
        width = x.shape[-1]
        shape = (self.heads, self.parts, check_heads(self.inner or width, self.heads))
        axes = ("heads", None, "head_dim")
        kernel = parameter(self, "kernel", self.init, ("embed", *axes), (width, *shape))
        if self.key_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, axes, shape)
        else:
            bias = parameter(self, "bias", nn.initializers.zeros, axes, (shape[0], 2, shape[2]))
            bias = jnp.insert(bias, 1, 0.0, axis=1)
        kernel, bias = (jnp.swapaxes(each, -3, -2).astype(x.dtype) for each in (kernel, bias))
        y = jnp.einsum("td,dphk->tphk", _flat(x), kernel) + bias
        heads = (y[:, i].reshape(*x.shape[:-1], *y.shape[-2:]) for i in range(self.parts))
        return tuple(constrain(jnp.moveaxis(each, 1, 2), "batch", "heads", "length", None) for each in heads)


class HeadsOut(nn.Module):
    """`[b h n k]` -> `[b n d]`: heads joined and projected; the kernel is [heads, head_dim, D].

    width: D; None: that of all heads together. use_bias: whether there is one.
    """

    init: Initializer
    width: int | None = None
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h n k"]) -> Float[Array, "b n d"]:
        batch, heads, length, size = x.shape
        width = self.width or heads * size
        axes = ("heads", "head_dim", "embed")
        kernel = parameter(self, "kernel", self.init, axes, (heads, size, width))
        joined = jnp.moveaxis(x, 1, 2).reshape(batch * length, heads * size)
        y = joined @ kernel.reshape(heads * size, width).astype(x.dtype)
        if self.use_bias:
            y = y + parameter(self, "bias", nn.initializers.zeros, ("embed",), (width,)).astype(x.dtype)
        return y.reshape(batch, length, width)


class Attention(nn.Module):
    """Multi-head self-attention `[b n d]` -> `[b n d]`; the last `spare` tokens are padding in every example.

    out_bias: whether the last map has a bias. scaled: `rotate`'s.
    """

    heads: int
    inits: dict[str, Initializer]
    causal: bool = False
    attention: AttentionName = "plain"
    spare: int = 0
    out_bias: bool = True
    scaled: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None = None,
        angles: Float[Array, "*b n p"] | None = None,
        allowed: Bool[Array, "#b n n"] | None = None,
    ) -> Float[Array, "b n d"]:
        if self.attention not in ATTENTIONS:
            raise UserError(not_among("attention", self.attention, ATTENTIONS))
        query, key, value = HeadsIn(self.heads, 3, self.inits["qkv"], name="qkv")(x)
        if angles is not None:
            query, key = (rotate(each, angles, self.scaled) for each in (query, key))
        met = attend_by(self, self.attention, query, key, value, mask, self.causal, allowed, self.spare)
        return HeadsOut(self.inits["out"], use_bias=self.out_bias, name="out")(met)


class CrossAttention(nn.Module):
    """Multi-head attention of `queries` over `tokens`, of which each query may be allowed only some.

    inner: the width of all heads together, where queries and tokens are not equally wide; None: theirs. out_bias:
    whether the last map has a bias.
    """

    heads: int
    inits: dict[str, Initializer]
    attention: AttentionName = "plain"
    inner: int | None = None
    out_bias: bool = True

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "b q d"],
        tokens: Float[Array, "b n e"],
        mask: Bool[Array, "b n"] | None = None,
        allowed: Bool[Array, "#b #q n"] | None = None,
    ) -> Float[Array, "b q d"]:
        width = queries.shape[-1]
        inner = self.inner or width
        (query,) = HeadsIn(self.heads, 1, self.inits["qkv"], inner, name="query")(queries)
        key, value = HeadsIn(self.heads, 2, self.inits["qkv"], inner, name="key_value")(tokens)
        met = attend_by(self, self.attention, query, key, value, mask, allowed=allowed)
        return HeadsOut(self.inits["out"], width, self.out_bias, name="out")(met)


class Mlp(nn.Module):
    """Dense, activation, Dense: `[b n d]` -> `[b n d]` by way of `mlp_dim`.

    inner_norm: the epsilon of a LayerNorm before the second Dense (Magneto: Wang et al. 2022, arXiv:2210.06423); None:
    there is none. out_bias: whether the second Dense has a bias.
    """

    mlp_dim: int
    inits: dict[str, Initializer]
    activation: ActivationName = "gelu"
    dtype: DtypeName = "float32"
    inner_norm: float | None = None
    out_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        if self.activation not in ACTIVATIONS:
            raise UserError(not_among("activation", self.activation, ACTIVATIONS))
        batch, length, width = x.shape
        hidden = dense(self.mlp_dim, ("embed", "mlp"), self.inits["mlp_in"], dtype=self.dtype, name="in")(_flat(x))
        hidden = constrain(hidden.reshape(batch, length, self.mlp_dim), "batch", "length", "mlp")
        hidden = ACTIVATIONS[self.activation](_flat(hidden))
        if self.inner_norm is not None:
            hidden = layer_norm("norm", eps=self.inner_norm, dtype=self.dtype)(hidden)
        out = partial(dense, width, ("mlp", "embed"), self.inits["mlp_out"], dtype=self.dtype, name="out")
        y = out(bias=self.out_bias)(hidden)
        return y.reshape(batch, length, width)


class LayerScale(nn.Module):
    """A factor for each channel, `initial` at first (Touvron et al. 2021, arXiv:2103.17239); None: there is none."""

    initial: float | None

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        if self.initial is None:
            return x
        scale = parameter(self, "scale", nn.initializers.constant(self.initial), ("embed",), x.shape[-1:])
        return x * scale.astype(x.dtype)


class Block(nn.Module):
    """One block, pre-LN: `x += attention(norm(x)); x += mlp(norm(x))`, or post-LN: `x = norm(x + attention(x));
    x = norm(x + mlp(x))`, each branch times its LayerScale; where there is a context, a branch that attends to it
    stands between both. Returns a pair, as a scan's body does.

    The tokens of all examples stand one after the other, `length` of each, of which the last `spare` are padding.
    scaled: `rotate`'s.
    """

    blocks: Blocks
    length: int
    causal: bool = False
    spare: int = 0
    scaled: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "t d"],
        mask: Bool[Array, "b n"] | None = None,
        keys: Key[Array, " b"] | None = None,
        angles: Float[Array, "*b n p"] | None = None,
        layer: Int[Array, ""] | int = 0,
        allowed: Bool[Array, "#b n n"] | None = None,
        context: Float[Array, "b m d"] | None = None,
        context_mask: Bool[Array, "b m"] | None = None,
    ) -> tuple[Float[Array, "t d"], None]:
        blocks = self.blocks
        norm = partial(layer_norm, eps=blocks.norm_eps, dtype=blocks.dtype)
        if keys is not None:
            keys = jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)
        inits, out_bias = blocks.initializers(), blocks.out_bias
        attended_by = self.causal, blocks.attention, self.spare, out_bias, self.scaled
        attention = Attention(blocks.heads, inits, *attended_by, name="attention")
        mlp = Mlp(blocks.hidden, inits, blocks.activation, blocks.dtype, out_bias=out_bias, name="mlp")
        norm_attention, norm_mlp = norm("norm_attention"), norm("norm_mlp")
        scale_attention = LayerScale(blocks.layer_scale, name="scale_attention")
        scale_mlp = LayerScale(blocks.layer_scale, name="scale_mlp")
        if blocks.norm == "post":
            attended = attention(self._examples(x), mask, angles, allowed)
            x = norm_attention(self._plus(x, scale_attention(attended), keys, 0))
            x = x if context is None else self._cross(x, norm, keys, context, context_mask)
            x = norm_mlp(self._plus(x, scale_mlp(mlp(self._examples(x))), keys, 1))
        else:
            attended = attention(self._examples(norm_attention(x)), mask, angles, allowed)
            x = self._plus(x, scale_attention(attended), keys, 0)
            x = x if context is None else self._cross(x, norm, keys, context, context_mask)
            x = self._plus(x, scale_mlp(mlp(self._examples(norm_mlp(x)))), keys, 1)
        return x, None

    def _examples(self, x: Float[Array, "t d"]) -> Float[Array, "b n d"]:
        return x.reshape(-1, self.length, x.shape[-1])

    def _plus(
        self, x: Float[Array, "t d"], branch: Float[Array, "b n d"], keys: Key[Array, " b"] | None, place: int
    ) -> Float[Array, "t d"]:
        """`x` and a branch, of which dropout leaves a part."""
        x = x + _flat(drop(branch, self.blocks.dropout, keys, place))
        return _flat(constrain(self._examples(x), *HIDDEN))

    def _cross(
        self,
        x: Float[Array, "t d"],
        norm: Callable[[str], nn.LayerNorm],
        keys: Key[Array, " b"] | None,
        context: Float[Array, "b m d"],
        context_mask: Bool[Array, "b m"] | None,
    ) -> Float[Array, "t d"]:
        """The branch that attends to the context, added; an example whose context is all masked takes in zeros."""
        blocks = self.blocks
        chosen = blocks.attention, None, blocks.out_bias
        cross = CrossAttention(blocks.heads, blocks.initializers(), *chosen, name="cross")
        norm_cross, scale = norm("norm_cross"), LayerScale(blocks.layer_scale, name="scale_cross")
        seen = None if context_mask is None else context_mask[:, None]
        queries = self._examples(x if blocks.norm == "post" else norm_cross(x))
        x = self._plus(x, scale(cross(queries, context, allowed=seen)), keys, 2)
        return norm_cross(x) if blocks.norm == "post" else x


class Transformer(nn.Module):
    """Blocks one after the other, scanned, and a last LayerNorm where they are pre-LN.

    Attributes:
        blocks: their number, sizes and choices. Dropout needs the examples' `keys`, or else a `dropout` key.
        causal: whether a token sees only itself and those before it.
        final_norm: whether there is that LayerNorm.
        cross: whether each block attends to `context` tokens, between its attention and its MLP, and has the parameters
            for that.
        scaled: whether `angles` scale queries and keys and don't turn them (`rotate`).
    """

    blocks: Blocks
    causal: bool = False
    final_norm: bool = True
    cross: bool = False
    scaled: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
        angles: Float[Array, "*b n p"] | None = None,
        allowed: Bool[Array, "#b n n"] | None = None,
        context: Float[Array, "b m d"] | None = None,
        context_mask: Bool[Array, "b m"] | None = None,
    ) -> Float[Array, "b n d"]:
        """The encoded tokens.

        Args:
            x: tokens.
            mask: which of them are attended to; None: all.
            train: whether dropout acts.
            keys: each example's key for it.
            angles: by which each block turns queries and keys (`rotary.angles`); None: none.
            allowed: which tokens each token may attend to, in each example or in all (`masks.prefix_causal`); `mask`
                and `causal` must let it too. With it, a token that may attend to none takes in zeros.
            context: other tokens, as wide, to which every block attends; with `cross`, and only there.
            context_mask: which of these are attended to; None: all. Where an example has none, zeros are taken in.

        Raises:
            UserError: a mask or the context doesn't fit the tokens, or `cross`.
        """
        if allowed is not None:
            check_allowed(x.shape, allowed)
        check_context(x.shape, self.cross, context, context_mask)
        blocks = self.blocks
        if not blocks.depth:  # no blocks: the tokens as they came, without a last LayerNorm either
            blocks.check()
            return constrain(x.astype(blocks.dtype), *HIDDEN)
        scanned = blocks.scanned(Block, blocks.depth, (*[nn.broadcast] * 3, 0, *[nn.broadcast] * 3))
        x = constrain(x.astype(blocks.dtype), *HIDDEN)
        context = None if context is None else constrain(context.astype(blocks.dtype), *HIDDEN)
        batch, length, width = x.shape
        if spare := spare_tokens(blocks.attention, length, width // blocks.heads, x.dtype):
            x, mask, angles, allowed = _lengthened(spare, x, mask, angles, allowed)
        x, _ = scanned(blocks, length + spare, self.causal, spare, self.scaled, name="blocks")(
            _flat(x),
            mask,
            dropout_keys(self, blocks.dropout, train, keys, batch),
            angles,
            jnp.arange(blocks.depth),
            allowed,
            context,
            context_mask,
        )
        last = self.final_norm and blocks.norm == "pre"  # a post-LN block ends in one
        x = layer_norm("norm", eps=blocks.norm_eps, dtype=blocks.dtype)(x) if last else x
        return x.reshape(batch, length + spare, width)[:, :length]


def _lengthened(
    spare: int,
    x: Float[Array, "b n d"],
    mask: Bool[Array, "b n"] | None,
    angles: Float[Array, "*b n p"] | None,
    allowed: Bool[Array, "#b n n"] | None,
) -> tuple[Array, Array | None, Array | None, Array | None]:
    """The inputs of blocks with `spare` tokens of padding more, that no token may attend to."""

    def longer(values: Array, *axes: int) -> Array:
        widths = [(0, spare if axis - values.ndim in axes else 0) for axis in range(values.ndim)]
        return jnp.pad(values, widths)  # with zeros, which are False

    mask = None if mask is None else longer(mask, -1)
    angles = None if angles is None else longer(angles, -2)
    allowed = None if allowed is None else longer(allowed, -2, -1)
    return longer(x, -2), mask, angles, allowed
