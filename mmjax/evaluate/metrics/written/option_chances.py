"""The scores of answers that are ranked among their options at random."""

import numpy as np
from jaxtyping import Float, Int

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.ranked_options import RECALLS


def rank_chances(counts: Int[np.ndarray, " n"]) -> dict[str, float]:
    """The expected scores of `rank_scores` where each question's options, of which there are so many, are in a random
    order.

    Raises UserError where there are none, or a question has no option.
    """
    if not len(counts) or counts.min() < 1:
        raise UserError("no options to rank at random: each question has at least one")
    harmonic = np.cumsum(1 / np.arange(1, counts.max() + 1))
    found = {f"R@{k}": float(np.minimum(k / counts, 1).mean()) for k in RECALLS}
    return found | {"mrr": float((harmonic[counts - 1] / counts).mean()), "mean_rank": float((counts + 1).mean() / 2)}


def ndcg_chance(relevance: Float[np.ndarray, "n options"], counts: Int[np.ndarray, " n"]) -> float:
    """The expected `option_ndcg` of random orders: at each place the gain is the mean relevance of the question's
    options, the first so many of each row. Each has one of a relevance above 0."""
    discounts = 1 / np.log2(np.arange(relevance.shape[1]) + 2)
    counted = np.arange(relevance.shape[1]) < (relevance > 0).sum(axis=1)[:, None]
    ideal = (-np.sort(-relevance, axis=1) * discounts * counted).sum(axis=1)
    return float(np.mean(relevance.sum(axis=1) / counts * (discounts * counted).sum(axis=1) / ideal))
