import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.decoders.patches import Decoder
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.positions import sincos
from tests.models import oracle

DECODER = Decoder(blocks=Blocks(width=16, depth=1, heads=2, mlp_dim=24), out_dim=6)
KEEP = np.array([[4, 0, -1], [1, 5, 3]])


def run(decoder, params, tokens, token_mask, keep, grid, prefix, patch_mask=None):
    return jax.jit(lambda p: decoder.apply(p, tokens, token_mask, keep, grid, prefix, patch_mask))(params)


@pytest.fixture(scope="module")
def inputs():
    tokens = jax.random.normal(jax.random.key(0), (2, 4, 12))
    return tokens, np.pad(KEEP >= 0, ((0, 0), (1, 0)), constant_values=True), KEEP, (2, 3), 1


@pytest.fixture(scope="module")
def params(inputs):
    return oracle.params_of(DECODER, *inputs)


def test_equals_float64_numpy(inputs, params):
    p = oracle.as64(params)["params"]
    got = run(DECODER, params, *inputs)
    assert got.shape == (2, 6, 6)
    assert got.dtype == jnp.float32
    for row in range(2):
        stem = oracle.dense(p["stem"], np.asarray(inputs[0][row], np.float64))
        x = np.tile(p["mask"], (6, 1))
        for slot, patch in enumerate(KEEP[row].tolist()):
            if patch >= 0:
                x[patch] = stem[1 + slot]
        x = np.concatenate([stem[:1], x + sincos((2, 3), 16)])
        want = oracle.dense(p["out"], oracle.transformer(p["transformer"], x)[1:])
        np.testing.assert_allclose(got[row], want, atol=3e-5)


def test_empty_slots_are_ignored(inputs, params):
    tokens, *rest = inputs
    got = run(DECODER, params, tokens.at[0, 3].set(100.0), *rest)
    np.testing.assert_array_equal(got, run(DECODER, params, *inputs))


def test_patches_that_are_not_real_are_not_attended_to(inputs, params):
    tokens, token_mask, *_ = inputs
    keep = np.array([[2, 0, -1], [1, 0, 2]])
    real = np.arange(5) < np.array([[3], [3]])
    longer = run(DECODER, params, tokens, token_mask, keep, (5,), 1, real)
    np.testing.assert_allclose(longer[:, :3], run(DECODER, params, tokens, token_mask, keep, (3,), 1), atol=3e-6)


def test_without_out_dim_it_gives_its_normalised_states(inputs, params):
    inner = {"params": {k: v for k, v in params["params"].items() if k != "out"}}
    states = run(DECODER.clone(out_dim=None), inner, *inputs)
    out = params["params"]["out"]
    np.testing.assert_allclose(states @ out["kernel"] + out["bias"], run(DECODER, params, *inputs), atol=1e-5)


def test_tokens_must_fit_keep(inputs, params):
    with pytest.raises(UserError, match="4 tokens are not 0 of a prefix and 3 kept patches"):
        DECODER.apply(params, *inputs[:4], 0)
