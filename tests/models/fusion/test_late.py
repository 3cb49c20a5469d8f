from typing import Any

import jax
import numpy as np
import pytest

from mmjax.models.fusion.late import Late
from tests.models import oracle
from tests.models.fusion.embedded import FUSIONS, check_twin, embedding, given, params_of

CLASSES = 5
RULES: tuple[Any, ...] = ("mean", "product", "vote", "learned")
NOTHING = np.full(CLASSES, -np.log(CLASSES))


def decided(p, inputs):
    return [oracle.softmax(oracle.dense(p[f"head_{name}"], x)) for name, x in inputs.items()]


def mean(p, inputs):
    return np.log(np.mean(decided(p, inputs), axis=0)) if inputs else NOTHING


def product(p, inputs):
    together = np.prod([np.ones(CLASSES), *decided(p, inputs)], axis=0)
    return np.log(together / together.sum())


def vote(p, inputs):
    if not inputs:
        return NOTHING
    probabilities = decided(p, inputs)
    votes = np.mean(probabilities, axis=0)
    for each in probabilities:
        votes[each.argmax()] += 1
    return np.log(votes / (len(inputs) + 1))


def learned(p, inputs):
    if not inputs:
        return NOTHING
    weights = oracle.softmax(np.array([p[f"weight_{name}"] for name in inputs]))
    return np.log(weights @ decided(p, inputs))


@pytest.mark.parametrize("twin", [mean, product, learned])
def test_equals_plain_numpy(twin):
    check_twin(FUSIONS[twin.__name__], twin)


def test_votes_equal_plain_numpy_and_training_is_by_the_mean():
    params, tokens = params_of(FUSIONS["vote"]), given()
    got, weights = embedding(FUSIONS["vote"], params, tokens), oracle.as64(params)["params"]
    for row in range(len(got)):
        here = {n: np.float64(x[row, 0]) for n, (x, there) in sorted(tokens.items()) if there[row, 0]}
        np.testing.assert_allclose(got[row], vote(weights, here), atol=1e-5)
    trained = embedding(FUSIONS["vote"], params, tokens, train=True)
    np.testing.assert_array_equal(trained, embedding(FUSIONS["mean"], params, tokens))
    assert (got != trained).any()


@pytest.mark.parametrize("rule", RULES)
def test_probabilities_sum_to_one(rule):
    got = np.exp(embedding(FUSIONS[rule], params_of(FUSIONS[rule]), given()))
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)


def heads(rows):
    """Inputs that decide with these probabilities, whatever they are given."""
    kernel = np.zeros((4, 3), np.float32)
    tokens = {name: (np.zeros((1, 1, 4), np.float32), np.ones((1, 1), bool)) for name in "abc"}
    biases = zip("abc", np.log(np.float32(rows)), strict=True)
    return {"params": {f"head_{name}": {"kernel": kernel, "bias": bias} for name, bias in biases}}, tokens


@pytest.mark.parametrize(
    ("rows", "winner", "by_mean"),
    [
        ([[0.5, 0.49, 0.01], [0.5, 0.49, 0.01], [0.01, 0.98, 0.01]], 0, 1),  # two votes beat one that is surer
        ([[0.4, 0.3, 0.3], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]], 2, 2),  # of one vote each, the highest sum
        ([[0.4, 0.3, 0.3], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], 1, 1),
    ],
)
def test_a_majority_wins_and_of_equal_ones_the_sum_decides(rows, winner, by_mean):
    params, tokens = heads(rows)
    assert embedding(Late(classes=3, rule="vote"), params, tokens)[0].argmax() == winner
    assert embedding(Late(classes=3), params, tokens)[0].argmax() == by_mean


def test_certain_votes_have_finite_logs_and_gradients():
    """A class that all find all but impossible has no infinite loss."""
    params, tokens = heads([[1.0, 1e-38, 1e-38]] * 3)
    params = jax.tree.map(lambda x: 3 * x, params)
    for rule in RULES:
        fusion: Any = Late(classes=3, rule=rule)
        held = {"params": {**params["params"], **({f"weight_{n}": 0.0 for n in "abc"} if rule == "learned" else {})}}
        found, gradients = jax.jit(jax.value_and_grad(lambda p, f=fusion: f.apply(p, tokens)[1].sum()))(held)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found, gradients)))
        assert found < -100
