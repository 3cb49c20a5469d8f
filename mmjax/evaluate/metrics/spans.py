"""Metrics of answers that are spans of a text: exact match, and F1 of their tokens."""

import numpy as np
from jaxtyping import Float, Int


def best_spans(logits: Float[np.ndarray, "n l 2"], longest: int) -> Int[np.ndarray, "n 2"]:
    """The first and the last token with the highest sum of logits, the last not before the first, at most `longest`
    tokens; the [CLS] alone, 0 and 0, is the answer that there is none, and no other span begins there."""
    count = logits.shape[1]
    score = logits[:, :, None, 0].astype(np.float64) + logits[:, None, :, 1]
    places = np.arange(count)
    allowed = (places >= places[:, None]) & (places < places[:, None] + longest)
    allowed[0, 1:] = False
    best = np.where(allowed, score, -np.inf).reshape(len(logits), -1).argmax(axis=1)
    return np.stack([best // count, best % count], axis=1)


def span_scores(found: Int[np.ndarray, "n 2"], truth: Int[np.ndarray, "n 2"]) -> dict[str, float]:
    """`exact`, the share of spans that are right, and `f1`, the mean over texts of the harmonic mean of precision and
    recall of the tokens' places; where one says that there is no answer, 1 if both do, else 0."""
    exact = (found == truth).all(axis=1)
    shared = np.minimum(found[:, 1], truth[:, 1]) - np.maximum(found[:, 0], truth[:, 0]) + 1
    both = (found[:, 1] - found[:, 0] + 1) + (truth[:, 1] - truth[:, 0] + 1)
    f1 = 2 * np.maximum(shared, 0) / both
    return {"exact": float(exact.mean()), "f1": float(f1.mean())}
