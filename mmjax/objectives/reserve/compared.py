"""Compares states with what they must match, over the global batch: MERLOT Reserve's three contrastive losses."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.objectives.contrastive.ring import ring_loss
from mmjax.objectives.contrastive.tile import Rows
from mmjax.objectives.numerics import at_least_fp32
from mmjax.objectives.token_errors import TokenErrors

EPSILON = 1e-5  # the paper's, added to the squared length


class ComparedVectors(NamedTuple):
    """States of each example, of which each is to be nearest to its own target.

    x, y: of length 1 or a little less. x_valid, y_valid: which of them there are. partner: the target of each state; a
    target that no state has is a further candidate of the states, and isn't compared with them itself. alike: a number
    of each target: a state matches all targets of the batch that have its own's; None: its own alone.
    """

    x: Float[Array, "b s d"]
    y: Float[Array, "b t d"]
    x_valid: Bool[Array, "b s"]
    y_valid: Bool[Array, "b t"]
    partner: Int[Array, "b s"]
    alike: Int[Array, "b t"] | None = None


class ReserveOutputs(NamedTuple):
    """All that the losses read of each example: the compared vectors by loss, and a score for each span, where only
    some spans are compared. words: the errors of masked words, where these take the place of spans.
    """

    vectors: dict[str, ComparedVectors]
    scores: Float[Array, "b s"] | None
    words: TokenErrors | None = None


def compared_vectors(
    x: Float[Array, "b s d"],
    y: Float[Array, "b t d"],
    x_valid: Bool[Array, "b s"],
    y_valid: Bool[Array, "b t"],
    partner: Int[Array, "b s"] | None = None,
) -> ComparedVectors:
    """The vectors scaled to their length, fp32. partner: None: the target in the same place. A state whose target isn't
    there isn't either."""
    if partner is None:
        partner = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
    there = jnp.take_along_axis(y_valid, partner, axis=1, mode="clip")
    return ComparedVectors(nearly_unit(x), nearly_unit(y), x_valid & there, y_valid, partner)


def nearly_unit(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """`x / sqrt(|x|^2 + 1e-5)`, in fp32 at least."""
    x = at_least_fp32(x)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + EPSILON)


def contrasted(pair: ComparedVectors, scale: Float[Array, ""]) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The symmetric InfoNCE over all examples: half of each direction's mean (`objective.softmax_loss`)."""
    examples, states = pair.x_valid.shape
    targets = pair.y_valid.shape[1]
    other = targets * jnp.arange(examples)[:, None] + jnp.arange(targets)
    if pair.alike is not None:
        other = pair.alike
    own = jnp.take_along_axis(other, pair.partner, axis=1, mode="clip")
    return ring_loss(
        Rows(pair.x.reshape(examples * states, -1), pair.x_valid.reshape(-1), own.reshape(-1)),
        Rows(pair.y.reshape(examples * targets, -1), pair.y_valid.reshape(-1), other.reshape(-1)),
        scale,
    )


def summed_losses(
    vectors: Mapping[str, ComparedVectors], scales: Mapping[str, Float[Array, ""]]
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The sum of the losses, and of each its metrics. scales: of the logits, by loss."""
    total, metrics = jnp.zeros(()), {}
    for name in scales:
        if name in vectors:
            loss, told = contrasted(vectors[name], scales[name])
            metrics |= {f"loss/{name}": loss, f"accuracy/{name}": told["accuracy"]}
            metrics |= {f"candidates/{name}": jnp.sum(vectors[name].y_valid), f"logit_scale/{name}": scales[name]}
            total += loss
    return total, metrics


def drawn_scores(keys: Key[Array, " b"], more: Float[Array, " s"]) -> Float[Array, "b s"]:
    """A score for each span of each example, drawn by the example's own key: those with the highest are a draw without
    replacement with probabilities in proportion to `exp(more)` (Gumbel's trick).
    """
    return jax.vmap(lambda key: more + jax.random.gumbel(key, more.shape))(keys)


def chosen_spans(scores: Float[Array, "b s"], valid: Bool[Array, "b s"], count: int) -> Bool[Array, "b s"]:
    """A mask of the valid spans with the `count` highest scores of the whole batch."""
    flat = jnp.where(valid, scores, -jnp.inf).reshape(-1)
    _, taken = jax.lax.top_k(flat, min(count, flat.size))
    return valid & jnp.zeros(flat.shape, bool).at[taken].set(True).reshape(valid.shape)
