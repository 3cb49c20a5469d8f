import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.layers.pooling import (
    AttentionPool,
    check_pooling,
    first,
    largest,
    last,
    mean,
    mean_sqrt,
    mean_weighted,
)
from tests.models import oracle

MASK = jnp.array([[True, True, False, False], [True, False, True, False], [False] * 4])


@pytest.fixture(scope="module")
def tokens():
    return jax.random.normal(jax.random.key(0), (3, 4, 16))


def test_first(tokens):
    np.testing.assert_array_equal(first(tokens, MASK), tokens[:, 0])


def test_last_is_the_last_that_is_allowed(tokens):
    np.testing.assert_array_equal(last(tokens, MASK), jnp.stack([tokens[0, 1], tokens[1, 2], tokens[2, 0]]))


def test_mean_is_over_what_is_allowed_and_zero_over_nothing(tokens):
    want = np.stack([np.asarray(tokens[0, :2]).mean(0), np.asarray(tokens[1, ::2]).mean(0), np.zeros(16)])
    np.testing.assert_allclose(mean(tokens, MASK), want, atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: mean(x, MASK).sum())(tokens)).all()


def test_the_other_means_and_the_maximum_are_over_what_is_allowed(tokens):
    rows = [np.asarray(tokens[0, :2], np.float64), np.asarray(tokens[1, ::2], np.float64)]
    for pooling, of in (
        (mean_sqrt, lambda row, places: row.sum(0) / np.sqrt(2)),
        (mean_weighted, lambda row, places: places @ row / places.sum()),
        (largest, lambda row, places: row.max(0)),
    ):
        places = (np.array([1.0, 2.0]), np.array([1.0, 3.0]))
        want = [*(of(row, place) for row, place in zip(rows, places, strict=True)), np.zeros(16)]
        np.testing.assert_allclose(pooling(tokens, MASK), want, atol=1e-6)
        assert np.isfinite(jax.grad(lambda x, pooling=pooling: pooling(x, MASK).sum())(tokens)).all()


def test_attention_pool_equals_float64_numpy(tokens):
    pool = AttentionPool(heads=2, mlp_dim=24)
    params = oracle.params_of(pool, tokens, MASK)
    got = oracle.apply(pool, params, tokens, MASK)
    weights = oracle.as64(params)["params"]
    for row in range(2):
        want = oracle.attention_pool(weights, np.asarray(tokens[row], np.float64)[np.asarray(MASK[row])])
        np.testing.assert_allclose(got[row], want, atol=2e-5)


def test_an_unknown_pooling_is_named():
    with pytest.raises(UserError, match=r"pooling='means' is not one of cls, .*, map; did you mean mean"):
        check_pooling("means")
