"""What of divided blocks their tower's tests leave open: the choices of `Blocks`, and dropout by each example's key."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks
from mmjax.models.layers.divided import DividedTransformer
from tests.models import oracle

BLOCKS = Blocks(width=8, depth=2, heads=2)
X = np.random.default_rng(0).normal(size=(2, 1 + 3 * 4, 8)).astype(np.float32)
MASK = np.array([[1, 1, 1], [1, 1, 0]], bool)


def run(blocks: Blocks, params: Any, **more: Any) -> np.ndarray:
    module: Any = DividedTransformer(blocks)
    return np.asarray(jax.jit(lambda p: module.apply(p, X, 3, MASK, prefix=1, **more))(params))


def test_remat_and_unroll_change_nothing() -> None:
    params = oracle.params_of(DividedTransformer(BLOCKS), X, 3, MASK, False, None, None, None, 1)
    wanted = run(BLOCKS, params)
    assert wanted.shape == X.shape
    np.testing.assert_allclose(run(replace(BLOCKS, remat=None, unroll=2), params), wanted, atol=1e-6)
    assert np.abs(run(replace(BLOCKS, activation="quick_gelu"), params) - wanted).max() > 1e-4


def test_layer_scale_is_on_every_branch() -> None:
    scaled = replace(BLOCKS, layer_scale=0.5)
    params = oracle.params_of(DividedTransformer(scaled), X, 3, MASK, False, None, None, None, 1)
    base = run(scaled, params)
    for name in ("scale_time", "scale_attention", "scale_mlp"):
        other: Any = jax.tree.map(lambda leaf: leaf, params)
        other["params"]["blocks"][name]["scale"] = 2 * other["params"]["blocks"][name]["scale"]
        assert np.abs(run(scaled, other) - base).max() > 1e-3, name
    nothing: Any = jax.tree.map(lambda leaf: leaf, params)
    for name in ("scale_time", "scale_attention", "scale_mlp"):
        nothing["params"]["blocks"][name]["scale"] = np.zeros((2, 8), np.float32)
    want = oracle.layer_norm(oracle.as64(params)["params"]["norm"], X)
    np.testing.assert_allclose(run(scaled, nothing), want, atol=1e-5)


def test_dropout_is_on_every_branch_and_follows_each_example_s_key() -> None:
    scaled = replace(BLOCKS, layer_scale=0.5, dropout=0.3)
    module = DividedTransformer(scaled)
    params = oracle.params_of(module, X, 3, MASK, False, None, None, None, 1)
    train = jax.jit(lambda p, x, mask, keys: module.apply(p, x, 3, mask, prefix=1, train=True, keys=keys))
    plain = jax.jit(lambda p: module.apply(p, X, 3, MASK, prefix=1))
    keys = jax.random.split(jax.random.key(1), 2)
    one = train(params, X[1:], MASK[1:], keys[1:])
    np.testing.assert_allclose(one[0], train(params, X, MASK, keys)[1], atol=1e-5)
    branches = ("scale_time", "scale_attention", "scale_mlp")
    for name in branches:  # each alone
        alone: Any = jax.tree.map(lambda leaf: leaf, params)
        for other in branches:
            scale = np.full((2, 8), float(other == name), np.float32)
            alone["params"]["blocks"][other]["scale"] = scale
        assert np.abs(train(alone, X, MASK, keys) - plain(alone)).max() > 1e-2, name


def test_blocks_that_it_has_not_are_an_error() -> None:
    with pytest.raises(UserError, match="are pre-LN, and have norm='post'"):
        oracle.params_of(DividedTransformer(replace(BLOCKS, norm="post")), X, 3)
    none = DividedTransformer(replace(BLOCKS, depth=0))
    np.testing.assert_array_equal(none.apply({}, X, 3), X)
