"""Regression: its losses and metrics by hand, for any cut and mesh, of one input and of a fusion."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models import Blocks, Merged
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Pretrainer, Regress
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.objectives.toys import WIDTH, ToyTower, assert_same, toy_batch

B, T = 16, 3
TWO = ("image", "text")
OFFSET, SCALE = (2.0, -1.0, 100.0), (0.5, 3.0, 20.0)
MERGED = Merged(blocks=Blocks(width=WIDTH, depth=1, heads=2))


def batch(targets: int = T) -> Any:
    """Two rows lack an input, another its label."""
    found = {name: x for name, x in toy_batch(B).items() if "audio" not in name}
    random, there = np.random.default_rng(1), np.arange(B) != 5
    label = random.normal(size=(B, targets)) * SCALE[:targets] + OFFSET[:targets]
    return found | {"price": np.where(there[:, None], label, 0).astype(np.float32), "price_valid": there}


def build(objective: Regress, microbatches: int = 1) -> Any:
    towers = {name: ToyTower(name) for name in objective.inputs}
    fusions = {} if objective.fusion is None else {"both": MERGED}
    return Pretrainer(towers, {"price": objective}, microbatches=microbatches, fusions=fusions)


def drawn(objective: Regress, given: Any) -> Any:
    shapes = nn.unbox(jax.eval_shape(build(objective).init, jax.random.key(0), given))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)


def gradient(pretrainer: Any) -> Any:
    return jax.jit(jax.value_and_grad(lambda v, batch: pretrainer.apply(v, batch), has_aux=True))


FUSED = Regress("price", TWO, T, "both", loss="huber", delta=0.7, offset=OFFSET, scale=SCALE, hidden=9)


def test_loss_and_gradient_are_the_same_for_any_cut_and_mesh_and_never_spoilt() -> None:
    given = batch()
    variables = drawn(FUSED, given)
    whole = gradient(build(FUSED))(variables, given)
    for leaf in jax.tree.leaves(whole[1]):
        assert np.isfinite(leaf).all()
    for microbatches in (2, 4):
        assert_same(gradient(build(FUSED, microbatches))(variables, given), whole, 1e-5)
    spoilt = {**given, "image": given["image"].copy(), "price": given["price"].copy()}
    spoilt["image"][1], spoilt["price"][5] = np.nan, np.nan
    assert_same(gradient(build(FUSED))(variables, spoilt), whole, 1e-6)
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(given, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build(FUSED))(replicated, rows), whole, 1e-5)


def error_of(loss: str, e: float) -> float:
    if loss == "huber":
        return 0.5 * e * e if abs(e) <= 0.7 else 0.7 * (abs(e) - 0.35)
    return e * e if loss == "l2" else abs(e)


@pytest.mark.parametrize("loss", ["l2", "l1", "huber"])
@pytest.mark.parametrize("targets", [1, T])
def test_losses_and_metrics_by_hand(loss: Any, targets: int) -> None:
    """Example by example and target by target."""
    offset, scale = (OFFSET, SCALE) if targets == T else ((2.0,), (0.5,))
    objective = Regress("price", ("text",), targets, loss=loss, delta=0.7, offset=offset, scale=scale)
    given = batch(targets)
    prediction = (np.random.default_rng(3).normal(size=(B, targets)) * scale + offset).astype(np.float32)
    found, metrics = objective.batch_loss(objective.judged(jnp.asarray(prediction), jnp.asarray(given["price"])), given)
    rows = [row for row in range(B) if given["price_valid"][row] and given["text_valid"][row]]
    total, absolute, squared = 0.0, 0.0, 0.0
    for row in rows:
        for t in range(targets):
            e = float(prediction[row, t]) - float(given["price"][row, t])
            total, absolute, squared = total + error_of(loss, e / scale[t]), absolute + abs(e), squared + e * e
    shares = []
    for t in range(targets):
        label = [float(given["price"][row, t]) for row in rows]
        mean = sum(label) / len(label)
        left = sum((float(prediction[row, t]) - y) ** 2 for row, y in zip(rows, label, strict=True))
        shares.append(1 - left / sum((y - mean) ** 2 for y in label))
    count = len(rows) * targets
    np.testing.assert_allclose(found, total / count, rtol=1e-5)
    np.testing.assert_allclose(metrics["mae"], absolute / count, rtol=1e-5)
    np.testing.assert_allclose(metrics["rmse"], (squared / count) ** 0.5, rtol=1e-5)
    np.testing.assert_allclose(metrics["r2"], np.mean(shares), rtol=1e-4)


def test_predictions_are_in_the_labels_units() -> None:
    """An untrained head, which is near 0, says about the offset."""
    objective = Regress("price", ("text",), T, offset=OFFSET, scale=SCALE)
    given = batch()
    variables = nn.unbox(build(objective).init(jax.random.key(0), given))
    text = {name: x for name, x in given.items() if name.startswith(("text", "index"))}
    found = build(objective).apply(variables, text, "price", method="predict")
    np.testing.assert_allclose(found, np.broadcast_to(OFFSET, (B, T)), atol=0.1 * max(SCALE))
    head = variables["params"]["objectives_price"]["numbers"]
    embedded = ToyTower("text").apply({"params": variables["params"]["towers_text"]}, text["text"], text["text_mask"])
    expected = (embedded @ head["kernel"] + head["bias"]) * np.array(SCALE) + np.array(OFFSET)  # pyright: ignore
    np.testing.assert_allclose(found[4:], expected[4:], rtol=1e-5)  # row 3 has no text


def test_without_a_label_nothing_counts_and_labels_that_are_all_the_same_have_no_r2() -> None:
    objective = Regress("price", ("text",), 1)
    given = batch(1)
    given["price"][:] = 4
    outputs = objective.judged(jnp.zeros((B, 1)), jnp.asarray(given["price"]))
    loss, metrics = objective.batch_loss(outputs, given)
    np.testing.assert_allclose([loss, metrics["mae"], metrics["r2"]], [16, 4, 0])
    none = given | {"price_valid": np.zeros(B, bool)}
    assert objective.counted(none).sum() == 0
    assert objective.batch_loss(outputs, none)[0] == 0


LABEL = {"price": Incoming((T,), "float32"), "image": Incoming((4, 4, 3), "uint8")}


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Regress("price", TWO, T), r"o.inputs=\('image', 'text'\) are 2 inputs and fusion=None"),
        (Regress("prize", ("image",), T), r"learns the label 'prize', which data.transforms lacks.*Numbers"),
        (Regress("price", ("image",)), r"targets=1, and data.transforms gives float32\[3\]: it is float32\[1\]"),
        (Regress("price", ("image",), T, loss="l3"), "o.loss='l3'"),  # pyright: ignore
        (Regress("price", ("image",), T, scale=(1.0, 2.0)), "o.scale has 2 numbers for targets=3"),
        (Regress("price", ("image",), T, scale=(0.0,)), r"o.scale=\(0.0,\) must be above 0"),
        (Regress("price", ("image",), T, delta=0.0), "o.delta=0.0 must be above 0"),
    ],
)
def test_what_does_not_fit_is_refused(objective: Regress, message: str) -> None:
    with pytest.raises(UserError, match=message):
        objective.check_parts("o", {}, LABEL)
