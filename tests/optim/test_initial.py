"""Decay towards the initial parameters: the updates of a slow oracle, on any mesh, after loading and after resuming."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.experiment.definition import Load
from mmjax.experiment.graph import build
from mmjax.inference.model import load
from mmjax.optim import Adafactor, AdamW, Lamb, Muon
from mmjax.optim.initial import InitialWeights
from mmjax.runtime.mesh import Mesh, put
from mmjax.train.loop import train
from mmjax.train.step import compile_train_step, make_train_step, with_params
from tests.states import init_state
from tests.toy import ToyPretrainer, toy_batch
from tests.trained import Trained, pair_config

STEPS, DECAY, LR = 6, 0.3, 1e-2
FIELDS: dict[str, Any] = {
    "peak_lr": LR, "schedule": "constant", "weight_decay": DECAY, "decay_towards": "initial", "clip_norm": None
}  # fmt: skip
PARAMS = {
    "towers_image": {
        "stem": {"kernel": np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8), "bias": np.ones(8, np.float32)},
        "blocks": {"mlp": {"kernel": np.linspace(0.5, 2, 128, dtype=np.float32).reshape(2, 8, 8)}},
        "position": np.ones((4, 8), np.float32),
    },
    "objectives_contrastive": {"log_scale": np.float32(2.0)},
}
PULLED = (("towers_image", "stem", "kernel"), ("towers_image", "blocks", "mlp", "kernel"))


def at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def gradients(step: int) -> Any:
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), PARAMS)


def run(optimizer: Any) -> Any:
    transform, params = optimizer.transform(PARAMS), PARAMS
    state, update_of = transform.init(params), jax.jit(transform.update)
    for step in range(STEPS):
        update, state = update_of(gradients(step), state, params)
        params = jax.tree.map(lambda p, u: p - np.float32(LR) * np.asarray(u), params, update)
    return params, state


def by_hand(path: tuple[str, ...], pulled: bool, trust: bool = False) -> np.ndarray:
    """AdamW's or LAMB's parameter after all steps, in float64."""
    p = p0 = np.asarray(at(PARAMS, path), np.float64)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for step in range(STEPS):
        g = np.asarray(at(gradients(step), path), np.float64)
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
        t = step + 1
        direction = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.98**t)) + 1e-8)
        direction = direction + (DECAY * (p - p0) if pulled else 0.0)
        if trust:
            layers = (0,) if "blocks" in path else ()
            axes = tuple(axis for axis in range(p.ndim) if axis not in layers)
            norms = [np.sqrt(np.sum(x * x, axis=axes, keepdims=True)) for x in (p, direction)]
            direction = direction * norms[0] / norms[1]
        p = p - LR * direction
    return p


@pytest.mark.parametrize(("kind", "trust"), [(AdamW, False), (Lamb, True)])
def test_updates_are_the_oracle_s(kind: Any, trust: bool) -> None:
    params, state = run(kind(**FIELDS))
    paths = [tuple(p.key for p in path) for path, _ in jax.tree_util.tree_leaves_with_path(PARAMS)]
    for path in paths:
        expected = by_hand(path, path in PULLED, trust)
        np.testing.assert_allclose(at(params, path), expected, rtol=2e-5, atol=1e-6, err_msg=str(path))
    (kept,) = [s for s in jax.tree.leaves(state, is_leaf=is_kept) if is_kept(s)]
    found = jax.tree_util.tree_leaves_with_path(kept.initial)
    assert {tuple(p.key for p in path) for path, _ in found} == set(PULLED)  # a copy of what is decayed, and no more
    for path, leaf in found:
        np.testing.assert_array_equal(leaf, at(PARAMS, tuple(p.key for p in path)))


def is_kept(node: Any) -> bool:
    return isinstance(node, InitialWeights)


@pytest.mark.parametrize("kind", [AdamW, Adafactor, Muon])
def test_without_a_gradient_a_moved_parameter_comes_back(kind: Any) -> None:
    transform = kind(**FIELDS).transform(PARAMS)
    state = transform.init(PARAMS)
    moved = jax.tree.map(lambda p: p + np.float32(0.5), PARAMS)
    update, _ = transform.update(jax.tree.map(np.zeros_like, PARAMS), state, moved)
    for path in PULLED:
        np.testing.assert_allclose(at(update, path), DECAY * 0.5, rtol=1e-4)
    np.testing.assert_array_equal(update["towers_image"]["position"], 0)


def test_small_parameters_are_left_alone_and_a_stack_counts_by_layer() -> None:
    def zero(step: int) -> Any:
        del step
        return jax.tree.map(np.zeros_like, PARAMS)

    for least, decayed in ((32, (True, True)), (33, (False, True)), (65, (False, False))):
        for towards in ("zero", "initial"):
            optimizer = AdamW(LR, weight_decay=DECAY, least_decayed=least, decay_towards=towards)  # pyright: ignore[reportArgumentType]
            transform = optimizer.transform(PARAMS)
            moved = jax.tree.map(lambda p: p + np.float32(1), PARAMS)
            update, _ = transform.update(zero(0), transform.init(PARAMS), moved)
            assert tuple(bool(np.any(at(update, path))) for path in PULLED) == decayed, (least, towards)


def state_and_step(mesh: Any, optimizer: Any) -> Any:
    state = init_state(ToyPretrainer(), optimizer, toy_batch(0), seed=0, mesh=mesh, ema=None)
    step = make_train_step(ToyPretrainer(), optimizer, seed=0, total_steps=20)
    return state, compile_train_step(step, state, mesh)


def test_a_mesh_changes_nothing_and_cuts_the_copy_as_the_parameters() -> None:
    """After `with_params` too, which `init` goes through: the pull is towards what was loaded."""
    optimizer, ends = AdamW(**{**FIELDS, "weight_decay": 3.0, "eps": 1e-3}), []  # eps: rounding is no direction
    for mesh in (Mesh().build(jax.devices()[:1]), Mesh(data=2, fsdp=2, tensor=2).build()):
        state, step = state_and_step(mesh, optimizer)
        loaded = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.25), state.params)
        state = with_params(state, loaded)
        (kept,) = [s for s in jax.tree.leaves(state.opt_state, is_leaf=is_kept) if is_kept(s)]
        leaves = jax.tree_util.tree_leaves_with_path(kept.initial)
        assert leaves
        for path, leaf in leaves:
            keys = tuple(p.key for p in path)
            np.testing.assert_array_equal(leaf, at(loaded, keys))
            assert leaf.sharding == at(state.params, keys).sharding
        with jax.set_mesh(mesh):
            for number in range(4):
                state, _ = step(state, put(toy_batch(number), mesh))
        (kept,) = [s for s in jax.tree.leaves(state.opt_state, is_leaf=is_kept) if is_kept(s)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(kept.initial):
            np.testing.assert_array_equal(leaf, at(loaded, tuple(p.key for p in path)))
        ends.append(jax.tree.map(np.asarray, state.params))
    assert len(jax.tree.leaves(ends[0])) > 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *ends)


def test_a_resumed_run_ends_as_an_unbroken_one_to_the_bit(shapes: str, pair_trained: Trained, tmp_path: Path) -> None:
    overrides = (
        "steps=6", "save_every=3", "evaluate_every=6", "evaluators=()",
        "optimizer.weight_decay=5.0", "optimizer.decay_towards=initial",
    )  # fmt: skip
    config = pair_config(shapes, *overrides)
    config.init = {"towers.text": Load(str(pair_trained.workdir))}
    whole = tmp_path / "whole"
    train(config, whole)
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "6")
    train(config, again)
    ends = [load(folder, step=6).variables["params"] for folder in (whole, again)]
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ends[0]), jax.tree.leaves(ends[1]), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
    free = tmp_path / "free"
    config = pair_config(shapes, *overrides[:-1], "optimizer.decay_towards=zero")
    config.init = {"towers.text": Load(str(pair_trained.workdir))}
    train(config, free)
    assert build(config).optimizer.decay_towards == "zero"
    start = load(pair_trained.workdir).variables["params"]["towers_text"]
    far = []
    for folder in (whole, free):
        held = load(folder, step=6).variables["params"]["towers_text"]
        far.append(sum(float(jnp.sum((a - b) ** 2)) for a, b in zip(*map(jax.tree.leaves, (held, start)), strict=True)))
    assert far[0] < far[1]  # it stays nearer to what was loaded


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decay_towards": "inital"}, "decay_towards='inital' is not one of zero, initial; did you mean initial"),
        ({"weight_decay": 0.0}, "decay_towards='initial' needs a weight_decay above 0"),
        ({"least_decayed": 0}, "least_decayed=0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdamW(**{**FIELDS, **fields})
