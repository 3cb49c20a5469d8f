"""The contrastive losses by tiles and round the ring against the dense ones: values, metrics and every gradient."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.objectives.contrastive import ring
from mmjax.objectives.contrastive.objective import Contrastive, sigmoid_loss, softmax_loss
from mmjax.objectives.contrastive.tile import Rows
from mmjax.runtime import mesh as mesh_module

LEAVES = ("a", "b", "scale", "bias")


def make_mesh(devices: int, tensor: int = 1) -> jax.sharding.Mesh:
    fsdp = 2 if devices >= 4 else 1
    shape = (devices // fsdp, fsdp, tensor)
    axes = (AxisType.Auto,) * 3
    return jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=axes, devices=jax.devices()[: devices * tensor])


def inputs(seed: int, n: int, m: int, kind: str, width: int = 6) -> dict[str, Any]:
    """`kind`: "all" valid and in pairs; "masked": some aren't valid, and hold NaN; "groups": several partners a row,
    some rows with none."""
    random = np.random.default_rng(seed)
    sides = {}
    for side, rows in (("a", n), ("b", m)):
        x = random.normal(size=(rows, width))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        valid, group = np.ones(rows, bool), np.arange(rows, dtype=np.int32)
        if kind != "all":
            valid = random.random(rows) < 0.7
            x[~valid] = np.nan
        if kind == "groups":
            group = random.integers(-1, max(2, n // 3), rows, dtype=np.int32)
        sides |= {side: x, f"{side}_valid": valid, f"{side}_group": group}
    return sides | {"scale": np.float64(7.0), "bias": np.float64(-2.0)}


def dense(x: dict[str, Any], loss: str, smoothing: float) -> Any:
    groups = {"a_group": x["a_group"], "b_group": x["b_group"]}
    if loss == "softmax":
        return softmax_loss(x["a"], x["b"], x["scale"], x["a_valid"], x["b_valid"], smoothing, **groups)
    return sigmoid_loss(x["a"], x["b"], x["scale"], x["bias"], x["a_valid"], x["b_valid"], **groups)


def by_ring(x: dict[str, Any], loss: str, smoothing: float, tile: int | None, direction: Any = "both") -> Any:
    a, b = (Rows(x[side], x[f"{side}_valid"], x[f"{side}_group"]) for side in ("a", "b"))
    bias = x["bias"] if loss == "sigmoid" else None
    return ring.ring_loss(a, b, x["scale"], bias, label_smoothing=smoothing, tile=tile, direction=direction)


def with_gradients(f: Any) -> Any:
    """Value, metrics and gradients by `LEAVES`, compiled, as numpy arrays."""

    def of(leaves: Any, rest: Any) -> Any:
        value, metrics = f({**rest, **leaves})
        return 3 * value, metrics  # an incoming gradient that is not 1

    compiled = jax.jit(jax.value_and_grad(of, has_aux=True))

    def run(x: dict[str, Any]) -> Any:
        leaves = {name: x[name] for name in LEAVES}
        rest = {name: value for name, value in x.items() if name not in leaves}
        return jax.tree.map(np.asarray, compiled(leaves, rest))

    return run


KINDS = ("all", "masked", "groups")


def check(n: int, m: int, seed: int, loss: str, smoothing: float, devices: int, tile: int | None, double: bool) -> None:
    """The ring against the dense loss, on inputs of every kind: they go through the same two programs."""
    dense_of = with_gradients(lambda x: dense(x, loss, smoothing))
    ring_of = with_gradients(lambda x: by_ring(x, loss, smoothing, tile))
    mesh = make_mesh(devices)
    rows, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec(("data", "fsdp")), PartitionSpec()))
    dtype = np.float64 if double else np.float32
    with jax.enable_x64(double):
        for kind in KINDS:
            x = {k: v.astype(dtype) if v.dtype == np.float64 else v for k, v in inputs(seed, n, m, kind).items()}
            (value, metrics), gradients = dense_of(x)
            x = {k: jax.device_put(v, whole if v.ndim == 0 else rows) for k, v in x.items()}
            with jax.set_mesh(mesh):
                (found, found_metrics), found_gradients = ring_of(x)
            assert found.dtype == dtype
            near = 1e-10 if double else 1e-5
            np.testing.assert_allclose(found, value, rtol=near, atol=near, err_msg=kind)
            assert found_metrics.keys() == metrics.keys()
            for name in metrics:
                np.testing.assert_allclose(
                    found_metrics[name], metrics[name], rtol=near, atol=near, err_msg=f"{kind} {name}"
                )
            norm = math.sqrt(sum(float(np.sum(g**2)) for g in gradients.values()))
            for name, gradient in gradients.items():
                assert np.isfinite(gradient).all()
                atol = 1e-10 if double else 1e-5 * max(float(np.linalg.norm(gradient)), 1e-2 * norm)
                np.testing.assert_allclose(found_gradients[name], gradient, rtol=0, atol=atol, err_msg=f"{kind} {name}")


CASES = [  # rows of a and b, label smoothing, devices, tile, fp64
    (7, 9, 0.1, 1, 4, True),
    (7, 9, 0.1, 1, 4, False),
    (6, 10, 0.0, 2, 2, True),
    (12, 20, 0.1, 4, 3, True),
    (24, 40, 0.0, 8, 2, True),
    (16, 16, 0.1, 8, None, False),
]


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_ring_and_tiles_equal_dense(case: tuple, loss: str) -> None:
    n, m, smoothing, devices, tile, double = case
    check(n, m, 0, loss, smoothing if loss == "softmax" else 0.0, devices, tile, double)


def any_case(data: st.DataObject) -> None:
    devices = data.draw(st.sampled_from([1, 2, 4, 8]), label="devices")
    local_n, local_m = (data.draw(st.integers(1, 6), label=name) for name in ("rows of a", "rows of b"))
    tile = data.draw(st.none() | st.integers(1, min(local_n, local_m)), label="tile")
    loss = data.draw(st.sampled_from(["softmax", "sigmoid"]), label="loss")
    smoothing = data.draw(st.sampled_from([0.0, 0.3]), label="smoothing") if loss == "softmax" else 0.0
    seed = data.draw(st.integers(0, 2**16), label="seed")
    check(devices * local_n, devices * local_m, seed, loss, smoothing, devices, tile, double=True)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data())
def test_any_shape(data: st.DataObject) -> None:
    any_case(data)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_shape_at_length(data: st.DataObject) -> None:
    any_case(data)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_one_direction_round_the_ring_is_that_of_the_dense_loss(direction: str) -> None:
    """With smoothing, several partners a row, and sides of unequal length: value and gradients in float64."""

    def one(x: dict[str, Any]) -> Any:
        metrics = dense(x, "softmax", 0.1)[1]
        return metrics[f"loss_{direction}"], metrics

    rows, whole = (NamedSharding(make_mesh(4), spec) for spec in (PartitionSpec(("data", "fsdp")), PartitionSpec()))
    with jax.enable_x64(True):
        x = inputs(3, 12, 20, "groups")
        (value, _), gradients = with_gradients(one)(x)
        x = {k: jax.device_put(v, whole if v.ndim == 0 else rows) for k, v in x.items()}
        with jax.set_mesh(make_mesh(4)):
            run = with_gradients(lambda x: by_ring(x, "softmax", 0.1, 2, direction))
            (found, _), found_gradients = run(x)
    np.testing.assert_allclose(found, value, rtol=1e-10)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(found_gradients[name], gradient, rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_nothing_valid_is_zero(loss: str) -> None:
    x = inputs(0, 4, 4, "all")
    x["a_valid"][:] = False
    (value, _), gradients = with_gradients(lambda x: by_ring(x, loss, 0.0, 2))(x)
    assert value == 0
    assert all((np.asarray(g) == 0).all() for g in gradients.values())


def compiled(n: int, width: int, loss: str, method: str, devices: int = 1, **fields: Any) -> Any:
    mesh = make_mesh(devices)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    objective = Contrastive(("image", "text"), loss=loss, method=method, **fields)  # type: ignore[arg-type]
    vectors = jax.ShapeDtypeStruct((n, width), jnp.float32, sharding=rows)
    valid = jax.ShapeDtypeStruct((n,), bool, sharding=rows)
    batch = {"image_valid": valid, "text_valid": valid}
    few = jnp.zeros((devices, width)), {name: jnp.ones(devices, bool) for name in batch}
    params = jax.eval_shape(
        lambda x, batch: objective.init(jax.random.key(0), (x, x), batch, method="batch_loss"), *few
    )

    def f(params: Any, outputs: Any, batch: Any) -> Any:
        return objective.apply(params, outputs, batch, method="batch_loss")[0]  # type: ignore[index]

    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.value_and_grad(f, argnums=(0, 1))).lower(params, (vectors, vectors), batch)
        return lowered.compile()


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_memory_is_that_of_tiles(loss: str) -> None:
    """By the compiler's own figures, at 32,768 x 512 (dense) and 1,048,576 x 512."""
    dense_bytes = compiled(32_768, 512, loss, "dense").memory_analysis().temp_size_in_bytes
    tiled_bytes = compiled(32_768, 512, loss, "auto").memory_analysis().temp_size_in_bytes
    assert dense_bytes > 4 * 32_768**2  # the dense one does hold a matrix of all pairs
    assert tiled_bytes <= 0.05 * dense_bytes
    assert compiled(1_048_576, 512, loss, "auto").memory_analysis().temp_size_in_bytes < 2**30


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_ring_is_a_ring(loss: str) -> None:
    """Columns pass from neighbour to neighbour: nobody gathers them, or holds all pairs."""
    text = compiled(1024, 8, loss, "auto", devices=8).as_text()
    assert "collective-permute" in text
    assert "all-gather" not in text
    assert not re.search(r"\[1024,1024\]|\[128,1024\]|\[1024,128\]|\[1024,8\]", text)


def test_axes_are_those_that_cut_the_batch() -> None:
    assert mesh_module.BATCH_AXES == ring.RING_AXES


def first_loss(objective: Contrastive, outputs: Any, batch: Any) -> Any:
    """Loss and metrics by the parameters that it starts from."""

    def of(outputs: Any, batch: Any) -> Any:
        return objective.init_with_output(jax.random.key(0), outputs, batch, method="batch_loss")[0]

    return jax.jit(of)(outputs, batch)


def test_partners_by_id() -> None:
    x = inputs(0, 6, 6, "all")
    ids = np.array([[1, 0], [2, 0], [1, 0], [1, 1], [2, 0], [0, 1]], np.uint32)
    batch = {"image_valid": x["a_valid"], "text_valid": x["b_valid"], "id": ids}
    for loss in ("softmax", "sigmoid"):
        objective = Contrastive(("image", "text"), loss=loss, partners="id")  # type: ignore[arg-type]
        outputs = x["a"].astype(np.float32), x["b"].astype(np.float32)
        found, _ = first_loss(objective, outputs, batch)
        group = np.array([0, 1, 0, 2, 1, 3])
        scale = (np.float32(1 / 0.07),) if loss == "softmax" else (np.float32(10), np.float32(-10))
        dense_loss = softmax_loss if loss == "softmax" else sigmoid_loss
        wanted, _ = jax.jit(dense_loss)(*outputs, *scale, x["a_valid"], x["b_valid"], a_group=group, b_group=group)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_non_finite_embeddings_are_counted() -> None:
    x = inputs(0, 4, 4, "all")
    x["a"][1, 2], x["b"][3, 0] = np.nan, np.inf
    x["b_valid"][3] = False  # what doesn't count is not reported
    objective = Contrastive(("image", "text"))
    batch = {"image_valid": x["a_valid"], "text_valid": x["b_valid"]}
    _, metrics = first_loss(objective, (x["a"], x["b"]), batch)
    assert (metrics["nonfinite/image"], metrics["nonfinite/text"]) == (1, 0)


def test_what_cannot_be_is_refused() -> None:
    x = inputs(0, 8, 8, "all")
    with pytest.raises(UserError, match=r"tile=9.*at most 8"):
        by_ring(x, "softmax", 0.0, 9)
    with jax.set_mesh(make_mesh(4)):
        with pytest.raises(UserError, match=r"tile=3.*at most 2"):
            by_ring(x, "softmax", 0.0, 3)
        with pytest.raises(UserError, match=r"6 rows.*cut them in 4: 4 or 8 rows"):
            by_ring(inputs(0, 6, 6, "all"), "softmax", 0.0, None)


@pytest.mark.parametrize("jit", [False, True])
def test_cut_embeddings_need_the_mesh(jit: bool) -> None:
    """Neither a gathering ring of one nor, by itself, a dense loss."""
    rows = NamedSharding(make_mesh(4), PartitionSpec(("data", "fsdp")))
    x = inputs(0, 8, 8, "all")
    x = {k: jnp.asarray(v) if v.ndim == 0 else jax.device_put(v, rows) for k, v in x.items()}
    batch = {"image_valid": x["a_valid"], "text_valid": x["b_valid"]}
    params = {"params": {"log_scale": jnp.zeros(())}}
    objective = Contrastive(("image", "text"))
    for f in (
        lambda x: by_ring(x, "softmax", 0.0, None),
        lambda x: objective.apply(params, (x["a"], x["b"]), batch, method="batch_loss"),
    ):
        with pytest.raises(UserError, match="no mesh is set"):
            (jax.jit(f) if jit else f)(x)
