"""Metrics of predicted numbers: mean absolute error, root mean squared error, coefficient of determination."""

import numpy as np
from jaxtyping import Float


def regression_scores(prediction: Float[np.ndarray, "n t"], label: Float[np.ndarray, "n t"]) -> dict[str, float]:
    """`mae` and `rmse` over all examples and targets, in their units, and `r2`, the mean over targets of 1 - the sum of
    squared errors / that of squared distances from the labels' mean; there is none where a target never changes."""
    error = prediction.astype(np.float64) - label
    found = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(np.square(error).mean()))}
    spread = np.square(label - label.mean(axis=0, dtype=np.float64)).sum(axis=0)
    if (spread > 0).all():
        found["r2"] = float((1 - np.square(error).sum(axis=0) / spread).mean())
    return found
