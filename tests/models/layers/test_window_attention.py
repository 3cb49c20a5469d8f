"""Attention within windows against full attention with a mask of all pairs, in plain numpy float64."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.decoders.patches import Decoder
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.window_attention import WindowTransformer
from tests.flat import flat
from tests.models import oracle

WINDOW, SHIFT = (4, 2), (2, 1)
MODEL = WindowTransformer(blocks=Blocks(width=16, depth=4, heads=2, mlp_dim=24), window=WINDOW, shift=SHIFT)
GRIDS = ((8, 4), (7, 5), (3, 4))  # that windows divide, that they don't, and smaller than one


def rolled(grid, window, shift):
    """Which token may look at which, as Swin says it: roll the grid, cut it into windows, and part in each what the
    roll has brought together from opposite edges."""
    places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(-1, len(grid))
    after = (places - shift) % grid
    same = (after[:, None] // window == after // window).all(axis=-1)
    wrapped = places < shift
    return same & (wrapped[:, None] == wrapped).all(axis=-1)


def near(grid, window, shift):
    """The same without rolling, for any grid: windows begin at `shift` and at each of their sizes from there."""
    places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(-1, len(grid))
    number = np.floor_divide(places - shift, window)
    return (number[:, None] == number).all(axis=-1)


def attention(p, x, allowed, grid):
    places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(-1, len(grid))
    apart = (places[:, None] - places).astype(np.float64)
    hidden = np.maximum(0, oracle.dense(p["bias_in"], np.sign(apart) * np.log(1 + np.abs(apart))))
    bias = np.moveaxis(oracle.dense(p["bias_out"], hidden), -1, 0)
    q, k, v = (oracle.heads_in(p["qkv"], x, part) for part in range(3))
    q, k = (part / np.linalg.norm(part, axis=-1, keepdims=True) for part in (q, k))
    scale = np.minimum(np.exp(p["log_scale"]), 100)[:, None, None]
    logits = np.where(allowed, np.einsum("hnk,hmk->hnm", q, k) * scale + bias, -1e30)
    out = p["out"]
    return np.einsum("hnm,hmk,hkd->nd", oracle.softmax(logits), v, out["kernel"]) + out["bias"]


def expected(p, x, grid, real):
    for i in range(MODEL.blocks.depth):
        name, shift = ("shifted", SHIFT) if i % 2 else ("straight", (0, 0))
        block = jax.tree.map(lambda leaf, i=i: leaf[i // 2], p["blocks"][name])
        allowed = near(grid, WINDOW, shift) & real
        x = x + oracle.layer_norm(block["norm_attention"], attention(block["attention"], x, allowed, grid))
        x = x + oracle.layer_norm(block["norm_mlp"], oracle.mlp(block["mlp"], x, "gelu"))
    return oracle.layer_norm(p["norm"], x)


@pytest.fixture(scope="module")
def params():
    found = oracle.params_of(MODEL, jnp.zeros((1, 32, 16)), (8, 4))
    found["params"]["blocks"]["straight"]["attention"]["log_scale"][0, 0] = 6.0  # sharper than is allowed
    return found


@pytest.fixture(scope="module")
def run():
    return jax.jit(MODEL.apply, static_argnums=2)


@pytest.mark.parametrize("grid", GRIDS)
def test_equals_dense_attention_with_a_mask(grid, params, run):
    count = grid[0] * grid[1]
    x = np.random.default_rng(0).standard_normal((2, count, 16)).astype(np.float32)
    real = np.ones((2, count), bool)
    real[1, count * 2 // 3 :] = False
    got = np.asarray(run(params, x, grid, real))
    p = oracle.as64(params)["params"]
    for row in range(2):
        want = expected(p, x[row].astype(np.float64), grid, real[row])
        np.testing.assert_allclose(got[row][real[row]], want[real[row]], atol=2e-5)
    assert np.isfinite(got).all()


def test_windows_are_those_that_swin_rolls_and_masks():
    for grid, shift in (((8, 4), SHIFT), ((8, 4), (2, 0)), ((12, 8), (3, 1)), ((8, 4), (0, 0))):
        np.testing.assert_array_equal(near(grid, WINDOW, shift), rolled(grid, WINDOW, shift))


def test_padding_at_the_end_changes_nothing(params, run):
    x = jax.random.normal(jax.random.key(1), (2, 9 * 4, 16))
    real = np.repeat(np.arange(9) < 7, 4)[None].repeat(2, axis=0)
    np.testing.assert_allclose(run(params, x, (9, 4), real)[:, :28], run(params, x[:, :28], (7, 4), None), atol=3e-6)


def test_gradients_are_finite_where_a_whole_window_holds_nothing_real(params):
    """There cosines are of vectors that are all padding, and a softmax is over nothing that is allowed."""
    x = jax.random.normal(jax.random.key(1), (1, 32, 16))
    real = (np.arange(32) < 12)[None]
    model = MODEL.clone(blocks=replace(MODEL.blocks, remat="dots"))

    def loss(p):
        states: Any = model.apply(p, x, (8, 4), real)
        return jnp.sum(jnp.where(real[..., None], states, 0) ** 3)

    gradients = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))


def test_a_pair_stands_once_in_the_program():
    def products(depth):
        model = MODEL.clone(blocks=replace(MODEL.blocks, depth=depth))
        params = oracle.params_of(model, jnp.zeros((1, 32, 16)), (8, 4))
        return jax.jit(model.apply, static_argnums=2).lower(params, jnp.zeros((1, 32, 16)), (8, 4)).as_text()

    assert products(2).count("dot_general") == products(8).count("dot_general")


def test_a_decoder_with_windows_reads_no_prefix_and_has_the_published_size():
    decoder = Decoder(blocks=Blocks(width=16, depth=2, heads=2, mlp_dim=24), window=WINDOW, shift=SHIFT)
    keep = np.array([[4, 0, 9]])
    tokens = jax.random.normal(jax.random.key(0), (1, 4, 12))
    mask = np.ones((1, 4), bool)
    params = oracle.params_of(decoder, tokens, mask, keep, (6, 2), 1)
    run = jax.jit(decoder.apply, static_argnums=(4, 5))
    with_prefix = run(params, tokens, mask, keep, (6, 2), 1)
    np.testing.assert_array_equal(with_prefix, run(params, tokens.at[:, 0].set(7.0), mask, keep, (6, 2), 1))
    np.testing.assert_allclose(with_prefix, run(params, tokens[:, 1:], mask[:, 1:], keep, (6, 2), 0), atol=1e-6)

    published = Decoder(blocks=Blocks(width=512, depth=16, heads=16), window=(4, 4), shift=(2, 0))
    args = jnp.zeros((1, 103, 768)), jnp.ones((1, 103), bool), jnp.zeros((1, 102), int), (64, 8), 1
    leaves = jax.tree.leaves(jax.eval_shape(lambda: published.init(jax.random.key(0), *args)))
    bias, scales = 2 * 384 + 384 + 384 * 16 + 16, 16
    block = 12 * 512**2 + 13 * 512 + bias + scales
    assert sum(leaf.size for leaf in leaves) == 768 * 512 + 512 + 512 + 16 * block + 2 * 512


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, "depth=3 is odd"),
        ({"window": (4,)}, r"for each axis of the grid \(8, 4\)"),
        ({"shift": (4, 0)}, r"shift=\(4, 0\) must lie"),
        ({"remat": "some"}, "remat='some'"),
        ({"norm": "post"}, r"blocks with windows have no norm='post': leave it out .* or set window=None"),
        ({"layer_scale": 0.1, "dropout": 0.2}, r"have no layer_scale=0\.1, dropout=0\.2: leave"),
        ({"attention": "cudnn"}, "have no attention='cudnn': leave"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    fields = {"width": 16, "depth": 4, "heads": 2, "window": WINDOW, "shift": SHIFT, **change}
    with pytest.raises(UserError, match=message):
        flat(WindowTransformer, **fields).init(jax.random.key(0), jnp.zeros((1, 32, 16)), (8, 4))
