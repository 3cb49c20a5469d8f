"""Metric learning: each loss pair by pair and triplet by triplet, for any cut and mesh."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import MetricLearning, Pretrainer
from mmjax.objectives.contrastive.objective import softmax_loss
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.objectives.toys import ToyTower, assert_same, toy_batch

B, E = 16, 5
TWO = ("image", "text")


def batch() -> Any:
    """Five classes, one of them alone; a row lacks its label, two lack an input, two rows are one example."""
    found = {name: x for name, x in toy_batch(B).items() if "audio" not in name}
    kind = np.random.default_rng(1).integers(0, 4, B).astype(np.int32)
    kind[7] = 4
    found["id"] = np.stack([np.arange(B), np.ones(B)], axis=1).astype(np.uint32)
    found["id"][11] = found["id"][2]
    return found | {"kind": kind, "kind_valid": np.arange(B) != 5}


def vectors(seed: int, normal: bool) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(B, E))
    return (x if normal else x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def one_side(objective: MetricLearning, a: np.ndarray, b: np.ndarray, given: Any, names: tuple[str, str]) -> Any:
    """The loss of anchors a, by loops."""
    labelled = np.ones(B, bool) if objective.label is None else given["kind_valid"]
    anchors, others = (given[f"{name}_valid"] & labelled for name in names)
    terms, active, count, hits, met = [], 0, 0, 0, 0
    near: list[float] = []
    far: list[float] = []

    def distance(i: Any, j: Any) -> float:
        u, v = (x / np.linalg.norm(x) for x in (a[i].astype(np.float64), b[j].astype(np.float64)))
        return float(((u - v) ** 2).sum())

    for i in np.flatnonzero(anchors):
        right, wrong = [], []
        for j in np.flatnonzero(others):
            if objective.label is None:
                if i == j:
                    right.append(j)
                elif tuple(given["id"][i]) != tuple(given["id"][j]):
                    wrong.append(j)
            elif given["kind"][i] != given["kind"][j]:
                wrong.append(j)
            elif i != j or len(objective.inputs) == 2:
                right.append(j)
        near += [distance(i, j) for j in right]
        far += [distance(i, j) for j in wrong]
        similarity = b.astype(np.float64) @ a[i].astype(np.float64)
        if right and wrong:
            met += 1
            hits += similarity[right].max() > similarity[wrong].max()
        for p in right if wrong else []:
            if objective.loss == "triplet":
                chosen = wrong
                if objective.mining == "hard":
                    chosen = [min(wrong, key=lambda n: distance(i, n))]
                elif objective.mining == "semi_hard":
                    beyond = [n for n in wrong if distance(i, n) > distance(i, p)]
                    chosen = [min(beyond, key=lambda n: distance(i, n))] if beyond else []
                for n in chosen:
                    term = max(0.0, distance(i, p) - distance(i, n) + objective.margin)
                    terms, active, count = [*terms, term], active + (term > 0), count + 1
            elif objective.loss == "npair":
                terms.append(math.log(1 + sum(math.exp(similarity[n] - similarity[p]) for n in wrong)))
            else:
                s, pulled = objective.scale, similarity[p] - objective.margin
                terms.append(math.log(1 + sum(math.exp(s * (similarity[n] - pulled)) for n in wrong)))
    loss = sum(terms) / max(active if objective.loss == "triplet" else len(terms), 1)
    return loss, hits / met, active / max(count, 1), np.mean(near), np.mean(far)


OBJECTIVES = [
    *(MetricLearning(("image",), "kind", mining=mining, margin=0.5) for mining in ("all", "hard", "semi_hard")),
    *(MetricLearning(TWO, mining=mining) for mining in ("all", "hard", "semi_hard")),
    MetricLearning(TWO, "kind", mining="all", margin=1.0),
    MetricLearning(("image",), "kind", loss="npair", decay=0.02),
    MetricLearning(TWO, loss="npair"),
    MetricLearning(("image",), "kind", loss="infonce", margin=0.2, scale=8.0),
    MetricLearning(TWO, "kind", loss="infonce"),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=range(len(OBJECTIVES)))
def test_it_is_the_loss_of_each_pair(objective: MetricLearning) -> None:
    given = batch()
    normal = objective.loss == "npair"
    both = [vectors(seed, normal) for seed in range(len(objective.inputs))]
    loss, metrics = objective.batch_loss(tuple(map(jnp.asarray, both)), given)
    a, b, first, last = both[0], both[-1], objective.inputs[0], objective.inputs[-1]
    sides = [one_side(objective, a, b, given, (first, last))]
    if len(objective.inputs) == 2:
        sides.append(one_side(objective, b, a, given, (last, first)))
    expected, accuracy, active, near, far = np.mean(sides, axis=0)
    if normal:
        labelled = given["kind_valid"] if objective.label else np.ones(B, bool)
        lengths = [(x[given[f"{n}_valid"] & labelled] ** 2).sum(1) for n, x in zip(objective.inputs, both, strict=True)]
        expected += objective.decay * np.concatenate(lengths).mean()
    np.testing.assert_allclose(loss, expected, rtol=2e-5)
    np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-5)
    np.testing.assert_allclose(metrics["distance_positive"], near, rtol=1e-5)
    np.testing.assert_allclose(metrics["distance_negative"], far, rtol=1e-5)
    if objective.loss == "triplet":
        np.testing.assert_allclose(metrics["active"], active, rtol=1e-5)
        assert 0 < active < 1 or objective.mining == "hard"


def test_infonce_without_a_margin_is_clips_loss() -> None:
    given = {name: x for name, x in batch().items() if name != "id"}
    a, b = (jnp.asarray(vectors(seed, False)) for seed in range(2))
    loss, _ = MetricLearning(TWO, loss="infonce", margin=0.0, scale=9.0).batch_loss((a, b), given)
    # An anchor whose partner is missing has no term in either; it stays among the others' candidates.
    expected, _ = softmax_loss(a, b, jnp.asarray(9.0), given["image_valid"], given["text_valid"])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_npair_is_infonce_of_scale_1_on_vectors_that_are_not_normalised() -> None:
    given = batch()
    a, b = (jnp.asarray(vectors(seed, True)) for seed in range(2))
    one, _ = MetricLearning(TWO, loss="npair").batch_loss((a, b), given)
    other, _ = MetricLearning(TWO, loss="infonce", margin=0.0, scale=1.0).batch_loss((a, b), given)
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_satisfied_triplets_have_no_gradient_and_nothing_to_compare_is_0() -> None:
    """Two classes that are opposite, each in one point; then one class alone."""
    kind = np.arange(B, dtype=np.int32) % 2
    given = {"image_valid": np.ones(B, bool), "kind": kind, "kind_valid": np.ones(B, bool)}
    points = jnp.asarray(np.where(kind[:, None] == 1, 1.0, -1.0) * np.eye(1, E), jnp.float32)
    for objective in OBJECTIVES[:3]:
        loss, gradient = jax.value_and_grad(lambda x, o=objective: o.batch_loss((x,), given)[0])(points)
        assert loss == 0
        assert not gradient.any()
    alone = {**given, "kind": np.zeros(B, np.int32)}
    for objective in [*OBJECTIVES[:3], OBJECTIVES[7].clone(decay=0.0), OBJECTIVES[9]]:
        loss, gradient = jax.value_and_grad(lambda x, o=objective: o.batch_loss((x,), alone)[0])(points)
        assert loss == 0
        assert not gradient.any()


def build(objective: MetricLearning, microbatches: int = 1) -> Any:
    return Pretrainer(
        {name: ToyTower(name) for name in objective.inputs}, {"met": objective}, microbatches=microbatches
    )


@pytest.mark.parametrize("objective", [OBJECTIVES[0], OBJECTIVES[5], OBJECTIVES[9]])
def test_the_cut_the_mesh_and_what_is_missing_change_nothing(objective: MetricLearning) -> None:
    given = batch()
    shapes = nn.unbox(jax.eval_shape(build(objective).init, jax.random.key(0), given))
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)
    run = lambda m=1: jax.jit(jax.value_and_grad(lambda v, batch: build(objective, m).apply(v, batch), has_aux=True))  # noqa: E731
    whole = run()(variables, given)
    for leaf in jax.tree.leaves(whole[1]):
        assert np.isfinite(leaf).all()
    assert_same(run(4)(variables, given), whole, 1e-5)
    spoilt = {**given, "image": given["image"].copy(), "kind": given["kind"].copy()}
    spoilt["image"][1], spoilt["kind"][5] = np.nan, 3
    assert_same(run()(variables, spoilt), whole, 1e-6)
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(given, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(run()(replicated, rows), whole, 1e-5)


def test_the_gradient_of_sorted_triplets_is_that_of_all() -> None:
    given, objective = batch(), OBJECTIVES[0]
    there = given["image_valid"] & given["kind_valid"]
    same = (given["kind"][:, None] == given["kind"]) & there[:, None] & there
    x = jnp.asarray(vectors(3, False))

    def dense(x: Any) -> Any:
        d = 2 - 2 * x @ x.T
        terms = jnp.maximum(d[:, :, None] - d[:, None, :] + objective.margin, 0)
        met = (same & ~np.eye(B, dtype=bool))[:, :, None] & (~same & there[:, None] & there)[:, None, :]
        return jnp.where(met, terms, 0).sum() / (met & (terms > 0)).sum()

    got = jax.grad(lambda x: objective.batch_loss((x,), given)[0])(x)
    np.testing.assert_allclose(got, jax.grad(dense)(x), rtol=1e-4, atol=1e-6)


INPUTS = {"kind": Incoming((), "int32"), "image": Incoming((4, 4, 3), "uint8")}


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (MetricLearning(("image",)), r"o.inputs=\('image',\) is one input and label=None"),
        (MetricLearning(("image", "image")), "name one input, or two different ones"),
        (MetricLearning(("image",), "kindd"), "reads the label 'kindd', and data.transforms gives none"),
        (MetricLearning(("image",), "image"), r"gives uint8\[4, 4, 3\]: it is int32\[\]"),
        (MetricLearning(("image",), "kind", loss="triplets"), "o.loss='triplets'"),  # pyright: ignore
        (MetricLearning(("image",), "kind", mining="soft"), "o.mining='soft'"),  # pyright: ignore
        (MetricLearning(("image",), "kind", margin=-1.0), "o.margin=-1.0 must be at least 0"),
        (MetricLearning(("image",), "kind", scale=0.0), "o.scale=0.0 must be above 0"),
    ],
)
def test_what_does_not_fit_is_refused(objective: MetricLearning, message: str) -> None:
    with pytest.raises(UserError, match=message):
        objective.check_parts("o", {"image": None}, INPUTS)
