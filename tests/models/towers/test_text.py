from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mmjax.errors import UserError
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.text import TextTransformer
from tests.flat import flat
from tests.models import oracle

SMALL: dict[str, Any] = {"vocab": 30, "length": 8, "width": 16, "depth": 2, "heads": 2, "mlp_dim": 24}
IDS = np.array([[1, 7, 9, 2, 0, 0], [1, 3, 3, 8, 4, 2]])
MASK = np.array([[True] * 4 + [False] * 2, [True] * 6])


def changed_ids(rows, place, id):
    ids = IDS.copy()
    ids[rows, place] = id
    return ids


def parameters(tower, ids):
    variables = jax.eval_shape(lambda: tower.init(jax.random.key(0), ids))
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("causal", [True, False])
def test_equals_float64_numpy(causal):
    tower = flat(TextTransformer, **SMALL, causal=causal, embed_dim=8, activation="quick_gelu")
    params = oracle.params_of(tower, IDS)
    p = oracle.as64(params)["params"]
    got = oracle.apply(tower, params, IDS, MASK)
    for row, length in enumerate((4, 6)):
        x = p["token"]["embedding"][np.asarray(IDS[row, :length])] + p["position"][:length]
        allowed = np.tril(np.ones((length, length), bool)) if causal else True
        x = oracle.transformer(p["transformer"], x, allowed, "quick_gelu")
        np.testing.assert_allclose(got[row], x[-1] @ p["projection"]["kernel"], atol=5e-5)


@pytest.mark.parametrize("pooling", ["last", "cls", "mean", "map"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_padded_text_gives_the_unpadded_ones_embedding(pooling, causal):
    tower = flat(TextTransformer, **SMALL, causal=causal, pooling=pooling)
    params = oracle.params_of(tower, IDS)
    padded = oracle.apply(tower, params, np.where(MASK, IDS, 5)[:1], MASK[:1])
    np.testing.assert_allclose(padded, oracle.apply(tower, params, IDS[:1, :4]), atol=2e-6)


def test_attended_padding_is_text():
    tower = flat(TextTransformer, **SMALL, attend_padding=True, embed_dim=8, projection_bias=True)
    params = oracle.params_of(tower, IDS)
    np.testing.assert_array_equal(oracle.apply(tower, params, IDS, MASK), oracle.apply(tower, params, IDS))
    changed = oracle.apply(tower, params, changed_ids(0, 5, 6), MASK)
    assert np.abs(changed[0] - oracle.apply(tower, params, IDS, MASK)[0]).max() > 1e-3
    np.testing.assert_array_equal(oracle.apply(tower, params, IDS, MASK, method="patches")[1], MASK)


def test_causal_tokens_depend_on_the_past_alone():
    tower = flat(TextTransformer, **SMALL, causal=True)
    params = oracle.params_of(tower, IDS)
    a, _ = oracle.apply(tower, params, IDS, method="tokens")
    b, _ = oracle.apply(tower, params, changed_ids(slice(None), 3, 11), method="tokens")
    np.testing.assert_array_equal(a[:, :3], b[:, :3])
    assert np.abs(a[:, 3:] - b[:, 3:]).max(axis=-1).min() > 1e-4


def test_kept_words_are_those_of_a_stack_on_them_alone():
    tower = flat(TextTransformer, **SMALL)
    params = oracle.params_of(tower, IDS)
    keep = np.array([[3, 0, -1, 5], [5, 1, 2, -1]])
    tokens, real = oracle.apply(tower, params, IDS, MASK, keep=keep, method="tokens")
    np.testing.assert_array_equal(real, [[True, True, False, False], [True, True, True, False]])
    for row in range(2):
        alone, _ = oracle.apply(tower, params, IDS[row][None], keep=keep[row][real[row]][None], method="tokens")
        np.testing.assert_allclose(tokens[row][real[row]], alone[0], atol=2e-6)


def test_an_empty_text_is_finite_in_value_and_gradient():
    tower = flat(TextTransformer, **SMALL, pooling="mean")
    params = oracle.params_of(tower, IDS)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(oracle.applied(tower, p, IDS, np.zeros_like(MASK)) ** 2)))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_initial_deviations_equal_theory():
    tower = TextTransformer(
        vocab=500, length=200, blocks=Blocks(width=64, depth=1, heads=2, inits="clip"), embed_dim=256
    )
    p = jax.jit(lambda: meta.unbox(tower.init(jax.random.key(0), IDS)))()["params"]
    assert np.std(p["token"]["embedding"]) == pytest.approx(0.02, rel=0.02)
    assert np.std(p["position"]) == pytest.approx(0.01, rel=0.02)
    assert np.std(p["projection"]["kernel"]) == pytest.approx(64**-0.5, rel=0.02)


@pytest.mark.parametrize(("width", "count"), [(512, 63_428_096), (768, 123_650_304)])
def test_clip_parameters(width, count):
    tower = TextTransformer(
        vocab=49_408, length=77, blocks=Blocks(width=width, depth=12, heads=width // 64), embed_dim=width, causal=True
    )
    assert parameters(tower, np.zeros((1, 77), np.int32)) == count


def test_siglip_parameters():
    tower = TextTransformer(
        vocab=32_000, length=64, blocks=Blocks(width=768, depth=12, heads=12), embed_dim=768, projection_bias=True
    )
    assert parameters(tower, np.zeros((1, 64), np.int32)) == 110_271_744


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(UserError, match="texts of 9 tokens are longer than the 8 positions of length=8"):
        jax.eval_shape(lambda: flat(TextTransformer, **SMALL).init(jax.random.key(0), np.zeros((1, 9), np.int32)))


def test_post_norm_blocks_types_and_a_tanh_equal_float64_numpy():
    """BERT (arXiv:1810.04805), eq. by eq."""
    tower = flat(
        TextTransformer, **SMALL, norm="post", pre_norm=True, types=2, pooling="cls", embed_dim=16, projection_tanh=True
    )
    ids = np.array([[1, 7, 2, 9, 3, 2], [1, 3, 2, 8, 2, 2]])
    params = oracle.params_of(tower, ids)
    assert "norm" not in params["params"]["transformer"]  # each block ends in one
    p = oracle.as64(params)["params"]
    segments = np.array([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]])
    got = oracle.apply(tower, params, ids, types=segments)
    for row in range(2):
        x = p["token"]["embedding"][np.asarray(ids[row])] + p["position"][:6] + p["type"][segments[row]]
        x = oracle.layer_norm(p["norm_pre"], x)
        for layer in range(2):
            block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], p["transformer"]["blocks"])
            qkv = [oracle.heads_in(block["attention"]["qkv"], x, part) for part in range(3)]
            x = oracle.layer_norm(block["norm_attention"], x + oracle.attend(*qkv, block["attention"]["out"], True))
            x = oracle.layer_norm(block["norm_mlp"], x + oracle.mlp(block["mlp"], x, "gelu"))
        np.testing.assert_allclose(got[row], np.tanh(oracle.dense(p["projection"], x[0])), atol=5e-5)


def test_a_kept_word_keeps_its_type():
    tower = flat(TextTransformer, **SMALL, types=2)
    ids, keep, types = np.array([[1, 7, 2, 9, 3, 2]]), np.array([[0, 4]]), np.array([[0, 0, 0, 1, 1, 1]])
    params = oracle.params_of(tower, ids)

    def tokens(**told):
        return oracle.apply(tower, params, ids, keep=keep, method="tokens", **told)[0]

    assert np.abs(tokens(types=types) - tokens()).max() > 1e-3  # untold, all are of the first
    np.testing.assert_array_equal(tokens(types=types[:, ::-1] * 0), tokens())
    params["params"]["type"][1] = params["params"]["type"][0]
    np.testing.assert_array_equal(tokens(types=types), tokens())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"projection_tanh": True}, r"projection_tanh=True needs a projection"),
        ({"norm": "sandwich"}, r"norm='sandwich' is not one of pre, post"),
    ],
)
def test_fields_that_cannot_be_say_why(fields, message):
    with pytest.raises(UserError, match=message):
        flat(TextTransformer, **SMALL, **fields).init(jax.random.key(0), IDS)


def test_without_blocks_its_tokens_are_normed_embeddings():
    """ViLT's words: no block, and no LayerNorm but that of BERT's embeddings."""
    tower = flat(TextTransformer, **SMALL | {"depth": 0}, pre_norm=True, types=2, norm_eps=1e-12, pooling="mean")
    params = oracle.params_of(tower, IDS)
    assert set(params["params"]) == {"token", "position", "type", "norm_pre"}
    p = oracle.as64(params)["params"]
    got, mask = oracle.apply(tower, params, IDS, MASK, types=np.array([[0, 1] * 3] * 2, np.int32), method="tokens")
    x = p["token"]["embedding"][IDS] + p["position"][: IDS.shape[1]] + p["type"][[0, 1] * 3]
    np.testing.assert_allclose(got, oracle.layer_norm(p["norm_pre"], x, 1e-12), atol=2e-5)
    np.testing.assert_array_equal(mask, MASK)
