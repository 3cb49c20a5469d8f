"""What only an NVIDIA GPU can show: `MMJAX_TEST_PLATFORM=cuda python -m pytest tests/gpu tests/test_smoke.py`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.layers.attention import attend, attend_fused
from mmjax.models.layers.masks import prefix_causal
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import sigmoid_loss, softmax_loss
from mmjax.objectives.contrastive.ring import ring_loss
from mmjax.objectives.contrastive.tile import Rows
from mmjax.train.loop import train
from tests.flat import flat
from tests.train.test_loop import training
from tests.trained import Trained, tiny_config

pytestmark = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
B, HEADS, WIDTH = 4, 6, 64


def drawn(positions: int, dtype: str = "bfloat16", seed: int = 0) -> list[jax.Array]:
    """Queries, keys and values."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal((B, HEADS, positions, WIDTH)), dtype) for _ in range(3)]


def padding(positions: int) -> jax.Array:
    """A whole row, one of a single position, and two between."""
    lengths = jnp.array([positions, 1, positions // 2, positions - 1])
    return jnp.arange(positions) < lengths[:, None]


def with_gradients(attention, arrays, mask, causal, allowed=None):
    """The value and the gradients of a weighted sum of it, over the rows that are not padding."""
    weight = jnp.asarray(np.random.default_rng(1).standard_normal(arrays[0].shape), jnp.float32)
    if mask is not None:
        weight *= mask[:, None, :, None]

    def of(*arrays):
        out = attention(*arrays, mask, causal, allowed)
        return (out.astype(jnp.float32) * weight).sum(), out

    (_, out), gradients = jax.jit(jax.value_and_grad(of, (0, 1, 2), has_aux=True))(*arrays)
    if mask is not None:
        out = jnp.where(mask[:, None, :, None], out, 0)
    return [np.asarray(x, np.float64) for x in (out, *gradients)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("positions", [16, 50, 77, 197, 257])
def test_fused_attention_is_as_near_to_exact_as_the_plain_one(positions, masked, causal):
    """Exact: the plain one in fp32 at the highest precision, of the same numbers of 16 bits."""
    arrays, mask = drawn(positions), padding(positions) if masked else None
    with jax.default_matmul_precision("highest"):
        exact = with_gradients(attend, [x.astype(jnp.float32) for x in arrays], mask, causal)
    plain, fused = (with_gradients(of, arrays, mask, causal) for of in (attend, attend_fused))
    for want, by_plain, by_fused in zip(exact, plain, fused, strict=True):
        error = [np.linalg.norm(got - want) / np.linalg.norm(want) for got in (by_plain, by_fused)]
        assert error[1] <= max(2 * error[0], 4e-3), error


@pytest.mark.parametrize("positions", [50, 77])
def test_a_mask_of_each_query_is_the_same_to_the_fused_kernel(positions):
    """A prefix of each example; and a mask that lets some queries see nothing, which take in zeros."""
    arrays, mask = drawn(positions), padding(positions)
    blind = jnp.asarray(np.random.default_rng(2).random((1, positions, positions)) < 0.5).at[:, ::7].set(False)
    for allowed in (prefix_causal(positions, jnp.array([0, 1, positions // 3, positions])), blind):
        with jax.default_matmul_precision("highest"):
            exact = with_gradients(attend, [x.astype(jnp.float32) for x in arrays], mask, False, allowed)
        plain, fused = (with_gradients(of, arrays, mask, False, allowed) for of in (attend, attend_fused))
        for want, by_plain, by_fused in zip(exact, plain, fused, strict=True):
            error = [np.linalg.norm(got - want) / np.linalg.norm(want) for got in (by_plain, by_fused)]
            assert error[1] <= max(2 * error[0], 4e-3), error


def test_an_example_without_a_token_harms_nothing():
    """The mask of an invalid example is empty: its row is anything but NaN, the other rows are what they were."""
    arrays = drawn(77)
    mask = padding(77).at[1].set(False)
    assert all(np.isfinite(x).all() for x in with_gradients(attend_fused, arrays, mask, False))
    query, key, value = arrays
    beside, alone = attend_fused(query, key, value, mask)[2:], attend_fused(query[2:], key[2:], value[2:], mask[2:])
    real = mask[2:, None, :, None]
    np.testing.assert_array_equal(jnp.where(real, beside, 0), jnp.where(real, alone, 0))


@pytest.mark.parametrize("kind", ["image", "text"])
def test_towers_agree(kind):
    """In bf16: by cosine, of embeddings of the same parameters."""
    shape = {"width": 384, "depth": 4, "heads": 6, "embed_dim": 256, "dtype": "bfloat16"}
    rng = np.random.default_rng(0)
    if kind == "image":
        make = functools.partial(flat, ViT, patch=16, size=224, pooling="map", **shape)
        inputs = (jnp.asarray(rng.integers(0, 256, (8, 224, 224, 3)), jnp.uint8),)
    else:
        make = functools.partial(flat, TextTransformer, vocab=100, length=32, **shape)
        inputs = (jnp.asarray(rng.integers(0, 100, (8, 32))), jnp.arange(32) < rng.integers(1, 33, (8, 1)))
    variables = jax.jit(make().init)(jax.random.key(0), *inputs)
    found = [jax.jit(make(attention=attention).apply)(variables, *inputs) for attention in ("plain", "cudnn")]
    a, b = (np.asarray(embedding, np.float64) for embedding in found)
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_tiles_give_what_the_dense_matrix_gives(loss):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2_000, 64), np.float32) for _ in range(2))
    a, b = (jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True)) for x in (a, a + b))
    valid, group = jnp.arange(2_000) % 7 != 0, jnp.arange(2_000, dtype=jnp.int32)
    scale, bias = jnp.float32(10.0), jnp.float32(-10.0)

    def tiles(a, b):
        sides = Rows(a, valid, group), Rows(b, valid, group)
        return ring_loss(*sides, scale, None if loss == "softmax" else bias)[0]

    def dense(a, b):
        if loss == "softmax":
            return softmax_loss(a, b, scale, valid, valid)[0]
        return sigmoid_loss(a, b, scale, bias, valid, valid)[0]

    with jax.default_matmul_precision("highest"):
        found = [jax.jit(jax.value_and_grad(of, (0, 1)))(a, b) for of in (tiles, dense)]
    (got, got_gradients), (want, want_gradients) = found
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for x, y in zip(got_gradients, want_gradients, strict=True):
        assert jnp.linalg.norm(x - y) <= 1e-4 * jnp.linalg.norm(y)


def test_it_learns_with_fused_attention_as_with_the_plain_one(trained: Trained, tmp_path):
    """A run in bf16 to its end, beside the shared one in fp32: the loss at its end."""
    words = [f"towers.{tower}.blocks.dtype=bfloat16" for tower in ("image", "text", "audio")]
    words += [f"towers.{tower}.blocks.attention=cudnn" for tower in ("image", "text", "audio")]
    train(tiny_config(trained.table, *words), tmp_path / "fused")
    ends = [training(workdir)[-1]["loss"] for workdir in (trained.workdir, tmp_path / "fused")]
    first = training(trained.workdir)[0]["loss"]
    assert ends[1] < first
    assert ends[1] == pytest.approx(ends[0], rel=0.05)
