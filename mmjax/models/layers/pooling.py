"""Pools tokens into one vector: by CLS, last token, mean, maximum or attention."""

from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError, not_among
from mmjax.models.layers.activations import ActivationName
from mmjax.models.layers.parameters import (
    DtypeName,
    InitName,
    block_inits,
    layer_norm,
    parameter,
)
from mmjax.models.layers.transformer import CrossAttention, Mlp

PoolingName = Literal["cls", "pair", "last", "mean", "mean_sqrt", "mean_weighted", "patches", "max", "map"]


def first(tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b d"]:
    """The first token: a learned CLS, or the first word."""
    del mask
    return tokens[:, 0]


def pair(tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b d"]:
    """The mean of the first two tokens: a CLS and a distillation token (AST)."""
    del mask
    return (tokens[:, 0] + tokens[:, 1]) / 2


def last(tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b d"]:
    """The last token that `mask` allows (CLIP's end of text); the first where it allows none."""
    position = jnp.max(jnp.where(mask, jnp.arange(mask.shape[1]), 0), axis=1)
    return jnp.take_along_axis(tokens, position[:, None, None], axis=1)[:, 0]


def mean(tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b d"]:
    """The mean of the tokens that `mask` allows, a CLS among them; zero where it allows none. Summed in fp32."""
    counts = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    total = jnp.sum(jnp.where(mask[..., None], tokens, 0), axis=1, dtype=jnp.float32)
    return (total / counts).astype(tokens.dtype)


def mean_sqrt(tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b d"]:
    """The sum of the tokens that `mask` allows over the root of their number (sentence-transformers has it)."""
    counts = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    total = jnp.sum(jnp.where(mask[..., None], tokens, 0), axis=1, dtype=jnp.float32)
    return (total / jnp.sqrt(counts)).astype(tokens.dtype)


def mean_weighted(tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b d"]:
    """The mean of the tokens that `mask` allows, weighted by their place: 1, 2, 3, ... (SGPT: Muennighoff 2022,
    arXiv:2202.08904, eq. 1)."""
    weights = jnp.where(mask, jnp.arange(1, mask.shape[1] + 1, dtype=jnp.float32), 0)
    total = jnp.einsum("bnd,bn->bd", jnp.where(mask[..., None], tokens, 0).astype(jnp.float32), weights)
    return (total / jnp.maximum(weights.sum(axis=1, keepdims=True), 1)).astype(tokens.dtype)


def largest(tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b d"]:
    """The largest value of each dimension among the tokens that `mask` allows; zero where it allows none."""
    highest = jnp.where(mask[..., None], tokens, jnp.finfo(tokens.dtype).min).max(axis=1)
    return jnp.where(mask.any(axis=1, keepdims=True), highest, 0)


class AttentionPool(nn.Module):
    """A learned probe attends to the tokens, then an MLP (SigLIP's MAP head: Zhai et al. 2023, arXiv:2303.15343)."""

    heads: int
    mlp_dim: int
    activation: ActivationName = "gelu"
    norm_eps: float = 1e-6
    inits: InitName = "xavier"
    dtype: DtypeName = "float32"

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b d"]:
        batch, _, width = tokens.shape
        inits = block_inits(self.inits, width, self.mlp_dim, depth=1)
        probe = parameter(self, "probe", nn.initializers.normal(width**-0.5), ("embed",), (width,))
        queries = jnp.broadcast_to(probe.astype(tokens.dtype), (batch, 1, width))
        x = CrossAttention(self.heads, inits, name="attention")(queries, tokens, mask)
        mlp = Mlp(self.mlp_dim, inits, self.activation, self.dtype, name="mlp")
        return (x + mlp(layer_norm("norm", eps=self.norm_eps, dtype=self.dtype)(x)))[:, 0]


POOLINGS = {
    "cls": first,
    "pair": pair,
    "last": last,
    "mean": mean,
    "mean_sqrt": mean_sqrt,
    "mean_weighted": mean_weighted,
    "max": largest,
}


def check_pooling(name: str) -> None:
    """Raises UserError where there is no pooling of that name."""
    if name not in get_args(PoolingName):
        raise UserError(not_among("pooling", name, get_args(PoolingName)))
