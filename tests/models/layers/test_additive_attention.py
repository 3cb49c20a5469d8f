"""Additive attention: by loops over tokens, and where there is nothing to see."""

from typing import Any

import flax.linen as nn
import numpy as np
import pytest

from mmjax.models.layers.additive_attention import AdditiveAttention
from mmjax.models.layers.parameters import uniform_init
from tests.models import oracle

RANDOM = np.random.default_rng(0)
STATE, TOKENS = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((3, 6), (3, 4, 5)))
REAL: Any = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)


class _Looking(nn.Module):
    attention: AdditiveAttention

    def __call__(self, state: Any, tokens: Any, real: Any) -> Any:
        return self.attention(state, self.attention.annotated(tokens, real))


@pytest.mark.parametrize("gate", [True, False])
def test_it_is_that_of_a_loop_over_tokens(gate: bool) -> None:
    attention = AdditiveAttention(7, gate, uniform_init(0.5), "float32")
    params = oracle.params_of(_Looking(attention), STATE, TOKENS, REAL)
    p = oracle.as64(params)["params"]["attention"]
    assert ("beta" in p) == gate
    spoilt = np.where(REAL[..., None], TOKENS, np.nan)
    found, weights = oracle.apply(_Looking(attention), params, STATE, spoilt, REAL)
    np.testing.assert_allclose(weights.sum(axis=1), [1, 1, 0], atol=1e-6)
    for row in range(2):
        logits = {
            n: p["score"][0] @ np.tanh(oracle.dense(p["of_tokens"], token) + STATE[row] @ p["of_state"]["kernel"])
            for n, token in enumerate(TOKENS[row].astype(np.float64))
            if REAL[row, n]
        }
        total = sum(np.exp(x) for x in logits.values())
        want = sum(np.exp(x) / total * TOKENS[row, n] for n, x in logits.items())
        if gate:
            want = want / (1 + np.exp(-oracle.dense(p["beta"], STATE[row])))
        for n, x in logits.items():
            np.testing.assert_allclose(weights[row, n], np.exp(x) / total, atol=1e-6)
        np.testing.assert_allclose(found[row], want, atol=1e-6)
        np.testing.assert_array_equal(weights[row][~REAL[row]], 0)
    np.testing.assert_array_equal(found[2], 0)
