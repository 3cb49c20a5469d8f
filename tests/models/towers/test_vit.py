from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from jax.sharding import PartitionSpec

from mmjax.errors import UserError
from mmjax.models.decoders.patches import Decoder
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.vit import ViT
from tests.flat import flat
from tests.models import oracle

SMALL: dict[str, Any] = {"patch": 4, "size": (8, 12), "width": 16, "depth": 2, "heads": 2, "mlp_dim": 24}
MAE: dict[str, Any] = {"pooling": "cls", "cls": True, "positions": "sincos"}
CLIP: dict[str, Any] = {
    "pooling": "cls",
    "cls": True,
    "pre_norm": True,
    "stem_bias": False,
    "activation": "quick_gelu",
    "norm_eps": 1e-5,
}


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3)).astype(np.uint8)


def count(variables):
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(variables))


def abstract(module, *args):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *args))


def cut(picture, patch=4):
    """The patches of one picture, by loops."""
    height, width, _ = picture.shape
    corners = [(y, x) for y in range(0, height, patch) for x in range(0, width, patch)]
    return np.stack([picture[y : y + patch, x : x + patch].reshape(-1) for y, x in corners])


def test_clip_vit_equals_float64_numpy(pictures):
    mean, std = (0.48, 0.45, 0.41), (0.27, 0.26, 0.28)
    vit = flat(ViT, **SMALL, **CLIP, embed_dim=8, mean=mean, std=std)
    params = oracle.params_of(vit, pictures)
    p = oracle.as64(params)["params"]
    got = oracle.apply(vit, params, pictures)
    for row in range(3):
        patches = cut((np.asarray(pictures[row], np.float64) / 255 - mean) / std)
        x = np.concatenate([p["cls"][None], oracle.dense(p["stem"], patches)]) + p["position"]
        x = oracle.transformer(p["transformer"], oracle.layer_norm(p["norm_pre"], x), activation="quick_gelu")
        np.testing.assert_allclose(got[row], x[0] @ p["projection"]["kernel"], atol=5e-5)


def test_siglip_vit_equals_float64_numpy(pictures):
    vit = flat(ViT, **SMALL, pooling="map")
    params = oracle.params_of(vit, pictures)
    p = oracle.as64(params)["params"]
    patches = cut(np.asarray(pictures[0], np.float64) / 127.5 - 1)
    x = oracle.transformer(p["transformer"], oracle.dense(p["stem"], patches) + p["position"])
    np.testing.assert_allclose(
        oracle.apply(vit, params, pictures)[0], oracle.attention_pool(p["attention_pool"], x), atol=5e-5
    )


def test_a_norm_of_the_mean_of_the_patches_equals_float64_numpy(pictures):
    """CLIPA's: the CLS is attended to, and isn't in the mean."""
    vit = flat(ViT, **SMALL, cls=True, pooling="patches", norm_pooled=True)
    params = oracle.params_of(vit, pictures)
    p = oracle.as64(params)["params"]
    norm = {"scale": 1.5 + np.arange(16.0), "bias": np.arange(16.0)}
    params["params"]["norm_post"] = jax.tree.map(np.float32, norm)
    patches = cut(np.asarray(pictures[0], np.float64) / 127.5 - 1)
    x = np.concatenate([p["cls"][None], oracle.dense(p["stem"], patches)]) + p["position"]
    x = oracle.transformer(p["transformer"], x)
    assert "norm" not in p["transformer"]
    wanted = oracle.layer_norm(norm, x[1:].mean(0))
    np.testing.assert_allclose(oracle.apply(vit, params, pictures)[0], wanted, rtol=2e-5, atol=5e-5)
    with pytest.raises(UserError, match=r"norm_pooled=True goes with .* not with norm='pre' and pooling='map'"):
        abstract(flat(ViT, **SMALL, pooling="map", norm_pooled=True), pictures)


def test_patches_are_the_normalised_pixels_on_the_grid(pictures):
    vit = flat(ViT, **SMALL, pooling="mean", positions="sincos")
    patches, real = oracle.apply(vit, {}, pictures, method="patches")
    assert vit.grid(pictures) == (2, 3)
    assert real.all()
    want = np.stack([cut(p) for p in np.asarray(pictures, np.float64)]) / 127.5 - 1
    np.testing.assert_allclose(patches, want, atol=1e-6)


@pytest.mark.parametrize("fields", [{**CLIP}, {"positions": "sincos", "pooling": "mean"}])
def test_kept_tokens_are_those_of_a_stack_on_them_alone(pictures, fields):
    vit = flat(ViT, **SMALL, **fields)
    params = oracle.params_of(vit, pictures)
    keep = np.array([[4, 0, -1, 2], [1, 5, 3, -1], [-1, 2, 4, 0]])
    tokens, real = oracle.apply(vit, params, pictures, keep=keep, method="tokens")
    prefix = vit.prefix
    np.testing.assert_array_equal(real[:, prefix:], keep >= 0)
    assert real[:, :prefix].all()
    full = np.stack([row[row >= 0] for row in keep])  # without the empty slots
    alone, _ = oracle.apply(vit, params, pictures, keep=full, method="tokens")
    np.testing.assert_allclose(tokens[real].reshape(alone.shape), alone, atol=2e-6)
    filled, _ = oracle.apply(vit, params, pictures, keep=np.arange(6)[None].repeat(3, 0), method="tokens")
    np.testing.assert_allclose(filled, oracle.apply(vit, params, pictures, method="tokens")[0], atol=2e-6)
    embedding = oracle.apply(vit, params, tokens, real, method="pool")
    filled = np.where(real[..., None], tokens, np.float32(9))
    np.testing.assert_allclose(embedding, oracle.apply(vit, params, filled, real, method="pool"), atol=1e-6)


def test_the_order_of_keep_is_the_order_of_tokens(pictures):
    vit = flat(ViT, **SMALL, **MAE)
    params = oracle.params_of(vit, pictures)
    keep = np.array([[4, 0, 2]] * 3)
    a, _ = oracle.apply(vit, params, pictures, keep=keep, method="tokens")
    b, _ = oracle.apply(vit, params, pictures, keep=keep[:, ::-1], method="tokens")
    np.testing.assert_allclose(a[:, 1:], b[:, :0:-1], atol=2e-6)
    np.testing.assert_allclose(a[:, 0], b[:, 0], atol=2e-6)


def test_bfloat16_tower_gives_a_float32_embedding_from_float32_parameters(pictures):
    vit = flat(ViT, **SMALL, **CLIP, embed_dim=8, dtype="bfloat16")
    variables = abstract(vit, pictures)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    params = oracle.params_of(vit, pictures)
    tokens, _ = jax.eval_shape(lambda p: vit.apply(p, pictures, method="tokens"), params)
    assert tokens.dtype == jnp.bfloat16
    assert jax.eval_shape(vit.apply, params, pictures).dtype == jnp.float32


def test_logical_axes(pictures):
    specs = nn.get_partition_spec(abstract(flat(ViT, **SMALL, **CLIP, embed_dim=8), pictures))["params"]
    assert specs["stem"]["kernel"] == PartitionSpec("patch", "embed")
    assert specs["position"] == PartitionSpec("position", "embed")
    assert specs["cls"] == PartitionSpec("embed")
    assert specs["projection"]["kernel"] == PartitionSpec("embed", "joint")


def test_initial_deviations_equal_theory():
    vit = flat(ViT, patch=4, size=64, width=64, depth=1, heads=2, embed_dim=256, **CLIP)
    init = jax.jit(lambda: meta.unbox(vit.init(jax.random.key(0), np.zeros((1, 64, 64, 3), np.uint8))))
    p = init()["params"]
    assert np.std(p["position"]) == pytest.approx(64**-0.5, rel=0.02)
    assert np.std(p["projection"]["kernel"]) == pytest.approx(64**-0.5, rel=0.02)
    assert np.std(p["stem"]["kernel"]) == pytest.approx((2 / (48 + 64)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("patch", "width", "depth", "heads", "embed_dim", "parameters"),
    [(32, 768, 12, 12, 512, 87_849_216), (16, 768, 12, 12, 512, 86_192_640), (14, 1024, 24, 16, 768, 303_966_208)],
)
def test_clip_parameters(patch, width, depth, heads, embed_dim, parameters):
    vit = flat(ViT, patch=patch, size=224, width=width, depth=depth, heads=heads, embed_dim=embed_dim, **CLIP)
    assert count(abstract(vit, np.zeros((1, 224, 224, 3), np.uint8))) == parameters


def test_siglip_parameters():
    vit = ViT(patch=16, size=224, blocks=Blocks(width=768, depth=12, heads=12), pooling="map")
    assert count(abstract(vit, np.zeros((1, 224, 224, 3), np.uint8))) == 92_884_224


@pytest.mark.parametrize(
    ("patch", "width", "depth", "encoder", "both"),
    [
        (16, 768, 12, 85_647_360, 111_655_680),
        (16, 1024, 24, 303_099_904, 329_239_296),
        (14, 1280, 32, 630_435_840, 656_613_964),
    ],
)
def test_mae_parameters(patch, width, depth, encoder, both):
    vit = flat(ViT, patch=patch, size=224, width=width, depth=depth, heads=16, **MAE)
    assert count(abstract(vit, np.zeros((1, 224, 224, 3), np.uint8))) == encoder
    side = 224 // patch
    decoder = Decoder(blocks=Blocks(width=512, depth=8, heads=16), out_dim=patch * patch * 3)
    inputs = np.zeros((1, 11, width), np.float32), np.ones((1, 11), bool), np.zeros((1, 10), np.int32)
    assert encoder + count(jax.eval_shape(lambda: decoder.init(jax.random.key(0), *inputs, (side, side), 1))) == both


@pytest.mark.parametrize(
    ("fields", "side", "message"),
    [
        ({}, (8, 10), "8x10 pixels don't divide into patches of 4x4"),
        ({}, (8, 8), r"8x8 pixels have \(2, 2\) patches, but learned positions are for \(2, 3\)"),
        ({"pooling": "cls"}, (8, 12), "needs cls=True"),
        ({"positions": "sinkos"}, (8, 12), "positions='sinkos' .* did you mean sincos"),
        ({"pooling": "mop"}, (8, 12), "pooling='mop' .* did you mean map"),
    ],
)
def test_errors_say_what_would_do(fields, side, message):
    with pytest.raises(UserError, match=message):
        abstract(flat(ViT, **{**SMALL, "pooling": "mean", **fields}), np.zeros((1, *side, 3), np.uint8))


def test_pixels_that_fill_no_patch_are_left_out_where_that_is_asked_for():
    fields = {"patch": 4, "width": 8, "depth": 1, "heads": 2, "pooling": "mean"}
    x = np.random.default_rng(0).integers(0, 256, (2, 11, 10, 3)).astype(np.uint8)
    wide, narrow = flat(ViT, size=(11, 10), drop_rest=True, **fields), flat(ViT, size=8, **fields)
    assert wide.grid(x) == wide.capacity() == (2, 2)
    variables = oracle.params_of(narrow, x[:, :8, :8])
    got, want = oracle.apply(wide, variables, x), oracle.apply(narrow, variables, x[:, :8, :8])
    np.testing.assert_array_equal(got, want)
    with pytest.raises(UserError, match="don't divide into patches"):
        flat(ViT, size=(11, 10), **fields).capacity()


def test_without_blocks_its_tokens_are_embeddings_of_the_patches(pictures):
    """ViLT's patches: a linear map and positions, no block and no LayerNorm, and dropout before what follows."""
    tower = flat(ViT, **SMALL | {"depth": 0}, cls=True, pooling="mean", dropout=0.5)
    params = oracle.params_of(tower, pictures)
    assert set(params["params"]) == {"stem", "position", "cls"}
    p = oracle.as64(params)["params"]
    got, mask = oracle.apply(tower, params, pictures, method="tokens")
    for picture, tokens in zip(pictures, got, strict=True):
        patches = oracle.dense(p["stem"], (cut(picture) / 255 - 0.5) / 0.5)
        np.testing.assert_allclose(tokens, np.concatenate([p["cls"][None], patches]) + p["position"], atol=2e-5)
    assert mask.all()
    dropped, _ = tower.apply(params, pictures, train=True, rngs={"dropout": jax.random.key(0)}, method="tokens")
    assert 0.3 < np.mean(np.asarray(dropped) == 0) < 0.7
