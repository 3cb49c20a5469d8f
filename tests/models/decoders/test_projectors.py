"""Projectors equal the arithmetic of their papers, and what isn't real takes no part."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mmjax.errors import UserError
from mmjax.models import Blocks, LinearProjector, MlpProjector, Resampler
from tests.models import oracle

X = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
SMALL = Blocks(width=8, depth=2, heads=2, mlp_dim=12)


def applied(module: Any, x: Any = X, mask: Any = MASK, width: int = 6) -> tuple[Any, Any, Any]:
    shapes = jax.eval_shape(lambda: meta.unbox(module.init(jax.random.key(0), x, mask, width)))
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: np.float32(0.5 * random.normal(size=leaf.shape)), shapes)
    tokens, real = module.apply(params, x, mask, width)
    return oracle.as64(params)["params"], np.asarray(tokens), np.asarray(real)


def test_a_linear_map_and_git_s_norm() -> None:
    p, tokens, real = applied(LinearProjector())
    np.testing.assert_allclose(tokens, oracle.dense(p["dense"], X), atol=1e-5)
    np.testing.assert_array_equal(real, MASK)
    p, tokens, _ = applied(LinearProjector(norm_eps=1e-5))
    np.testing.assert_allclose(tokens, oracle.layer_norm(p["norm"], oracle.dense(p["dense"], X), 1e-5), atol=1e-5)


def test_paligemma_s_starts_at_zero_and_its_matrix_alone_has_a_gradient() -> None:
    module = LinearProjector(zeros=True)
    fresh = meta.unbox(module.init(jax.random.key(0), X, MASK, 6))
    assert not np.any(module.apply(fresh, X, MASK, 6)[0])

    def loss(params: Any, x: Any) -> Any:
        tokens: Any = module.apply(params, x, MASK, 6)[0]
        return jnp.sum((tokens - 1.0) ** 2)

    by_params, by_x = jax.grad(loss, (0, 1))(fresh, X)
    assert np.abs(by_params["params"]["dense"]["kernel"]).min() > 0
    assert not np.any(by_x)


def test_llava_s_mlp() -> None:
    p, tokens, _ = applied(MlpProjector())
    want = oracle.dense(p["out"], oracle.ACTIVATIONS["gelu"](oracle.dense(p["in"], X)))
    np.testing.assert_allclose(tokens, want, atol=1e-5)


def test_a_resampler_reads_the_real_tokens_and_its_own_queries() -> None:
    p, tokens, real = applied(Resampler(queries=4, blocks=SMALL))
    np.testing.assert_array_equal(real, MASK.any(axis=1, keepdims=True).repeat(4, axis=1))
    for row in range(2):
        x, seen = p["queries"], X[row][MASK[row]].astype(np.float64)
        for i in range(2):
            queries = oracle.layer_norm(p[f"norm_queries_{i}"], x)
            read = np.concatenate([oracle.layer_norm(p[f"norm_tokens_{i}"], seen), queries])
            own = p[f"attention_{i}"]
            q = oracle.heads_in(own["query"], queries, 0)
            k, v = (oracle.heads_in(own["key_value"], read, part) for part in range(2))
            x = x + oracle.attend(q, k, v, own["out"], np.ones((4, len(read)), bool))
            x = x + oracle.mlp(p[f"mlp_{i}"], oracle.layer_norm(p[f"norm_mlp_{i}"], x), "gelu")
        want = oracle.dense(p["dense"], oracle.layer_norm(p["norm"], x))
        np.testing.assert_allclose(tokens[row], want, atol=2e-5)


def test_a_resampler_as_wide_as_the_decoder_has_no_last_map() -> None:
    p, tokens, _ = applied(Resampler(queries=4, blocks=SMALL), width=8)
    assert "dense" not in p
    assert tokens.shape == (3, 4, 8)


@pytest.mark.parametrize("blocks", [Blocks(width=6, depth=1, heads=2), Blocks(width=8, depth=1, heads=2, norm="post")])
def test_a_resampler_is_as_wide_as_what_it_reads(blocks: Blocks) -> None:
    with pytest.raises(UserError, match="its width is theirs, its norm 'pre', its dropout 0"):
        Resampler(queries=4, blocks=blocks).init(jax.random.key(0), X, MASK, 6)
