"""Word-patch alignment: matching that also moves words onto patches by optimal transport (ViLT: Kim et al. 2021,
arXiv:2102.03334, section 3.2; of words and regions: UNITER, arXiv:1909.11740)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import Context, RowPairs, View
from mmjax.objectives.matching import MatchedPairs, Matching
from mmjax.objectives.numerics import at_least_fp32, unit, weighted_mean


class AlignedPairs(NamedTuple):
    """Pairs after the fusion has read them, and how far the words of each are from its patches."""

    matched: MatchedPairs
    distance: Float[Array, " p"]


class WordPatchAlignment(Matching):
    """`Matching`, whose fused tokens are compared besides: the words of a right pair are to lie near its patches, those
    of a wrong pair far from them.

    The distance of a pair is the cost of moving its words onto its patches, each word and each patch of one weight: the
    sum over both of plan times cost, where the cost is 1 minus the cosine of the two fused tokens, and the plan is that
    of `transport_plan`, through which no gradient goes. The loss is that of matching, and `weight` times the sum of the
    distances of right pairs minus that of wrong ones, divided by the number of pairs. Padding takes no part, nor do the
    first and the last token of a text ([CLS] and [SEP]) and the tokens before the patches; a pair that has no other
    tokens has the distance 0. The fusion reads each pair once, for both losses.

    Metrics, besides those of `Matching`: `matching_loss`, its loss alone, and `distance_right` and `distance_wrong`,
    the mean distances of pairs of either kind.

    Attributes:
        pair: the input of words, and that of patches.
        weight: of the distances in the loss.
        prefix: number of tokens before the patches (a CLS), which are no patches.
        beta: of the plan: larger values need more steps.
        steps: of the plan.
    """

    pair: tuple[str, str] = ("text", "image")
    weight: float = 0.1
    prefix: int = 1
    beta: float = 0.5
    steps: int = 50

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError as `Matching`; and where the first input isn't text, or the prefix not the tower's."""
        super().check_parts(path, towers, inputs)
        words, patches = (towers[view.by] for view in self.views())
        if getattr(words, "vocabulary", None) is None:
            raise UserError(
                f"{path}.pair={self.pair} must be the input of words and then that of patches, and the tower of "
                f"{self.pair[0]!r}, a {type(words).__name__}, reads no words: change their order, or the tower"
            )
        if self.prefix != patches.prefix:
            raise UserError(
                f"{path}.prefix={self.prefix}, and the tower of {self.pair[1]!r} has {patches.prefix} tokens before "
                f"its patches: set prefix={patches.prefix}"
            )
        if not self.beta > 0 or self.steps < 1:
            raise UserError(
                f"{path}.beta={self.beta} and steps={self.steps} of the transport plan: beta is above 0, and there is "
                "at least 1 step"
            )

    def per_pair(self, tokens: Mapping[View, TokensAndMask], pair: RowPairs, context: Context) -> Any:
        fused, logits = self.read_pairs(tokens, context)
        (words, word_mask), (patches, patch_mask) = (fused[name] for name in self.pair)
        there = pair.valid[:, None]
        word_mask = inner_tokens(word_mask) & there
        patch_mask = patch_mask & (jnp.arange(patch_mask.shape[1]) >= self.prefix) & there
        distance = transport_distance(words, word_mask, patches, patch_mask, self.beta, self.steps)
        return AlignedPairs(MatchedPairs(logits, pair.rows[:, 0] == pair.rows[:, 1], pair.valid), distance)

    def batch_loss(self, outputs: Any, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        first, (matched, distance) = outputs
        loss, metrics = super().batch_loss((first, matched), batch)
        together, counts, one = matched.together, matched.valid, jnp.ones_like(distance)
        signed = jnp.where(together, distance, -distance)
        metrics |= {
            "matching_loss": loss,
            "distance_right": weighted_mean(distance, one, counts & together),
            "distance_wrong": weighted_mean(distance, one, counts & ~together),
        }
        return loss + self.weight * weighted_mean(signed, one, counts), metrics


def inner_tokens(mask: Bool[Array, "p n"]) -> Bool[Array, "p n"]:
    """The real tokens but the first and the last of them."""
    place = jnp.cumsum(mask, axis=1)
    return mask & (place > 1) & (place < mask.sum(axis=1, keepdims=True))


def transport_distance(
    words: Float[Array, "p m d"],
    word_mask: Bool[Array, "p m"],
    patches: Float[Array, "p n d"],
    patch_mask: Bool[Array, "p n"],
    beta: float,
    steps: int,
) -> Float[Array, " p"]:
    """The cost of moving the words of each pair onto its patches, in [0, 2], fp32 at least; 0 where there are none of
    either. The gradient goes through the cost alone, not through the plan.
    """
    words = unit(jnp.where(word_mask[..., None], at_least_fp32(words), 0))
    patches = unit(jnp.where(patch_mask[..., None], at_least_fp32(patches), 0))
    cost = 1 - jnp.einsum("pmd,pnd->pmn", words, patches, preferred_element_type=words.dtype)
    plan = transport_plan(jax.lax.stop_gradient(cost), word_mask, patch_mask, beta, steps)
    return jnp.sum(plan * cost, axis=(1, 2))


def transport_plan(
    cost: Float[Array, "p m n"], rows: Bool[Array, "p m"], columns: Bool[Array, "p n"], beta: float, steps: int
) -> Float[Array, "p m n"]:
    """The share of the weight that goes from each row to each column, at the least cost: IPOT, the inexact proximal
    point method, with one Sinkhorn step inside of each of its own (Xie et al. 2018, arXiv:1802.04307, algorithm 1).

    Rows that are real have 1 / (their number) of the weight each, exactly; the columns' sums come near 1 / (theirs)
    with more steps. What isn't real gets nothing; where there are no rows or no columns the plan is 0.

    Args:
        cost: of moving a unit of weight from a row to a column, at least 0.
        rows, columns: which of them are real.
        beta: the weight of staying near the plan of the step before; larger values take more steps, smaller ones leave
            the range of numbers sooner.
        steps: their number.
    """
    real = rows[:, :, None] & columns[:, None]
    kernel = jnp.where(real, jnp.exp(-cost / beta), 0)
    row_count, column_count = (jnp.maximum(mask.sum(axis=1, keepdims=True), 1) for mask in (rows, columns))

    def scaling(mask: Bool[Array, "p k"], count: Array, sums: Float[Array, "p k"]) -> Float[Array, "p k"]:
        return jnp.where(mask & (sums > 0), 1 / (count * jnp.where(sums > 0, sums, 1)), 0)

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        plan, of_rows = state
        plan = kernel * plan
        of_columns = scaling(columns, column_count, jnp.einsum("pmn,pm->pn", plan, of_rows))
        of_rows = scaling(rows, row_count, jnp.einsum("pmn,pn->pm", plan, of_columns))
        return (of_rows[:, :, None] * plan * of_columns[:, None], of_rows), None

    start = real.astype(cost.dtype), jnp.where(rows, 1 / row_count, 0).astype(cost.dtype)
    return jax.lax.scan(step, start, None, length=steps)[0][0]
