"""The encoder of all parts equals its formulas, and its places are the paper's."""

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from mmjax.models.towers.reserve.encoder import NeighbourPool, ReserveEncoder, centred, on_grid
from tests.models.towers.reserve import twin
from tests.models.towers.reserve.towers import BLOCKS, drawn

N, AXES = 7, 2
RANDOM = np.random.default_rng(1)
X = RANDOM.normal(size=(3, N, BLOCKS.width)).astype(np.float32)
PLACES = RANDOM.uniform(-1, 1, (3, N, AXES)).astype(np.float32)


def test_places_are_the_papers() -> None:
    assert centred(6).tolist() == [-3, -2, -1, 1, 2, 3]
    assert centred(5).tolist() == [-2, -1, 1, 2, 3]
    grid = on_grid(12, 20).reshape(12, 20, 2)
    np.testing.assert_allclose(grid[0, 0], [-6 / 21, -10 / 21], rtol=1e-6)
    np.testing.assert_allclose(grid[6, 9], [1 / 21, -1 / 21], rtol=1e-6)
    np.testing.assert_allclose(grid[11, 19], [6 / 21, 10 / 21], rtol=1e-6)
    np.testing.assert_allclose(on_grid(3, 4), twin.grid_places(3, 4), rtol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("cls", [False, True])
def test_it_equals_its_formulas_with_a_mask_and_without(cls: bool, scaled: bool) -> None:
    module = ReserveEncoder(BLOCKS, cls=cls, scaled=scaled)
    variables = drawn(module, X, PLACES)
    held = twin.in_float64(variables["params"])
    mask = np.arange(N) < np.array([[N], [3], [5]])
    for given in (None, mask):
        got = np.asarray(jax.jit(module.apply)(variables, X, PLACES, given))
        for row in range(3):
            real = None if given is None else given[row]
            expected = twin.encoded(X[row], held, PLACES[row], mask=real, cls=cls, scaled=scaled)
            shown = slice(None) if real is None else np.array([True] * cls + real.tolist())
            np.testing.assert_allclose(got[row][shown], expected[shown], atol=1e-5, rtol=1e-5)


def test_it_equals_its_formulas_where_tokens_see_only_some() -> None:
    module = ReserveEncoder(BLOCKS)
    variables = drawn(module, X, PLACES)
    allowed = RANDOM.random((3, N, N)) < 0.5
    allowed[1, 2] = False
    got = jax.jit(lambda *inputs: module.apply(*inputs, allowed=allowed))(variables, X, PLACES)
    for row in range(3):
        expected = twin.encoded(X[row], twin.in_float64(variables["params"]), PLACES[row], allowed[row])
        np.testing.assert_allclose(got[row], expected, atol=1e-5, rtol=1e-5)


def test_a_true_rotation_knows_only_differences_of_places_and_the_scaling_does_not() -> None:
    moved = PLACES + np.array([0.25, -0.5], np.float32)
    for scaled, same in ((False, True), (True, False)):
        module = ReserveEncoder(BLOCKS, scaled=scaled)
        variables = drawn(module, X, PLACES)
        first, second = (np.asarray(module.apply(variables, X, at)) for at in (PLACES, moved))
        assert np.allclose(first, second, atol=1e-4) == same
        nowhere: Any = module.apply(variables, X, np.zeros_like(PLACES))
        assert not np.allclose(first, nowhere, atol=1e-2)


def test_the_pool_is_attention_of_the_mean() -> None:
    few = RANDOM.normal(size=(4, 5, 16)).astype(np.float32)
    module = NeighbourPool(heads=2)
    variables = drawn(module, few)
    held = twin.in_float64(variables["params"])
    expected = [twin.pooled(each, held) for each in few]
    got: Any = module.apply(variables, few)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)


def test_matrices_start_as_in_the_released_code() -> None:
    """Cut off at two deviations of min(18 / inputs, 0.02) / sqrt(2), whose own is 0.88 of that."""
    wide = replace(BLOCKS, width=512, heads=8, depth=1)
    made = nn.unbox(ReserveEncoder(wide, cls=True).init(jax.random.key(0), np.zeros((1, 2, 512)), np.zeros((2, 1))))
    held = made["params"]
    block = held["transformer"]["blocks"]
    for kernel, inputs in (
        (block["attention"]["qkv"]["kernel"], 512),
        (block["attention"]["out"]["kernel"], 512),
        (block["mlp"]["in"]["kernel"], 512),
        (block["mlp"]["out"]["kernel"], 2_048),
        (held["projection"]["kernel"], 512),
    ):
        deviation = min(18 / inputs, 0.02) / np.sqrt(2)
        assert np.abs(kernel).max() <= 2 * deviation
        assert np.std(kernel) == pytest.approx(0.8796 * deviation, rel=0.01)
    assert np.std(held["cls"]) == pytest.approx(0.02, rel=0.1)
