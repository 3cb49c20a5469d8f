"""The towers of parts: what holds for frames and for clips alike."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from tests.models.towers.reserve.towers import BLOCKS, SAMPLES, SIZE, audio, drawn, vision

RANDOM = np.random.default_rng(2)
GIVEN: dict[str, tuple[Any, np.ndarray]] = {
    "frames": (vision(), RANDOM.integers(0, 256, (2, 3, *SIZE, 3), dtype=np.uint8)),
    "clips": (audio(), RANDOM.integers(-9_000, 9_000, (2, 3, SAMPLES), dtype=np.int16)),
}
MASK = np.array([[True, True, True], [True, False, True]])


@pytest.fixture(params=GIVEN)
def given(request: Any) -> Any:
    tower, x = GIVEN[request.param]
    return tower, x, drawn(tower, x)


def tokens_of(tower: Any) -> Any:
    return lambda *inputs, **more: tower.apply(*inputs, method="tokens", **more)


def test_a_part_that_is_not_real_matters_to_nothing(given: Any) -> None:
    tower, x, variables = given
    other = x.copy()
    other[1, 1] = RANDOM.permuted(x[1, 1])
    (first, real), (second, _) = (jax.jit(tokens_of(tower))(variables, each, MASK) for each in (x, other))
    np.testing.assert_array_equal(first, second)
    assert np.asarray(real).reshape(2, 3, -1).all(2).tolist() == MASK.tolist()
    assert np.asarray(real).reshape(2, 3, -1).any(2).tolist() == MASK.tolist()
    whole, _ = jax.jit(tokens_of(tower))(variables, x)
    each = np.asarray(real)
    np.testing.assert_allclose(first[each], whole[each], atol=1e-6)
    assert whole.shape[1] == np.prod(tower.grid(x))


def test_parts_do_not_see_each_other(given: Any) -> None:
    tower, x, variables = given
    other = x.copy()
    other[0, 2] = RANDOM.permuted(x[0, 2])
    first, second = (np.asarray(jax.jit(tokens_of(tower))(variables, each)[0]).reshape(2, 3, -1) for each in (x, other))
    changed = np.abs(first - second).max(2) > 1e-3
    assert changed.tolist() == [[False, False, True], [False] * 3]


def test_the_embedding_is_the_mean_of_the_real_parts_vectors(given: Any) -> None:
    tower, x, variables = given
    tokens, real = jax.jit(tokens_of(tower))(variables, x, MASK)
    vectors = np.asarray(tokens).reshape(2, 3, -1, BLOCKS.width)[:, :, 0]
    expected = [vectors[0].mean(0), vectors[1][[0, 2]].mean(0)]
    np.testing.assert_allclose(tower.apply(variables, tokens, real, method="pool"), expected, atol=1e-5)
    assert tower.embedding_size == BLOCKS.width
    nothing = jax.jit(tower.apply)(variables, x, np.zeros_like(MASK))
    assert not np.asarray(nothing).any()


def test_each_part_drops_out_by_a_key_of_its_own(given: Any) -> None:
    tower, x, variables = given
    tower = tower.clone(blocks=replace(BLOCKS, dropout=0.5))
    same = np.repeat(x[:1, :1], 2, axis=0).repeat(2, axis=1)
    keys = jax.random.split(jax.random.key(1), 2)
    run = jax.jit(lambda rows, keys: tokens_of(tower)(variables, rows, train=True, keys=keys)[0])
    found = run(same, keys)
    parts = np.asarray(found).reshape(4, -1)
    assert len({part.tobytes() for part in parts}) == 4
    alone = run(same[1:], keys[1:])
    np.testing.assert_allclose(found[1:], alone, atol=1e-5)


def test_it_computes_in_its_dtype_and_hides_nothing(given: Any) -> None:
    tower, x, variables = given
    half = tower.clone(blocks=replace(BLOCKS, dtype="bfloat16"))
    tokens, real = jax.jit(tokens_of(half))(variables, x)
    assert tokens.dtype == jnp.bfloat16
    assert half.apply(variables, tokens, real, method="pool").dtype == jnp.float32
    with pytest.raises(UserError, match="no patches that could be masked"):
        tower.apply(variables, x, keep=np.zeros((2, 1), np.int32), method="tokens")
