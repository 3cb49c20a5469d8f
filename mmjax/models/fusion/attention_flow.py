"""The looks of a fusion's tokens at each other, over all of its layers: attention rollout (Abnar and Zuidema 2020,
arXiv:2005.00928) and relevance by gradient times attention (Chefer et al. 2021, arXiv:2103.15679).

A fusion whose attention can be followed has `attention_steps(kept, lengths)`: of the tokens that it reads, one input
after the other, the place of each input's, and its attentions in the order of the computation.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Spans = dict[str, slice]  # the place of each input's tokens among all
Matrix = Float[Array, "b n n"]


class Step(NamedTuple):
    """One attention: `queries` and `keys` are places among all tokens, `weights` are `[B, heads, queries, keys]`."""

    queries: slice
    keys: slice
    weights: Float[Array, "b h q k"]


def spans_of(lengths: Mapping[str, int], before: int = 0) -> Spans:
    """The places of inputs of so many tokens, one after the other, behind `before` others."""
    ends = list(accumulate(lengths.values(), initial=before))
    return {name: slice(begin, end) for name, begin, end in zip(lengths, ends, ends[1:], strict=False)}


def of_layers(kept: Any, queries: slice, keys: slice) -> list[Step]:
    """The attention of each layer of a scan, of what `attention_weights` holds of it; without padding at the end."""
    (stacked,) = kept["weights"]
    count, others = queries.stop - queries.start, keys.stop - keys.start
    return [Step(queries, keys, weights[..., :count, :others]) for weights in stacked]


def rollout(steps: Sequence[Step], tokens: int) -> Matrix:
    """The share of each token in the end that is of each token in the beginning; rows add up to 1.

    Of every attention the mean over heads is added to what each token keeps, one to one, and normalised; the product
    over layers follows.
    """
    found = _identity(steps, tokens)
    for step in steps:
        mixed = _identity(steps, tokens).at[:, step.queries, step.keys].add(step.weights.mean(axis=1))
        found = (mixed / mixed.sum(axis=-1, keepdims=True)) @ found
    return found


def relevance(steps: Sequence[Step], gradients: Sequence[Step], tokens: int) -> Matrix:
    """The relevance of each token to each other one for a score; gradients: of that score, by each weight.

    Equations 5 to 11 of the paper: weights count times their gradient, where that is positive, in the mean over heads;
    attention of tokens to themselves propagates, and attention to others joins both sides' relevances.
    """
    found = _identity(steps, tokens)
    for (queries, keys, weights), gradient in zip(steps, gradients, strict=True):
        attention = jnp.maximum(gradient.weights * weights, 0).mean(axis=1)
        if queries == keys:
            found = found.at[:, queries].add(attention @ found[:, queries])
        else:
            mine, theirs = (_normalised(found[:, part, part]) for part in (queries, keys))
            across = jnp.swapaxes(mine, 1, 2) @ attention @ theirs
            back = attention @ found[:, keys, queries]
            found = found.at[:, queries, keys].add(across).at[:, queries, queries].add(back)
    return found


def _identity(steps: Iterable[Step], tokens: int) -> Matrix:
    batch = len(next(iter(steps)).weights)
    return jnp.broadcast_to(jnp.eye(tokens), (batch, tokens, tokens))


def _normalised(found: Matrix) -> Matrix:
    """The rest beside the identity, each row divided by its sum, and the identity (equations 8 and 9)."""
    identity = jnp.eye(found.shape[-1])
    added = found - identity
    total = added.sum(axis=-1, keepdims=True)
    return jnp.where(total > 0, added / jnp.where(total > 0, total, 1), 0) + identity
