"""Linear classifiers of embeddings: logistic regression by L-BFGS, ridge regression in closed form."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

CHUNK = 2**23  # logits in memory at once: 64 MB in fp64
EXACT = 2**27  # numbers up to which features are kept in fp64 (1 GB); more are in fp32
STEPS = 1_000  # largest number of L-BFGS steps; it ends where no gradient is above GRADIENT
GRADIENT = 1e-7

Vectors = Float[np.ndarray, "n e"]
Targets = Int[np.ndarray, " n"] | Bool[np.ndarray, "n c"]


@dataclass(frozen=True)
class Linear:
    """A linear classifier with scores `x @ weights + bias`; the bias of a class that was never seen is -inf."""

    weights: Float[np.ndarray, "e c"]
    bias: Float[np.ndarray, " c"]

    def __call__(self, vectors: Vectors) -> Float[np.ndarray, "n c"]:
        return vectors.astype(np.float64) @ self.weights + self.bias


def logistic(vectors: Vectors, targets: Targets, classes: int, strength: float, start: Linear | None = None) -> Linear:
    """Minimises the mean cross-entropy plus `strength / 2` times the sum of squared weights; the bias is free.

    targets: class numbers, for a multinomial regression; or a mask of each example's classes, for one regression each
    (the mean, over examples, of the sum over classes).  start: the initial classifier, of the same classes and
    features.
    """
    from scipy.optimize import minimize  # takes half a second, which only probes need

    several = targets.ndim == 2
    seen = np.flatnonzero(targets.any(axis=0)) if several else np.unique(targets)
    wanted = targets[:, seen] if several else np.searchsorted(seen, targets)
    mean = vectors.mean(axis=0, dtype=np.float64)  # moved into the bias: L-BFGS needs fewer steps on centred features
    x = (vectors - mean).astype(np.float64 if vectors.size <= EXACT else np.float32)
    shape = (x.shape[1], len(seen))

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[: -len(seen)].reshape(shape), flat[-len(seen) :]
        slopes, offsets, total = np.zeros(shape), np.zeros(len(seen)), 0.0
        size = max(1, CHUNK // len(seen))
        for first in range(0, len(x), size):
            part, right = x[first : first + size], wanted[first : first + size]
            value, slope = (_sigmoids if several else _softmax)(part @ weights.astype(x.dtype) + bias, right)
            total += value
            slopes += part.T @ slope.astype(x.dtype)
            offsets += slope.sum(axis=0)
        value = total / len(x) + strength / 2 * float(np.sum(weights**2))
        return value, np.concatenate([(slopes / len(x) + strength * weights).ravel(), offsets / len(x)])

    first = np.zeros(shape[0] * shape[1] + len(seen))
    if start is not None:
        weights = start.weights[:, seen]
        first = np.concatenate([weights.ravel(), start.bias[seen] + mean @ weights])
    options = {"maxiter": STEPS, "maxfun": 2 * STEPS, "gtol": GRADIENT, "ftol": 1e-14}
    flat = minimize(loss, first, jac=True, method="L-BFGS-B", options=options).x
    return _whole(flat[: -len(seen)].reshape(shape), flat[-len(seen) :], mean, seen, classes)


def _softmax(logits: np.ndarray, right: np.ndarray) -> tuple[float, np.ndarray]:
    """Summed cross-entropy of class numbers, and its gradient by the logits."""
    rows = np.arange(len(logits))
    logits = logits - logits.max(axis=1, keepdims=True)
    exponents = np.exp(logits)
    sums = exponents.sum(axis=1, keepdims=True)
    slope = exponents / sums
    slope[rows, right] -= 1
    return float(np.sum(np.log(sums[:, 0]) - logits[rows, right])), slope


def _sigmoids(logits: np.ndarray, right: np.ndarray) -> tuple[float, np.ndarray]:
    """Summed binary cross-entropies, and their gradient by the logits."""
    value = float(np.sum(np.logaddexp(0, logits) - logits * right))
    return value, np.exp(-np.logaddexp(0, -logits)) - right


def ridge(vectors: Vectors, targets: Targets, classes: int, strength: float) -> Linear:
    """Least squares to +1 for an example's class (or classes) and -1 for the others; the bias isn't penalised.

    Minimises the sum of squared errors plus `strength * n * s` times the sum of squared weights, where s is the mean
    squared length of the centred vectors: so the strength doesn't depend on how close together embeddings are.
    """
    several = targets.ndim == 2
    seen = np.flatnonzero(targets.any(axis=0)) if several else np.unique(targets)
    wanted = np.where(targets[:, seen] if several else targets[:, None] == seen, 1.0, -1.0)
    mean, level = vectors.mean(axis=0, dtype=np.float64), wanted.mean(axis=0)
    x, y = vectors.astype(np.float64) - mean, wanted - level
    penalty = max(strength * float(np.sum(x**2)), 1e-12)  # vectors that are all the same have no features to learn
    if len(x) < x.shape[1]:  # the smaller of the two systems, which have the same solution
        weights = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    else:
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return _whole(weights, level, mean, seen, classes)


def _whole(weights: np.ndarray, bias: np.ndarray, mean: np.ndarray, seen: np.ndarray, classes: int) -> Linear:
    """The classifier for uncentred vectors, with the classes that were never seen."""
    every, biases = np.zeros((len(weights), classes)), np.full(classes, -np.inf)
    every[:, seen], biases[seen] = weights, bias - mean @ weights
    return Linear(every, biases)
