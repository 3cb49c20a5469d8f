"""The loss is the dense one, further candidates are never compared themselves, and spans are drawn as they should."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mmjax.objectives.reserve.compared import ComparedVectors, chosen_spans, compared_vectors, contrasted, drawn_scores
from tests.objectives.reserve.by_hand import info_nce

B, S, T, D = 6, 3, 5, 8
RANDOM = np.random.default_rng(6)
X: Any = RANDOM.normal(size=(B, S, D)).astype(np.float32)
Y: Any = RANDOM.normal(size=(B, T, D)).astype(np.float32)
X_VALID: Any = RANDOM.random((B, S)) < 0.8
Y_VALID: Any = RANDOM.random((B, T)) < 0.8
PARTNER: Any = np.array([RANDOM.permutation(T)[:S] for _ in range(B)])
SCALE: Any = 7.0


def loss(x: Any, y: Any) -> Any:
    return contrasted(compared_vectors(x, y, X_VALID, Y_VALID, PARTNER), jnp.float32(SCALE))


def counted() -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]:
    """States and their targets by example and place, and the further candidates."""
    pairs = [(b, s) for b in range(B) for s in range(S) if X_VALID[b, s] and Y_VALID[b, PARTNER[b, s]]]
    targets = [(b, int(PARTNER[b, s])) for b, s in pairs]
    extra = [(b, t) for b in range(B) for t in range(T) if Y_VALID[b, t] and (b, t) not in targets]
    return pairs, targets, extra


def test_it_is_half_of_each_direction_with_further_candidates_for_states_alone() -> None:
    pairs, targets, extra = counted()
    assert len(extra) > 5
    assert len(pairs) < X_VALID.sum()  # some state's target isn't there
    expected, hits = info_nce([X[at] for at in pairs], [Y[at] for at in targets], [Y[at] for at in extra], SCALE)
    got, metrics = jax.jit(loss)(X, Y)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], hits, rtol=1e-5)


def test_gradients_are_those_of_the_formula() -> None:
    pairs, targets, extra = counted()

    def by_formula(x: Any, y: Any) -> Any:
        unit = lambda v: v / jnp.sqrt(jnp.sum(v * v, -1, keepdims=True) + 1e-5)  # noqa: E731
        a, b = (unit(jnp.stack([v[at] for at in some])) for v, some in ((x, pairs), (y, targets)))
        more = jnp.concatenate([b, unit(jnp.stack([y[at] for at in extra]))])
        forward = jax.nn.logsumexp(SCALE * a @ more.T, axis=1) - SCALE * jnp.sum(a * b, 1)
        backward = jax.nn.logsumexp(SCALE * b @ a.T, axis=1) - SCALE * jnp.sum(a * b, 1)
        return (forward.mean() + backward.mean()) / 2

    expected = jax.grad(by_formula, (0, 1))(X, Y)
    got = jax.jit(jax.grad(lambda x, y: loss(x, y)[0], (0, 1)))(X, Y)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert all(np.abs(got[1][at]).max() > 0 for at in extra)  # they are candidates
    nowhere = np.ones((B, T), bool)
    for at in (*targets, *extra):
        nowhere[at] = False
    assert not np.asarray(got[1])[nowhere].any()


def test_a_further_candidate_asks_nothing() -> None:
    """Were it compared, the direction from targets to states would change as it moves."""
    *_, extra = counted()
    moved = Y.copy()
    for at in extra:
        moved[at] = RANDOM.normal(size=D)
    (_, first), (_, second) = jax.jit(loss)(X, Y), jax.jit(loss)(X, moved)
    np.testing.assert_allclose(first["loss_backward"], second["loss_backward"], rtol=1e-6)
    assert abs(first["loss_forward"] - second["loss_forward"]) > 1e-3


def test_what_is_not_there_may_hold_anything() -> None:
    x, y = (np.where(there[..., None], v, np.nan) for v, there in ((X, X_VALID), (Y, Y_VALID)))
    (got, _), gradients = jax.jit(jax.value_and_grad(lambda x: loss(x, y), has_aux=True))(x)
    np.testing.assert_allclose(got, loss(X, Y)[0], rtol=1e-6)
    assert np.isfinite(np.asarray(gradients)[X_VALID]).all()


def test_without_pairs_the_loss_is_zero() -> None:
    nobody: Any = np.zeros((B, S), bool)
    got, gradients = jax.value_and_grad(
        lambda x: contrasted(compared_vectors(x, Y, nobody, Y_VALID, PARTNER), SCALE)[0]
    )(X)
    assert got == 0
    assert not np.asarray(gradients).any()


def test_spans_are_drawn_without_replacement_by_their_weights() -> None:
    """Of 3 spans of a video, 4 times as likely, and 4 of the web, 2 are drawn: pairs by chi-squared."""
    more = jnp.array([np.log(4.0)] * 3 + [0.0] * 4)
    draws = 20_000
    scores = jax.jit(drawn_scores)(jax.random.split(jax.random.key(0), draws), more)
    valid = jnp.ones((1, 7), bool)
    taken = np.asarray(jax.jit(jax.vmap(lambda one: chosen_spans(one[None], valid, 2)[0]))(scores))
    assert (taken.sum(1) == 2).all()
    weight = np.exp(np.asarray(more, np.float64)) / np.exp(np.asarray(more, np.float64)).sum()
    seen, expected = [], []
    for a in range(7):
        for b in range(a):
            seen.append((taken[:, a] & taken[:, b]).sum())
            expected.append(weight[a] * weight[b] / (1 - weight[a]) + weight[b] * weight[a] / (1 - weight[b]))
    assert stats.chisquare(seen, draws * np.array(expected)).pvalue > 0.01


def test_only_valid_spans_are_drawn_and_over_the_whole_batch() -> None:
    scores: Any = RANDOM.normal(size=(4, 6)).astype(np.float32)
    valid: Any = RANDOM.random((4, 6)) < 0.6
    valid[2] = False
    for count in (1, 5, int(valid.sum()), 23, 30):
        taken = np.asarray(chosen_spans(scores, valid, count))
        best = sorted(scores[valid], reverse=True)[:count]
        assert sorted(scores[taken], reverse=True) == best
        assert not (taken & ~valid).any()


def test_vectors_are_a_little_shorter_than_one() -> None:
    given = compared_vectors(X, Y, X_VALID, Y_VALID, PARTNER)
    assert isinstance(given, ComparedVectors)
    lengths = np.linalg.norm(X, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(given.x, axis=-1), lengths / np.sqrt(lengths**2 + 1e-5), rtol=1e-6)
    half = compared_vectors(jnp.bfloat16(X), jnp.bfloat16(Y), X_VALID, Y_VALID, PARTNER)
    assert half.x.dtype == jnp.float32
