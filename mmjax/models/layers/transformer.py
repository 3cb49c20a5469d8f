"""Transformer blocks (Vaswani et al. 2017, arXiv:1706.03762), pre-LN (Xiong et al. 2020, arXiv:2002.04745) or post-LN
(BERT: Devlin et al. 2018, arXiv:1810.04805), scanned.

Parameters are fp32 and carry logical axis names; compute is in `dtype`; attention logits and their softmax are fp32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError, not_among
from mmjax.models.layers.attention import ATTENTIONS, AttentionName
from mmjax.models.layers.dropout import drop, dropout_keys
from mmjax.models.layers.masks import check_allowed, check_context
from mmjax.models.layers.parameters import (
    ACTIVATIONS,
    HIDDEN,
    REMAT_POLICIES,
    ActivationName,
    DtypeName,
    Initializer,
    InitName,
    NormName,
    RematName,
    block_inits,
    check_heads,
    constrain,
    dense,
    layer_norm,
    parameter,
)
from mmjax.models.layers.rotary import rotate


class HeadsIn(nn.Module):
    """`[b n d]` -> `parts` arrays `[b h n k]`: one matmul for query, key and value together.

    The kernel is stored as [D, heads, parts, head_dim]: split over heads, each device holds whole heads of all parts.
    """

    heads: int
    parts: int
    init: Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> tuple[Float[Array, "b h n k"], ...]:
        width = x.shape[-1]
        shape = (self.heads, self.parts, check_heads(width, self.heads))
        axes = ("heads", None, "head_dim")
        kernel = parameter(self, "kernel", self.init, ("embed", *axes), (width, *shape))
        bias = parameter(self, "bias", nn.initializers.zeros, axes, shape)
        kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
        y = x @ kernel.reshape(width, -1) + bias.reshape(-1)
        y = y.reshape(*x.shape[:-1], *shape)
        return tuple(
            constrain(jnp.moveaxis(y[..., i, :], 1, 2), "batch", "heads", "length", None) for i in range(self.parts)
        )


class HeadsOut(nn.Module):
    """`[b h n k]` -> `[b n d]`: heads joined and projected; the kernel is [heads, head_dim, D]."""

    init: Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "b h n k"]) -> Float[Array, "b n d"]:
        batch, heads, length, size = x.shape
        width = heads * size
        axes = ("heads", "head_dim", "embed")
        kernel = parameter(self, "kernel", self.init, axes, (heads, size, width))
        bias = parameter(self, "bias", nn.initializers.zeros, ("embed",), (width,))
        joined = jnp.moveaxis(x, 1, 2).reshape(batch, length, width)
        return joined @ kernel.reshape(width, width).astype(x.dtype) + bias.astype(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention `[b n d]` -> `[b n d]`."""

    heads: int
    inits: dict[str, Initializer]
    causal: bool = False
    attention: AttentionName = "plain"

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
            query, key = rotate(query, angles), rotate(key, angles)
        attended = ATTENTIONS[self.attention](query, key, value, mask, self.causal, allowed)
        return HeadsOut(self.inits["out"], name="out")(attended)


class CrossAttention(nn.Module):
    """Multi-head attention of `queries` over `tokens`, of which each query may be allowed its own."""

    heads: int
    inits: dict[str, Initializer]
    attention: AttentionName = "plain"

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "b q d"],
        tokens: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None = None,
        allowed: Bool[Array, "#b #q n"] | None = None,
    ) -> Float[Array, "b q d"]:
        (query,) = HeadsIn(self.heads, 1, self.inits["qkv"], name="query")(queries)
        key, value = HeadsIn(self.heads, 2, self.inits["qkv"], name="key_value")(tokens)
        attended = ATTENTIONS[self.attention](query, key, value, mask, allowed=allowed)
        return HeadsOut(self.inits["out"], name="out")(attended)


class Mlp(nn.Module):
    """Dense, activation, Dense: `[b n d]` -> `[b n d]` by way of `mlp_dim`."""

    mlp_dim: int
    inits: dict[str, Initializer]
    activation: ActivationName = "gelu"
    dtype: DtypeName = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        if self.activation not in ACTIVATIONS:
            raise UserError(not_among("activation", self.activation, ACTIVATIONS))
        width = x.shape[-1]
        x = dense(self.mlp_dim, ("embed", "mlp"), self.inits["mlp_in"], dtype=self.dtype, name="in")(x)
        x = ACTIVATIONS[self.activation](constrain(x, "batch", "length", "mlp"))
        return dense(width, ("mlp", "embed"), self.inits["mlp_out"], dtype=self.dtype, name="out")(x)


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
    stands between both. Returns a pair, as a scan's body does."""

    heads: int
    mlp_dim: int
    inits: dict[str, Initializer]
    activation: ActivationName = "gelu"
    causal: bool = False
    norm_eps: float = 1e-6
    dropout: float = 0.0
    dtype: DtypeName = "float32"
    attention: AttentionName = "plain"
    norm: NormName = "pre"
    layer_scale: float | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None = None,
        keys: Key[Array, " b"] | None = None,
        angles: Float[Array, "*b n p"] | None = None,
        layer: Int[Array, ""] | int = 0,
        allowed: Bool[Array, "#b n n"] | None = None,
        context: Float[Array, "b m d"] | None = None,
        context_mask: Bool[Array, "b m"] | None = None,
    ) -> tuple[Float[Array, "b n d"], None]:
        norm = partial(layer_norm, eps=self.norm_eps, dtype=self.dtype)
        if keys is not None:
            keys = jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)
        attention = Attention(self.heads, self.inits, self.causal, self.attention, name="attention")
        mlp = Mlp(self.mlp_dim, self.inits, self.activation, self.dtype, name="mlp")
        norm_attention, norm_mlp = norm("norm_attention"), norm("norm_mlp")
        scale_attention = LayerScale(self.layer_scale, name="scale_attention")
        scale_mlp = LayerScale(self.layer_scale, name="scale_mlp")
        if self.norm == "post":
            attended = scale_attention(attention(x, mask, angles, allowed))
            x = constrain(norm_attention(x + drop(attended, self.dropout, keys, 0)), *HIDDEN)
            x = x if context is None else self._cross(x, norm, keys, context, context_mask)
            x = constrain(norm_mlp(x + drop(scale_mlp(mlp(x)), self.dropout, keys, 1)), *HIDDEN)
        else:
            attended = scale_attention(attention(norm_attention(x), mask, angles, allowed))
            x = constrain(x + drop(attended, self.dropout, keys, 0), *HIDDEN)
            x = x if context is None else self._cross(x, norm, keys, context, context_mask)
            x = constrain(x + drop(scale_mlp(mlp(norm_mlp(x))), self.dropout, keys, 1), *HIDDEN)
        return x, None

    def _cross(
        self,
        x: Float[Array, "b n d"],
        norm: Callable[[str], nn.LayerNorm],
        keys: Key[Array, " b"] | None,
        context: Float[Array, "b m d"],
        context_mask: Bool[Array, "b m"] | None,
    ) -> Float[Array, "b n d"]:
        """The branch that attends to the context, added; an example whose context is all masked takes in zeros."""
        cross = CrossAttention(self.heads, self.inits, self.attention, name="cross")
        norm_cross, scale = norm("norm_cross"), LayerScale(self.layer_scale, name="scale_cross")
        seen = None if context_mask is None else context_mask[:, None]
        attended = scale(cross(x if self.norm == "post" else norm_cross(x), context, allowed=seen))
        x = x + drop(attended, self.dropout, keys, 2)
        return constrain(norm_cross(x) if self.norm == "post" else x, *HIDDEN)


class Transformer(nn.Module):
    """`depth` blocks, scanned (the compiled program holds the block once), and a last LayerNorm where they are pre-LN.

    Attributes:
        width, depth, heads, mlp_dim: sizes; `mlp_dim` None means 4 x width.
        activation: `gelu` (erf), `gelu_tanh` or `quick_gelu`.
        inits: `xavier` or `clip`, see `block_inits`.
        remat: None keeps all activations for the backward pass, `full` none but the block's input, `dots` also the
            results of the projections.
        dropout: rate on both branches of a block, with train=True only; needs the examples' `keys`, or else a `dropout`
            key.
        attention: `plain` (`attend`), or `cudnn`: its fused kernel, for 16-bit `dtype` on an NVIDIA GPU.
        norm: where a block's LayerNorms stand: `pre`, before each branch, or `post`, after each sum.
        layer_scale: what each channel of a branch is multiplied by at first, before it is added (1e-5 in DINOv2); the
            factors are learned. None: nothing is.
        cross: whether each block attends to `context` tokens, between its attention and its MLP, and has the parameters
            for that.
    """

    width: int
    depth: int
    heads: int
    mlp_dim: int | None = None
    activation: ActivationName = "gelu"
    causal: bool = False
    final_norm: bool = True
    norm_eps: float = 1e-6
    inits: InitName = "xavier"
    dropout: float = 0.0
    remat: RematName | None = None
    dtype: DtypeName = "float32"
    attention: AttentionName = "plain"
    norm: NormName = "pre"
    layer_scale: float | None = None
    cross: bool = False

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
        if self.norm not in ("pre", "post"):
            raise UserError(not_among("norm", self.norm, ("pre", "post")))
        block: type[nn.Module] = Block
        if self.remat is not None:
            if self.remat not in REMAT_POLICIES:
                raise UserError(not_among("remat", self.remat, REMAT_POLICIES))
            block = nn.remat(Block, prevent_cse=False, policy=REMAT_POLICIES[self.remat])
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=cast(Any, (*[nn.broadcast] * 3, 0, *[nn.broadcast] * 3)),  # what its annotation forgets
            length=self.depth,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        mlp_dim = self.mlp_dim or 4 * self.width
        x = constrain(x.astype(self.dtype), *HIDDEN)
        context = None if context is None else constrain(context.astype(self.dtype), *HIDDEN)
        x, _ = blocks(
            self.heads,
            mlp_dim,
            block_inits(self.inits, self.width, mlp_dim, self.depth),
            self.activation,
            self.causal,
            self.norm_eps,
            self.dropout,
            self.dtype,
            self.attention,
            self.norm,
            self.layer_scale,
            name="blocks",
        )(
            x,
            mask,
            dropout_keys(self, self.dropout, train, keys, len(x)),
            angles,
            jnp.arange(self.depth),
            allowed,
            context,
            context_mask,
        )
        last = self.final_norm and self.norm == "pre"  # a post-LN block ends in one
        return layer_norm("norm", eps=self.norm_eps, dtype=self.dtype)(x) if last else x
