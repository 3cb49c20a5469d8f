"""The contrastive losses against numpy in float64, finite differences, and what theory says of their first values."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logsumexp

from mmjax.errors import UserError
from mmjax.objectives.contract import Context, View
from mmjax.objectives.contrastive.objective import Contrastive, at_most, sigmoid_loss, softmax_loss
from mmjax.objectives.encoded import Encoded
from mmjax.objectives.numerics import unit

B, E = 7, 5


def numpy_softmax(a: Any, b: Any, scale: float, a_valid: Any, b_valid: Any, smoothing: float = 0.0) -> float:
    total, rows = 0.0, [i for i in range(len(a)) if a_valid[i] and b_valid[i]]
    for x, y, y_valid in ((a, b, b_valid), (b, a, a_valid)):
        for i in rows:
            logits = scale * y[y_valid] @ x[i]
            positive = scale * x[i] @ y[i]
            total += logsumexp(logits) - (1 - smoothing) * positive - smoothing * logits.mean()
    return total / (2 * len(rows))


def numpy_sigmoid(a: Any, b: Any, scale: float, bias: float, a_valid: Any, b_valid: Any) -> float:
    total = 0.0
    for i in range(len(a)):
        for j in range(len(b)):
            if a_valid[i] and b_valid[j]:
                total -= np.log(expit((1 if i == j else -1) * (scale * a[i] @ b[j] + bias)))
    return total / (a_valid & b_valid).sum()


def inputs(seed: int = 0) -> tuple[Any, ...]:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, B, E))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a, b, np.array([1, 1, 0, 1, 1, 1, 0], bool), np.array([1, 0, 1, 1, 1, 1, 0], bool)


@pytest.mark.parametrize("all_valid", [True, False])
def test_losses_equal_numpy_float64(all_valid: bool) -> None:
    a, b, a_valid, b_valid = inputs()
    if all_valid:
        a_valid = b_valid = np.ones(B, bool)
    with jax.enable_x64(True):
        softmax, metrics = jax.jit(softmax_loss)(a, b, 9.0, a_valid, b_valid)
        smoothed, _ = jax.jit(partial(softmax_loss, label_smoothing=0.1))(a, b, 9.0, a_valid, b_valid)
        sigmoid, _ = jax.jit(sigmoid_loss)(a, b, 9.0, -3.0, a_valid, b_valid)
    assert softmax.dtype == jnp.float64
    np.testing.assert_allclose(softmax, numpy_softmax(a, b, 9.0, a_valid, b_valid), rtol=1e-12)
    np.testing.assert_allclose(smoothed, numpy_softmax(a, b, 9.0, a_valid, b_valid, 0.1), rtol=1e-12)
    np.testing.assert_allclose(sigmoid, numpy_sigmoid(a, b, 9.0, -3.0, a_valid, b_valid), rtol=1e-12)

    both = a_valid & b_valid
    logits = 9.0 * a @ b.T
    negative = a_valid[:, None] & b_valid & ~np.eye(B, dtype=bool)
    np.testing.assert_allclose(metrics["positive_logit"], np.diag(logits)[both].mean(), rtol=1e-12)
    np.testing.assert_allclose(metrics["negative_logit"], logits[negative].mean(), rtol=1e-12)
    best_b = np.where(b_valid, logits, -np.inf).argmax(1)
    best_a = np.where(a_valid[:, None], logits, -np.inf).argmax(0)
    hits = ((best_b == np.arange(B))[both].mean() + (best_a == np.arange(B))[both].mean()) / 2
    np.testing.assert_allclose(metrics["accuracy"], hits)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_gradients_equal_finite_differences(loss: str) -> None:
    """Of the objective as a whole: from towers' embeddings (not normalised), log-scale and bias."""
    a, b, a_valid, b_valid = inputs()
    a, b = 3 * a, 0.5 * b
    with jax.enable_x64(True):
        leaves = {"a": jnp.asarray(a), "b": jnp.asarray(b), "t": jnp.asarray(1.3), "bias": jnp.asarray(-2.0)}

        def f(leaves: Any) -> Any:
            arguments = unit(leaves["a"]), unit(leaves["b"]), jnp.exp(at_most(leaves["t"], math.log(100.0)))
            if loss == "softmax":
                return softmax_loss(*arguments, a_valid, b_valid, 0.1)[0] + 0 * leaves["bias"]
            return sigmoid_loss(*arguments, leaves["bias"], a_valid, b_valid)[0]

        f = jax.jit(f)
        gradient = jax.jit(jax.grad(f))(leaves)
        for seed in range(4):
            random = np.random.default_rng(seed)
            way = {k: jnp.asarray(random.normal(size=v.shape)) for k, v in leaves.items()}
            step = 1e-5
            high = f({k: v + step * way[k] for k, v in leaves.items()})
            low = f({k: v - step * way[k] for k, v in leaves.items()})
            along = sum(jnp.vdot(gradient[k], way[k]) for k in leaves)
            np.testing.assert_allclose(along, (high - low) / (2 * step), rtol=1e-7)


def test_first_values_equal_theory() -> None:
    size = 32
    eye, all_valid = np.eye(2 * size, dtype=np.float32), np.ones(size, bool)
    a, b = eye[:size], eye[size:]  # all orthogonal
    softmax, _ = jax.jit(softmax_loss)(a, b, 1 / 0.07, all_valid, all_valid)
    np.testing.assert_allclose(softmax, math.log(size), rtol=1e-6)
    sigmoid, _ = jax.jit(sigmoid_loss)(a, b, 10.0, -10.0, all_valid, all_valid)
    np.testing.assert_allclose(sigmoid, 10 + 4.54e-5 + 4.54e-5 * (size - 1), rtol=1e-6)


def test_why_the_bias_starts_low() -> None:
    """SigLIP: from a bias of 0 the loss starts at B ln 2, and all negatives push at once; from -10, positives alone."""
    size = 32
    eye: Any = np.eye(2 * size, dtype=np.float32)
    all_valid: Any = np.ones(size, bool)

    @jax.jit
    @jax.value_and_grad
    def loss(bias: Any) -> Any:
        return sigmoid_loss(eye[:size], eye[size:], jnp.asarray(10.0), bias, all_valid, all_valid)[0]

    for bias, first, push in ((0.0, size * math.log(2), (size - 2) / 2), (-10.0, 10.0, -1.0)):
        value, gradient = loss(bias)
        np.testing.assert_allclose([value, gradient], [first, push], rtol=2e-3)


def apply(objective: Contrastive, outputs: Any, batch: Any, params: Any = None) -> Any:
    def of(outputs: Any, batch: Any) -> Any:
        first = objective.init(jax.random.key(0), outputs, batch, method="batch_loss") if params is None else params
        return objective.apply(first, outputs, batch, method="batch_loss")

    return jax.jit(of)(outputs, batch)


def test_published_starts_and_metrics() -> None:
    a, b, a_valid, b_valid = inputs()
    batch = {"image_valid": a_valid, "text_valid": b_valid}
    loss, metrics = apply(Contrastive(("image", "text")), (a, b), batch)
    np.testing.assert_allclose(metrics["logit_scale"], 1 / 0.07, rtol=1e-6)
    np.testing.assert_allclose(loss, (metrics["loss_forward"] + metrics["loss_backward"]) / 2, rtol=1e-6)
    _, metrics = apply(Contrastive(("image", "text"), loss="sigmoid"), (a, b), batch)
    np.testing.assert_allclose(metrics["logit_scale"], 10, rtol=1e-6)
    np.testing.assert_allclose(metrics["logit_bias"], -10)
    params = {"params": {"log_scale": np.float32(6.0)}}
    np.testing.assert_allclose(
        apply(Contrastive(("image", "text")), (a, b), batch, params)[1]["logit_scale"], 100, rtol=1e-5
    )


def test_the_scale_clips_and_comes_back() -> None:
    limit = math.log(100.0)
    for x, slope, gradient in ((6.0, 1.0, 1.0), (6.0, -1.0, 0.0), (1.0, -1.0, -1.0), (1.0, 1.0, 1.0)):
        value, got = jax.value_and_grad(lambda x, slope=slope: slope * at_most(x, limit))(x)
        np.testing.assert_allclose(value, slope * min(x, limit), rtol=1e-6)
        assert got == gradient  # a positive gradient lowers x under descent: above the limit only that passes


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_validity_permutation_and_nothing_valid(loss: str) -> None:
    a, b, _, _ = inputs()
    a_valid = b_valid = np.array([1, 1, 0, 1, 1, 0, 0], bool)

    @jax.jit
    def f(a: Any, b: Any, a_valid: Any, b_valid: Any) -> Any:
        if loss == "softmax":
            return softmax_loss(unit(a), unit(b), jnp.asarray(5.0), a_valid, b_valid)[0]
        return sigmoid_loss(unit(a), unit(b), jnp.asarray(5.0), jnp.asarray(-1.0), a_valid, b_valid)[0]

    whole = f(a, b, a_valid, b_valid)
    small = f(a[a_valid], b[a_valid], *[np.ones(4, bool)] * 2)
    np.testing.assert_allclose(whole, small, rtol=1e-6)
    order = np.random.default_rng(1).permutation(B)
    np.testing.assert_allclose(f(a[order], b[order], a_valid[order], b_valid[order]), whole, rtol=1e-6)
    a[~a_valid], b[~a_valid] = 0, 1e3
    np.testing.assert_allclose(f(a, b, a_valid, b_valid), whole, rtol=1e-6)
    gradient = jax.jit(jax.grad(f, argnums=(0, 1)))
    for g in gradient(a, b, a_valid, b_valid):
        assert np.isfinite(g).all()
        assert (np.asarray(g)[~a_valid] == 0).all()
        assert np.abs(np.asarray(g)[a_valid]).max() > 1e-3

    nothing = np.zeros(B, bool)
    for other in (nothing, a_valid):
        assert f(a, b, nothing, other) == 0
        assert all((np.asarray(g) == 0).all() for g in gradient(a, b, nothing, other))


@pytest.mark.parametrize("method", ["dense", "ring"])
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_nan_in_a_row_that_is_not_valid_is_in_no_gradient(loss: Any, method: Any) -> None:
    a, b, a_valid, b_valid = inputs()
    objective = Contrastive(("image", "text"), loss=loss, method=method)
    batch = {"image_valid": a_valid, "text_valid": b_valid}

    def whole(embedding: Any) -> Any:
        nothing: Any = None
        return Encoded(nothing, nothing, embedding, 0)

    def loss_of(a: Any, b: Any, params: Any) -> Any:
        encoded = {View("image"): whole(a), View("text"): whole(b)}
        outputs = objective.apply(params, encoded, batch, Context(), method="per_example")
        return objective.apply(params, outputs, batch, method="batch_loss")[0]  # pyright: ignore

    params: Any = {"params": {"log_scale": jnp.float32(1.0)} | ({"bias": jnp.float32(-1)} if loss == "sigmoid" else {})}
    gradients = jax.jit(jax.value_and_grad(loss_of, argnums=(0, 1, 2)))
    a, b = 3 * a.astype(np.float32), 0.5 * b.astype(np.float32)
    expected = gradients(a, b, params)
    a[~a_valid], b[~b_valid] = np.nan, np.inf
    found = gradients(a, b, params)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    of_a, of_b, _ = found[1]
    assert (np.asarray(of_a)[~a_valid] == 0).all()
    assert np.abs(of_a).max() > 0
    assert np.isfinite(of_b).all()


def test_unit_has_a_finite_gradient_at_zero() -> None:
    gradient = jax.jit(jax.grad(lambda x: unit(x).sum()))(np.zeros(3, np.float32))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(np.linalg.norm(jax.jit(unit)(np.array([[3, 4]], jnp.bfloat16))), 1, rtol=1e-6)


@pytest.mark.parametrize("method", ["dense", "ring"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_one_direction_is_a_cross_entropy_over_the_other_side(direction: Any, method: Any) -> None:
    """Value and gradient, against one row after the other: `forward` chooses a b for each a."""
    a, b, a_valid, b_valid = inputs()
    batch = {"image_valid": a_valid, "text_valid": b_valid}
    objective: Any = Contrastive(("image", "text"), scale_init=20.0, direction=direction, method=method)

    def by_rows(a: Any, b: Any) -> Any:
        if direction == "backward":
            a, b, a_valid_, b_valid_ = b, a, b_valid, a_valid
        else:
            a_valid_, b_valid_ = a_valid, b_valid
        candidates = np.flatnonzero(b_valid_)
        rows = [i for i in range(B) if a_valid_[i] and b_valid_[i]]
        losses = [jax.nn.logsumexp(20.0 * b[candidates] @ a[i]) - 20.0 * a[i] @ b[i] for i in rows]
        return sum(losses) / len(losses)

    with jax.enable_x64(True):
        params = objective.init(jax.random.key(0), (a, b), batch, method="batch_loss")
        loss = jax.jit(lambda a, b: objective.apply(params, (a, b), batch, method="batch_loss")[0])
        np.testing.assert_allclose(loss(a, b), by_rows(a, b), rtol=1e-6)  # the scale is a float32
        found, expected = (jax.grad(f, argnums=(0, 1))(a, b) for f in (loss, by_rows))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
        both: Any = Contrastive(("image", "text"), scale_init=20.0, method=method)
        metrics = both.apply(params, (a, b), batch, method="batch_loss")[1]
        np.testing.assert_allclose(loss(a, b), metrics[f"loss_{direction}"], rtol=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "softmx"}, "did you mean softmax"),
        ({"masking": {"imgae": None}}, "did you mean image"),
        ({"bias_init": 1.0}, "the softmax loss has none"),
        ({"loss": "sigmoid", "label_smoothing": 0.1}, "the sigmoid loss has none"),
        ({"scale_max": 0.0}, "scale_max=0.0"),
        ({"pair": ("image", "image")}, "two different"),
        ({"direction": "forwards"}, "it is 'both' or 'forward' or 'backward'"),
        ({"loss": "sigmoid", "direction": "forward"}, "direction='forward'.: the sigmoid loss has none"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    a, b, a_valid, b_valid = inputs()
    with pytest.raises(UserError, match=message):
        apply(
            Contrastive(**{"pair": ("image", "text"), **fields}),
            (a, b),
            {"image_valid": a_valid, "text_valid": b_valid},
        )
