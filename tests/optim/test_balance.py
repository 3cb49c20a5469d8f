"""Balances of losses: each by its formulas in NumPy, over several steps of the real train step."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from mmjax.data.datasets.spoken_emoji.catalogue import groups
from mmjax.errors import UserError
from mmjax.experiment.graph import build as build_experiment
from mmjax.experiment.load import load_experiment
from mmjax.objectives.contract import View, valid
from mmjax.objectives.keys import step_key
from mmjax.objectives.numerics import at_least_fp32, weighted_mean
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.optim import Alternate, GradNorm, Optimizer, PCGrad, Uncertainty
from mmjax.optim.balance import ByGradient, LossBalance, projections
from mmjax.runtime.mesh import Mesh, put
from mmjax.train.step import compile_train_step, make_train_step
from tests.objectives.toys import ToyTower, toy_batch
from tests.states import init_state

B, LR, SEED = 16, 0.05, 3
TASKS = ("near", "far", "third")
WEIGHTS: Any = {"far": 2.0, "third": optax.linear_schedule(0.5, 1.5, 10)}


@dataclass(frozen=True)
class Plain(Optimizer):
    """Gradient descent."""

    def direction(self, params: Any) -> list[optax.GradientTransformation]:
        return []


OPTIMIZER = Plain(LR, schedule="constant", clip_norm=None)


class Towards(nn.Module):
    """Half the squared distance of a map of the embedding from a point."""

    point: float

    def views(self) -> Any:
        return (View("image"),)

    @nn.compact
    def per_example(self, encoded: Any, batch: Any, context: Any) -> Any:
        x = nn.Dense(3, name="head")(at_least_fp32(encoded[self.views()[0]].embedding))
        return 0.5 * jnp.square(x - self.point * jnp.array([1.0, -1.0, 2.0])).sum(axis=1)

    def batch_loss(self, outputs: Any, batch: Any) -> Any:
        return weighted_mean(outputs, jnp.ones_like(outputs), valid(batch, "image")), {}


def build(balance: Any, microbatches: int = 1) -> Pretrainer:
    objectives = {name: Towards(point) for name, point in zip(TASKS, (1.0, -2.0, 5.0), strict=True)}
    return Pretrainer({"image": ToyTower("image")}, objectives, WEIGHTS, microbatches, balance=balance)


def batches(number: int) -> Any:
    found = {name: x for name, x in toy_batch(B, number).items() if name.startswith(("image", "index"))}
    return found


def run(balance: Any, steps: int, microbatches: int = 1, shape: Any = None, spoilt: int = -1) -> tuple[Any, list[Any]]:
    """The states before each step and after the last one, and the metrics of each."""
    mesh = (Mesh() if shape is None else Mesh(fsdp=shape[0], tensor=shape[1])).build(
        jax.devices()[:1] if shape is None else jax.devices()[:8]
    )
    pretrainer = build(balance, microbatches)
    state = init_state(pretrainer, OPTIMIZER, batches(0), seed=SEED, mesh=mesh)
    step = compile_train_step(make_train_step(pretrainer, OPTIMIZER, seed=SEED, total_steps=20), state, mesh)
    states, history = [jax.device_get(state)], []
    with jax.set_mesh(mesh):
        for number in range(steps):
            batch = batches(number)
            if number == spoilt:
                batch["image"][4] = np.nan
            state, metrics = step(state, put(batch, mesh))
            states.append(jax.device_get(state))
            history.append(jax.device_get(metrics))
    return states, history


def each_loss(params: Any, number: int) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """The weighted losses and the flat gradients of the objectives, one after the other, of unbalanced pretrainers."""
    losses, gradients = [], []
    for name in TASKS:
        given = WEIGHTS.get(name, 1.0)
        weight = float(np.asarray(given(number) if callable(given) else given))

        def loss_of(params: Any, name: str = name, weight: float = weight) -> Any:
            found: Any = build(None).apply({"params": params}, batches(number), number)
            return weight * found[1][f"{name}/loss"]

        shared = {key: value for key, value in params.items() if key != "balance"}
        loss, gradient = jax.jit(jax.value_and_grad(loss_of))(shared)
        leaves: Any = flatten_dict(gradient, sep="/")
        losses.append(float(loss))
        gradients.append({path: np.float64(leaf) for path, leaf in leaves.items()})
    return np.array(losses), gradients


def assert_stepped(before: Any, after: Any, gradient: dict[str, np.ndarray]) -> None:
    """Plain descent by the gradient."""
    both: Any = [flatten_dict(state.params, sep="/") for state in (before, after)]
    old, new = both
    scale = max(np.abs(leaf).max() for leaf in gradient.values())
    for path, leaf in gradient.items():
        np.testing.assert_allclose((old[path] - new[path]) / LR, leaf, rtol=0, atol=2e-4 * scale, err_msg=path)


def summed(gradients: list[dict[str, np.ndarray]], factors: Any) -> dict[str, np.ndarray]:
    return {path: sum(f * g[path] for f, g in zip(factors, gradients, strict=True)) for path in gradients[0]}  # pyright: ignore


def test_uncertainty_by_hand() -> None:
    """The losses' factors, and the log-variances' own descent."""
    states, history = run(Uncertainty(cross_entropies=("far",), initial=0.3), 3)
    for number, metrics in enumerate(history):
        before, after = states[number], states[number + 1]
        losses, gradients = each_loss(before.params, number)
        s = np.array([before.params["balance"][f"log_variance_{name}"] for name in TASKS], np.float64)
        halves = np.array([0.5, 1.0, 0.5])
        np.testing.assert_allclose(metrics["loss"], (halves * np.exp(-s) * losses + s / 2).sum(), rtol=1e-5)
        moved = s - LR * (0.5 - halves * np.exp(-s) * losses)
        found = [after.params["balance"][f"log_variance_{name}"] for name in TASKS]
        np.testing.assert_allclose(found, moved, rtol=1e-4, atol=1e-6)
        assert_stepped(before, after, summed(gradients, halves * np.exp(-s)))
        np.testing.assert_allclose([metrics[f"{name}/weight"] for name in TASKS], halves * np.exp(-s), rtol=1e-5)
    assert s[0] != 0.3  # pyright: ignore[reportPossiblyUnboundVariable]


def test_the_best_log_variances_are_those_of_the_docstring() -> None:
    module, losses = Uncertainty(cross_entropies=("a",)), {"a": jnp.asarray(0.7), "b": jnp.asarray(3.0)}
    best = {"log_variance_a": jnp.log(2 * 0.7), "log_variance_b": jnp.log(3.0)}
    total: Any = lambda p: module.apply({"params": p}, losses, 0)[0]  # noqa: E731
    gradient = jax.grad(total)(best)
    np.testing.assert_allclose(list(gradient.values()), 0, atol=1e-6)


def test_turns_follow_from_the_step() -> None:
    """near, far, far, near ...; the third is in all of them."""
    states, history = run(Alternate({"near": 1, "far": 2}), 4)
    for number, (on, metrics) in enumerate(zip([(1, 0), (0, 1), (0, 1), (1, 0)], history, strict=True)):
        losses, gradients = each_loss(states[number].params, number)
        np.testing.assert_allclose(metrics["loss"], np.dot((*on, 1), losses), rtol=1e-5)
        assert_stepped(states[number], states[number + 1], summed(gradients, (*on, 1)))
        assert (metrics["near/weight"], metrics["far/weight"], metrics["third/weight"]) == (*on, 1)


def flat_vector(gradient: dict[str, np.ndarray], towers: bool) -> np.ndarray:
    parts = [leaf.ravel() for path, leaf in sorted(gradient.items()) if path.startswith("towers_") == towers]
    return np.concatenate(parts)


def test_pcgrad_by_hand() -> None:
    """Vector by vector as the paper's algorithm says, in the towers; heads get the sum, which is their own gradient."""
    states, history = run(PCGrad(), 3)
    conflicts = 0
    for number, metrics in enumerate(history):
        losses, gradients = each_loss(states[number].params, number)
        np.testing.assert_allclose(metrics["loss"], losses.sum(), rtol=1e-5)
        vectors = [flat_vector(gradient, True) for gradient in gradients]
        keys = jax.random.split(step_key(SEED, number, "balance"), len(TASKS))
        total = np.zeros_like(vectors[0])
        for i, own in enumerate(vectors):
            moved = own.copy()
            for j in np.asarray(jax.random.permutation(keys[i], len(TASKS))):
                product = moved @ vectors[j]
                if j != i and product < 0:
                    moved, conflicts = moved - product / (vectors[j] @ vectors[j]) * vectors[j], conflicts + 1
            total += moved
        expected, place = summed(gradients, np.ones(3)), 0
        for path in sorted(path for path in expected if path.startswith("towers_")):
            size = expected[path].size
            expected[path] = total[place : place + size].reshape(expected[path].shape)
            place += size
        assert_stepped(states[number], states[number + 1], expected)
    assert conflicts > 2


def test_gradients_that_agree_are_added_and_opposite_ones_vanish() -> None:
    def total(*vectors: Any) -> np.ndarray:
        g = np.array(vectors, np.float32)
        return np.asarray(projections(jnp.asarray(g @ g.T), jax.random.key(0))).sum(axis=0) @ g

    np.testing.assert_allclose(total([1, 2], [1, 2]), [2, 4], rtol=1e-6)
    np.testing.assert_allclose(total([1, 2], [-1, -2]), [0, 0], atol=1e-6)
    np.testing.assert_allclose(total([1, 0], [0, 3]), [1, 3], rtol=1e-6)
    # (1, 0) loses its part along (-1, 1): (1, 0) + 1/2 (-1, 1); and (-1, 1) its part along (1, 0): (0, 1)
    np.testing.assert_allclose(total([1, 0], [-1, 1]), [0.5, 1.5], rtol=1e-6)
    np.testing.assert_allclose(total([0, 0], [-1, 1]), [-1, 1], rtol=1e-6)  # of none there is nothing to take away


def test_projections_follow_the_drawn_order() -> None:
    """Of five gradients that are in conflict in several ways, vector by vector."""
    g = np.random.default_rng(0).normal(size=(5, 4)) - 0.2
    found = []
    for seed in range(4):
        key = jax.random.key(seed)
        expected = g.copy()
        for i, own in enumerate(jax.random.split(key, 5)):
            for j in np.asarray(jax.random.permutation(own, 5)):
                product = expected[i] @ g[j]
                expected[i] -= (j != i) * min(product, 0) / (g[j] @ g[j]) * g[j]
        found.append(np.asarray(projections(jnp.float32(g @ g.T), key)) @ g)
        np.testing.assert_allclose(found[-1], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01


@pytest.mark.parametrize(("alpha", "signs"), [(0.0, (1, -1)), (1.0, (1, -1)), (2.5, (-1, 1))])
def test_a_slow_objective_gains_by_alpha(alpha: float, signs: tuple[int, int]) -> None:
    """Norms of 1.2 and 0.8, of which the first falls more slowly: it is pulled up where alpha says enough."""
    balance, zeros = GradNorm(alpha=alpha), jnp.zeros(2)
    each = {"towers_image": {"kernel": jnp.array([[1.2, 0.0], [0.0, 0.8]])}, "head": jnp.array([[9.0], [7.0]])}
    before = {"logits": zeros, "first": jnp.ones(2), "mean": zeros, "variance": zeros, "seen": jnp.asarray(1)}
    gradient, after = balance.combined(each, jnp.array([1.1, 0.9]), before, jax.random.key(0))
    assert np.sign(after["logits"]).tolist() == [-sign for sign in signs]
    np.testing.assert_allclose(gradient["head"], [16])  # the weights of this step are still 1
    np.testing.assert_allclose(gradient["towers_image"]["kernel"], [1.2, 0.8])


ALPHA = 0.7


def gradnorm(states: Any, history: Any, steps: int) -> np.ndarray:
    """Goes along with the paper's algorithm; gives the last logits."""
    logits, first, mean, variance = np.zeros(3), None, np.zeros(3), np.zeros(3)
    for number in range(steps):
        losses, gradients = each_loss(states[number].params, number)
        weights = 3 * np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose([history[number][f"{name}/weight"] for name in TASKS], weights, rtol=1e-4)
        np.testing.assert_allclose(history[number]["loss"], weights @ losses, rtol=1e-4)
        assert_stepped(states[number], states[number + 1], summed(gradients, weights))
        first = losses if first is None else first
        norms = np.array([np.linalg.norm(flat_vector(gradient, True)) for gradient in gradients])
        shares = losses / first
        target = (weights * norms).mean() * (shares / shares.mean()) ** ALPHA
        slope = np.zeros(3)
        for i in range(3):
            for k in range(3):
                by = weights[i] * ((i == k) - weights[k] / 3)  # of weight i by logit k
                slope[k] += np.sign(weights[i] * norms[i] - target[i]) * norms[i] * by
        mean, variance = 0.9 * mean + 0.1 * slope, 0.999 * variance + 0.001 * slope**2
        corrected = mean / (1 - 0.9 ** (number + 1)), variance / (1 - 0.999 ** (number + 1))
        logits = logits - 0.025 * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    return logits


def test_gradnorm_by_hand() -> None:
    states, history = run(GradNorm(alpha=ALPHA), 4)
    logits = gradnorm(states, history, 4)
    found = states[-1].model_state["balance"]["balance"]
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-3, atol=1e-5)
    assert np.abs(logits).min() > 0.01
    assert found["seen"] == 4


def test_a_step_that_is_skipped_leaves_the_weights_where_they_were() -> None:
    states, history = run(GradNorm(alpha=ALPHA), 3, spoilt=1)
    one, two, three = (state.model_state["balance"]["balance"] for state in states[1:])
    assert history[1]["guard/skipped"] == 1
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    assert (two["logits"] != three["logits"]).any()


@pytest.mark.parametrize("balance", [Uncertainty(), PCGrad(), GradNorm()], ids=["uncertainty", "pcgrad", "gradnorm"])
def test_the_cut_and_the_mesh_change_nothing(balance: Any) -> None:
    whole, told = run(balance, 2)
    for microbatches, shape in ((4, None), (1, (2, 2))):
        states, history = run(balance, 2, microbatches, shape)
        for got, expected in zip(jax.tree.leaves(states[-1]), jax.tree.leaves(whole[-1]), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)
        for name in ("loss", "grad_norm", *(f"{task}/weight" for task in TASKS)):
            np.testing.assert_allclose(history[-1][name], told[-1][name], rtol=1e-4)


def test_without_a_balance_losses_are_added_and_no_weight_is_told() -> None:
    (before, after), (metrics,) = run(None, 1)
    losses, gradients = each_loss(before.params, 0)
    np.testing.assert_allclose(metrics["loss"], losses.sum(), rtol=1e-5)
    assert_stepped(before, after, summed(gradients, np.ones(3)))
    assert not any(name.endswith("/weight") for name in metrics)
    kinds = Uncertainty(), Alternate({}), PCGrad(), GradNorm()
    assert all(isinstance(each, LossBalance) for each in kinds)
    assert [isinstance(each, ByGradient) for each in kinds] == [False, False, True, True]


@pytest.mark.parametrize(
    ("balance", "message"),
    [
        (Uncertainty(("nearr",)), "balance.cross_entropies.*'nearr'.*did you mean near"),
        (Alternate({"near": 1, "fra": 1}), "balance.steps.*'fra'"),
        (Alternate({"near": 1}), r"balance.steps=\{'near': 1\}: name two objectives or more"),
        (Alternate({"near": 1, "far": 0}), "a whole number of steps from 1 on"),
        (PCGrad("("), r"balance.shared='\(' is no regular expression"),
        (GradNorm(alpha=-1.0), "balance.alpha=-1.0 must be at least 0"),
        (GradNorm(lr=0.0), "balance.lr=0.0 above 0"),
    ],
)
def test_what_does_not_fit_is_refused(balance: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        balance.check_objectives(TASKS)


def test_gradients_of_one_objective_or_of_no_parameter_are_refused() -> None:
    for balance in (PCGrad(), GradNorm()):
        with pytest.raises(UserError, match="there is near alone: leave it out"):
            balance.check_objectives(("near",))
    with pytest.raises(UserError, match="PCGrad: shared='nothing' matches no parameter that trains; they are under"):
        run(PCGrad("nothing"), 1)


def test_the_guides_example_is_an_experiment(tmp_path: Path) -> None:
    """As it stands there, with classes that the demo data has."""
    readme = (Path(__file__).parents[2] / "experiments" / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- test: balanced.py -->\n```python\n(.*?)```", readme, re.DOTALL)
    assert found is not None
    (tmp_path / "balanced.py").write_text(found[1], encoding="utf-8")
    made = build_experiment(load_experiment(f"{tmp_path}/balanced.py:tiny"))
    assert made.pretrainer().balance == Uncertainty(cross_entropies=("pair",))
    assert set(made.data.transforms["group"][0].classes) == {group for group, _ in groups().values()}
