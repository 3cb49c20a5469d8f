"""Predicts the words of a removed span one by one, in place of finding the span: MERLOT Reserve's comparison with
masked language modelling (Zellers et al. 2022, arXiv:2201.02639)."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from mmjax.objectives.numerics import at_least_fp32
from mmjax.objectives.reserve.streams import SpanRows
from mmjax.objectives.token_errors import TokenErrors


def mask_places(pointers: Int[Array, "b p"], spans: SpanRows) -> tuple[Int[Array, "b s k"], Bool[Array, "b s k"]]:
    """For each token of each span the place of its mask, and whether there is one.

    The first of a run of masks that point to a span is that of its first token, and so on
    (`ReserveStreams(mask_each=True)`).
    """
    count, longest = spans.ids.shape[1:]
    points = pointers[:, None] == jnp.arange(count)[:, None]
    first, there = jnp.argmax(points, axis=-1), points.any(axis=-1)
    real = jnp.arange(longest) < spans.lengths[..., None]
    at = jnp.minimum(first[..., None] + jnp.arange(longest), pointers.shape[1] - 1)
    own = jnp.take_along_axis(pointers, at.reshape(len(at), -1), axis=1).reshape(at.shape)
    return at, there[..., None] & real & (own == jnp.arange(count)[:, None])


def word_errors(
    states: Float[Array, "b s k d"], table: Float[Array, "v d"], ids: Int[Array, "b s k"], masked: Bool[Array, "b s k"]
) -> TokenErrors:
    """The errors of the masked tokens, whose logits are the products of their states and the table's rows, in fp32."""
    logits = jnp.einsum("bskd,vd->bskv", at_least_fp32(states), at_least_fp32(table))
    errors = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
    hits = masked & (jnp.argmax(logits, axis=-1) == ids)
    return TokenErrors(jnp.sum(jnp.where(masked, errors, 0), (1, 2)), hits.sum((1, 2)), masked.sum((1, 2)))
