"""Places of answers among the options of a question, as visual dialogue is scored (Das et al. 2017,
arXiv:1611.08669)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.errors import UserError

RECALLS = (1, 5, 10)


def option_ranks(
    scores: Float[np.ndarray, "n options"],
    right: Int[np.ndarray, " n"],
    there: Bool[np.ndarray, "n options"] | None = None,
) -> Int[np.ndarray, " n"]:
    """The rank, from 1, of each question's right option by its score. An option that scores as much as the right one
    ranks before it, and so does one where either is NaN: a model that scores all alike has the last place.

    right: the right option's place.  there: False where a question has fewer options; None: all are there.

    Raises UserError where the right option isn't there.
    """
    rows, count = np.arange(len(scores)), scores.shape[1]
    there = np.ones(scores.shape, bool) if there is None else there
    bad = np.flatnonzero((right < 0) | (right >= count) | ~there[rows, np.clip(right, 0, count - 1)])
    if len(bad):
        raise UserError(f"the right option of question {bad[0]} is {right[bad[0]]}, which isn't among its options")
    behind = scores < scores[rows, right][:, None]  # False beside NaN
    return (there & ~behind).sum(axis=1)


def rank_scores(ranks: Int[np.ndarray, " n"]) -> dict[str, float]:
    """Recalls `R@1`, `R@5`, `R@10`, the mean reciprocal rank `mrr` and the `mean_rank` of ranks that begin at 1.

    Raises UserError where there are none.
    """
    if not len(ranks):
        raise UserError("no ranks to score: at least one question must be answered")
    found = {f"R@{k}": float((ranks <= k).mean()) for k in RECALLS}
    return found | {"mrr": float((1 / ranks).mean()), "mean_rank": float(ranks.mean())}


def option_ndcg(
    scores: Float[np.ndarray, "n options"], relevance: Float[np.ndarray, "n options"]
) -> Float[np.ndarray, " n"]:
    """The normalised discounted cumulative gain of each question, from 0 to 1: the relevance of the k first options by
    score, each by log2(1 + its place), divided by that of the k most relevant; k is the number of options of any
    relevance (VisDial 1.0). Of options that score alike the less relevant ranks first; NaN counts against the model.

    relevance: at least 0, the share of people who found the option right.

    Raises UserError where a question has no relevant option, or a relevance is negative or not finite.
    """
    bad = np.flatnonzero(~(np.isfinite(relevance) & (relevance >= 0)).all(axis=1) | ~(relevance > 0).any(axis=1))
    if len(bad):
        raise UserError(
            f"question {bad[0]} has the relevances {relevance[bad[0]].tolist()!r:.80}: none may be negative or NaN, "
            "and one must be above 0; leave out questions without"
        )
    known = np.where(np.isnan(scores), np.where(relevance > 0, -np.inf, np.inf), scores)
    discounts = 1 / np.log2(np.arange(scores.shape[1]) + 2)
    ranked = np.take_along_axis(relevance, np.lexsort((relevance, -known), axis=1), axis=1)
    ideal = -np.sort(-relevance, axis=1)
    counted = np.arange(scores.shape[1]) < (relevance > 0).sum(axis=1)[:, None]
    gain, most = ((each * discounts * counted).sum(axis=1) for each in (ranked, ideal))
    return gain / most


def mean_by_turn(values: Float[np.ndarray, " n"], turns: Sequence[int]) -> dict[int, float]:
    """The mean of a score of answers, as that they are right, by the turn of the dialogue that each stands in."""
    numbers = np.asarray(turns)
    return {int(turn): float(values[numbers == turn].mean()) for turn in np.unique(numbers)}
