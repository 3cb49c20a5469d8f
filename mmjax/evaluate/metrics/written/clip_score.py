"""CLIPScore: how well texts fit pictures by the towers of a model, without references or with (Hessel et al. 2021,
arXiv:2104.08718)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mmjax.errors import UserError

WEIGHT = 2.5  # the paper's w, by which scores of CLIP spread over 0 to 1


def clip_scores(
    pictures: Float[np.ndarray, "n e"], texts: Float[np.ndarray, "n e"], weight: float = WEIGHT
) -> Float[np.ndarray, " n"]:
    """The CLIPScore of each text and its picture: weight * max(cos, 0). Vectors may have any length but 0."""
    return weight * np.maximum(np.sum(_unit(pictures) * _unit(texts), axis=1), 0)


def ref_clip_scores(
    scores: Float[np.ndarray, " n"],
    texts: Float[np.ndarray, "n e"],
    references: Float[np.ndarray, "r e"],
    owners: Sequence[int],
) -> Float[np.ndarray, " n"]:
    """The RefCLIPScore of each text: the harmonic mean of its `clip_scores` and the largest cosine to one of its
    references, at least 0; 0 where either is.

    owners: of each reference the number of its text, and each text has one.

    Raises UserError where a text has no reference.
    """
    rows = np.asarray(owners, np.int64)
    if lacking := sorted({*range(len(texts))} - {*rows.tolist()}):
        raise UserError(f"text {lacking[0]} has no reference to be compared with: leave it out, or score without")
    best = np.zeros(len(texts))
    np.maximum.at(best, rows, np.sum(_unit(texts)[rows] * _unit(references), axis=1))
    total = scores + best
    return np.where(total > 0, 2 * scores * best / np.where(total > 0, total, 1), 0.0)


def _unit(vectors: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n e"]:
    wide = np.asarray(vectors, np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)
