"""Linear classifiers against what defines them: a gradient of zero, the normal equations, both in loops and fp64."""

import math

import numpy as np
import pytest

from mmjax.evaluate.metrics import linear
from mmjax.evaluate.metrics.linear import Linear, logistic, ridge


def data(count: int = 40, width: int = 5, classes: int = 3):
    rng = np.random.default_rng(0)
    number = rng.integers(0, classes, count)
    vectors = rng.normal(size=(count, width)) + np.eye(classes, width)[number]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), number


def objective(model: Linear, vectors, number, strength) -> float:
    """Mean cross-entropy and penalty, an example at a time."""
    total = 0.0
    for x, right in zip(vectors.astype(np.float64), number, strict=True):
        logits = [float(x @ model.weights[:, i] + model.bias[i]) for i in range(model.weights.shape[1])]
        logits = [logit for logit in logits if logit > -math.inf]
        seen = sorted(set(number))
        total += math.log(sum(map(math.exp, logits))) - logits[seen.index(right)]
    return total / len(vectors) + strength / 2 * float(np.sum(model.weights**2))


def several_objective(model: Linear, vectors, right, strength) -> float:
    total = 0.0
    for x, row in zip(vectors.astype(np.float64), right, strict=True):
        for i, is_right in enumerate(row):
            logit = float(x @ model.weights[:, i] + model.bias[i])
            total += math.log(1 + math.exp(-logit if is_right else logit))
    return total / len(vectors) + strength / 2 * float(np.sum(model.weights**2))


def assert_lowest(model: Linear, value) -> None:
    """No step in any coordinate goes down: of a convex function that is the minimum."""
    step, best = 1e-3, value(model)
    for array in (model.weights, model.bias):
        for place in np.ndindex(array.shape):
            if np.isfinite(array[place]):
                kept, sides = array[place], []
                for sign in (1, -1):
                    array[place] = kept + sign * step
                    sides.append(value(model))
                array[place] = kept
                assert min(sides) >= best
                assert abs(sides[0] - sides[1]) / (2 * step) < 1e-5  # the slope


@pytest.mark.parametrize("strength", [1.0, 1e-3])
def test_logistic_regression_is_at_the_minimum(strength):
    vectors, number = data()
    assert_lowest(logistic(vectors, number, 3, strength), lambda m: objective(m, vectors, number, strength))


def test_regressions_of_each_class_are_at_the_minimum():
    vectors, number = data()
    right = np.eye(3, dtype=bool)[number] | np.eye(3, dtype=bool)[(number + np.arange(40) % 2) % 3]
    assert_lowest(logistic(vectors, right, 3, 1e-2), lambda m: several_objective(m, vectors, right, 1e-2))


def test_start_chunks_and_precision_change_nothing(monkeypatch):
    vectors, number = data()
    model = logistic(vectors, number, 3, 1e-2)
    warm = logistic(vectors, number, 3, 1e-2, start=logistic(vectors, number, 3, 1.0))
    np.testing.assert_allclose(warm.weights, model.weights, atol=1e-4)
    monkeypatch.setattr(linear, "CHUNK", 30)
    np.testing.assert_allclose(logistic(vectors, number, 3, 1e-2).weights, model.weights, atol=1e-6)
    monkeypatch.setattr(linear, "EXACT", 0)
    np.testing.assert_allclose(logistic(vectors, number, 3, 1e-2).weights, model.weights, atol=1e-3)


def test_a_class_never_seen_is_never_found():
    vectors, number = data()
    for model in (logistic(vectors, 2 * number, 6, 1e-2), ridge(vectors, 2 * number, 6, 0.1)):
        scores = model(vectors)
        assert (scores[:, 1::2] == -np.inf).all()
        assert set(scores.argmax(axis=1)) <= {0, 2, 4}
    np.testing.assert_allclose(model(vectors)[:, ::2], ridge(vectors, number, 3, 0.1)(vectors))


@pytest.mark.parametrize("count", [40, 4])  # more, and fewer, examples than features
def test_ridge_solves_the_normal_equations(count):
    vectors, number = data(count)
    number[:3] = (0, 1, 2)
    model = ridge(vectors, number, 3, 0.1)
    x = vectors.astype(np.float64)
    mean = sum(x) / count
    penalty = 0.1 * sum(float((row - mean) @ (row - mean)) for row in x)
    for c in range(3):
        y = [1.0 if n == c else -1.0 for n in number]
        left = [float(row @ model.weights[:, c] + model.bias[c]) - value for row, value in zip(x, y, strict=True)]
        assert sum(left) == pytest.approx(0, abs=1e-9)  # the slope by the bias
        for e in range(5):
            slope = sum(error * row[e] for error, row in zip(left, x, strict=True)) + penalty * model.weights[e, c]
            assert slope == pytest.approx(0, abs=1e-9)


def test_the_same_strength_is_as_strong_for_embeddings_close_together():
    vectors, number = data()
    near = vectors.mean(axis=0) + (vectors - vectors.mean(axis=0)) / 100
    np.testing.assert_allclose(ridge(near, number, 3, 0.1)(near), ridge(vectors, number, 3, 0.1)(vectors), atol=1e-3)
    same = np.ones((6, 5), np.float32)
    assert np.isfinite(ridge(same, np.arange(6) % 3, 3, 0.1)(same)).all()
