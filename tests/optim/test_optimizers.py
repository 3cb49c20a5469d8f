"""LAMB, Adafactor and Muon: each against its paper's arithmetic in plain numpy, block by block."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.errors import UserError
from mmjax.optim.optimizers import Adafactor, AdamW, Lamb, Muon, Sgd
from mmjax.runtime.mesh import Mesh, put
from mmjax.train.step import compile_train_step, make_train_step
from tests.states import abstract_state, init_state
from tests.toy import ToyPretrainer, toy_batch

WIDTH, HEADS, LAYERS = 8, 2, 3
SHAPES = {
    "towers_image/stem/kernel": (12, WIDTH),
    "towers_image/blocks/attention/qkv/kernel": (LAYERS, WIDTH, HEADS, 3, WIDTH // HEADS),
    "towers_image/blocks/attention/out/kernel": (LAYERS, HEADS, WIDTH // HEADS, WIDTH),
    "towers_image/blocks/mlp/in/kernel": (LAYERS, WIDTH, 4 * WIDTH),
    "towers_image/blocks/mlp/in/bias": (LAYERS, 4 * WIDTH),
    "objectives_pair/log_scale": (),
}


def draws(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {path: np.asarray(rng.standard_normal(shape), np.float32) for path, shape in SHAPES.items()}


def nested(flat):
    return unflatten_dict(flat, sep="/")


def updates(optimizer, steps=3):
    """The directions of some steps with the gradients of seeds 1, 2, ..., by path; parameters stay where they are."""
    params = nested(draws(0))
    transform = optimizer.transform(params)
    update, state, found = jax.jit(transform.update), transform.init(params), []
    for step in range(steps):
        direction, state = update(nested(draws(step + 1)), state, params)
        found.append(flatten_dict(direction, sep="/"))
    return found


def adam(path, steps, b1, b2, eps):
    m = v = 0.0
    for t in range(1, steps + 1):
        g = draws(t)[path].astype(np.float64)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return (m / (1 - b1**steps)) / (np.sqrt(v / (1 - b2**steps)) + eps)


def test_adam_without_bias_correction_divides_the_moments_as_they_are():
    found = updates(AdamW(1.0, b1=0.9, b2=0.99, eps=1e-6, weight_decay=0.1, clip_norm=None, bias_correction=False))
    for path, param in draws(0).items():
        m = v = 0.0
        for t, directions in enumerate(found, start=1):
            g = draws(t)[path].astype(np.float64)
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
            decayed = 0.1 * param if path.endswith("kernel") else 0.0
            np.testing.assert_allclose(directions[path], m / (np.sqrt(v) + 1e-6) + decayed, rtol=1e-4, atol=1e-6)


def test_lamb_scales_each_block_to_the_length_of_its_parameter():
    found = updates(Lamb(1.0, b1=0.9, b2=0.99, eps=1e-6, weight_decay=0.1, clip_norm=None))[-1]
    for path, param in draws(0).items():
        decayed = 0.1 if path.endswith("kernel") else 0.0
        direction = adam(path, 3, 0.9, 0.99, 1e-6) + decayed * param
        pairs = zip(param, direction, strict=True) if "/blocks/" in path else [(param, direction)]
        expected = [d * np.linalg.norm(p.ravel()) / np.linalg.norm(d.ravel()) for p, d in pairs]
        np.testing.assert_allclose(
            found[path].reshape(len(expected), -1), np.reshape(expected, (len(expected), -1)), rtol=1e-4
        )


def test_adafactor_keeps_rows_and_columns_and_caps_its_rate():
    fields = {"b1": 0.0, "decay": 0.8, "b2_cap": 0.3, "least_dim": 4, "clip_norm": None, "clip_rms": None}
    found = updates(Adafactor(1.0, **fields))[-1]
    path = "towers_image/blocks/mlp/in/kernel"  # [layers, rows, columns]: the two larger axes are factored
    rows, columns = np.zeros((LAYERS, WIDTH)), np.zeros((LAYERS, 4 * WIDTH))
    for t in range(1, 4):
        square = draws(t)[path].astype(np.float64) ** 2 + 1e-30
        rate = min(1 - t**-0.8, 0.3)
        rows = rate * rows + (1 - rate) * square.mean(2)
        columns = rate * columns + (1 - rate) * square.mean(1)
    second = rows[:, :, None] * columns[:, None] / rows.mean(1)[:, None, None]
    np.testing.assert_allclose(found[path], draws(3)[path] / np.sqrt(second), rtol=1e-4)
    bias, whole = "towers_image/blocks/mlp/in/bias", 0.0  # [3, 32]: its shorter axis is below least_dim
    for t in range(1, 4):
        rate = min(1 - t**-0.8, 0.3)
        whole = rate * whole + (1 - rate) * (draws(t)[bias].astype(np.float64) ** 2 + 1e-30)
    np.testing.assert_allclose(found[bias], draws(3)[bias] / np.sqrt(whole), rtol=1e-4)


def test_adafactor_clips_and_averages_its_direction():
    plain = updates(Adafactor(1.0, b1=0.0, least_dim=4, clip_norm=None, clip_rms=None))
    smooth = updates(Adafactor(1.0, b1=0.9, least_dim=4, clip_norm=None, clip_rms=0.5))[-1]
    for path in SHAPES:
        mean = 0.0
        for direction in plain:
            rms = np.sqrt(np.mean(np.square(direction[path])))
            mean = 0.9 * mean + 0.1 * np.asarray(direction[path]) / max(1, rms / 0.5)
        np.testing.assert_allclose(smooth[path], mean, rtol=2e-2, atol=1e-3)  # the mean is kept in bfloat16


@pytest.mark.parametrize("part", [0, 1, 2])
def test_muon_makes_the_matrices_of_each_layer_orthogonal(part):
    found = updates(Muon(1.0, clip_norm=None))[-1]
    for layer in range(LAYERS):
        matrices = [
            found["towers_image/blocks/attention/qkv/kernel"][layer, :, :, part].reshape(WIDTH, WIDTH),
            found["towers_image/blocks/attention/out/kernel"][layer].reshape(WIDTH, WIDTH),
            found["towers_image/blocks/mlp/in/kernel"][layer],
        ]
        for matrix in matrices:
            values = np.linalg.svd(matrix, compute_uv=False)
            # Five Newton-Schulz steps bring singular values near 1, within 0.7 to 1.2; small ones stay behind.
            assert 0.6 < np.median(values) / (0.2 * np.sqrt(max(matrix.shape))) < 1.3
            assert values[0] / (0.2 * np.sqrt(max(matrix.shape))) < 1.3


def test_muon_leaves_everything_else_to_adam():
    found = updates(Muon(1.0, b1=0.9, b2=0.95, eps=1e-8, clip_norm=None), steps=1)[0]
    for path in ("towers_image/stem/kernel", "towers_image/blocks/mlp/in/bias", "objectives_pair/log_scale"):
        # The first step: m = 0.1 g, looked ahead 0.9 m / (1 - 0.9^2) + g; the second moment's root is |g|.
        np.testing.assert_allclose(found[path], np.sign(draws(1)[path]) * (0.09 / 0.19 + 1), rtol=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_plain_descent_is_pytorchs(momentum):
    torch = pytest.importorskip("torch")
    found = updates(Sgd(1.0, momentum=momentum, clip_norm=None))
    for path in SHAPES:
        leaf = torch.zeros(SHAPES[path], dtype=torch.float64, requires_grad=True)
        theirs = torch.optim.SGD([leaf], lr=1.0, momentum=momentum)
        for t, direction in enumerate(found, start=1):
            before = leaf.detach().clone()
            leaf.grad = torch.tensor(draws(t)[path].astype(np.float64))
            theirs.step()
            np.testing.assert_allclose(direction[path], (before - leaf.detach()).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("optimizer", "peak_lr"), [(Lamb, 1e-2), (Adafactor, 1e-2), (Muon, 1e-2), (Sgd, 0.3)])
def test_it_trains_on_a_mesh_as_on_one_device(optimizer, peak_lr):
    pretrainer, batch = ToyPretrainer(), toy_batch(0)
    choice = optimizer(peak_lr, weight_decay=0.01, warmup_steps=1)
    meshes = {"one": Mesh().build(jax.devices()[:1]), "eight": Mesh(data=2, fsdp=2, tensor=2).build()}
    first = init_state(pretrainer, choice, batch, seed=0, mesh=meshes["one"])
    train_step, losses = make_train_step(pretrainer, choice, seed=0, total_steps=20), {}
    for name, mesh in meshes.items():
        with jax.set_mesh(mesh):
            shapes = abstract_state(pretrainer, choice, batch, mesh=mesh)
            assert jax.tree.map(lambda a: a.shape, first) == jax.tree.map(lambda a: a.shape, shapes)
            state = jax.tree.map(lambda x, like: jax.device_put(np.array(x), like.sharding), first, shapes)
            step, losses[name] = compile_train_step(train_step, shapes, mesh), []
            for _ in range(6):
                state, metrics = step(state, put(batch, mesh))
                losses[name].append(float(metrics["loss"]))
    assert losses["one"][-1] < losses["one"][0]
    np.testing.assert_allclose(losses["eight"], losses["one"], rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lamb(1e-3, b1=1.0), "Lamb: b1=1.0 must be at least 0 and below 1"),
        (lambda: Sgd(1e-3, momentum=1.0), "Sgd: momentum=1.0 must be at least 0 and below 1"),
        (lambda: Lamb(1e-3, eps=-1.0), "Lamb: eps=-1.0 must be at least 0"),
        (lambda: Muon(1e-3, momentum=1.2), "Muon: momentum=1.2"),
        (lambda: Adafactor(1e-3, decay=0.0), "Adafactor: decay=0.0"),
        (lambda: Adafactor(-1.0), "Adafactor: peak_lr=-1.0 must be above 0"),
    ],
)
def test_a_number_that_cannot_be_is_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
