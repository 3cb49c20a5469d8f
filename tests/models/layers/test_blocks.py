"""What a value of blocks says, and that whatever holds one heeds all of it."""

import dataclasses
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.errors import UserError
from mmjax.models import Blocks, CoAttention, MultiwayTrunk
from mmjax.models.decoders.patches import Decoder
from mmjax.models.decoders.patches_and_words import JointDecoder, Kept
from mmjax.models.layers.divided import DividedTransformer
from mmjax.models.layers.transformer import Transformer
from mmjax.models.layers.window_attention import WindowTransformer
from mmjax.models.towers.shared_trunk import Trunk
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from tests.models import oracle

SMALL = Blocks(width=8, depth=2, heads=2)
TOKENS, MASK = np.ones((1, 3, 5), np.float32), np.ones((1, 3), bool)
KEEP: Any = np.array([[0, 2, 1]])
IDS = np.array([[1, 2, 3]])
REAL: Any = np.ones((1, 4), bool)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "sandwich"}, "norm='sandwich' is not one of pre, post"),
        ({"remat": "ful"}, r"remat='ful' is not one of full, dots; did you mean full\?"),
        ({"unroll": 0}, r"unroll=0 must be a whole number, from 1 \(a loop over the blocks\) to depth=2 \(no loop\)"),
        ({"unroll": True}, "unroll=True must be a whole number"),
        ({"heads": 3}, r"heads=3 does not divide width=8; these do: \[1, 2, 4, 8\]"),
    ],
)
def test_what_can_not_be_is_named(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **change).check()


def test_the_mlp_is_four_times_as_wide_where_nothing_else_is_said():
    assert SMALL.hidden == 32
    assert dataclasses.replace(SMALL, mlp_dim=9).hidden == 9


def shapes(module, *inputs, **more):
    made = jax.eval_shape(
        lambda: module.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, *inputs, **more)
    )
    return jax.tree.map(jnp.shape, nn.unbox(made["params"]))


def decoded(blocks, **more):
    return shapes(Decoder(blocks=blocks), TOKENS, MASK, KEEP, (2, 2), **more)


def decoded_together(blocks, **more):
    return shapes(JointDecoder(blocks=blocks), TOKENS, MASK, [Kept(KEEP[:, :2], (2, 2), REAL)], 1, **more)


def read(blocks, **more):
    return shapes(TextTransformer(vocab=5, length=3, blocks=blocks), IDS, **more)


def shared(blocks, **more):
    return shapes(Trunk(blocks=blocks), np.ones((1, 3, 8), np.float32), MASK, **more)


@pytest.mark.parametrize("holder", [decoded, decoded_together, read, shared])
def test_whoever_holds_blocks_heeds_norm_scale_and_choices(holder):
    plain = holder(SMALL)["transformer"]
    assert "norm" in plain
    assert plain["blocks"]["mlp"]["in"]["kernel"] == (2, 8, 32)
    post = holder(dataclasses.replace(SMALL, norm="post", layer_scale=0.1))["transformer"]
    assert "norm" not in post
    assert post["blocks"]["scale_mlp"]["scale"] == (2, 8)
    for change, message in (
        ({"attention": "cudn"}, "attention='cudn' is not one of"),
        ({"inits": "berd"}, "inits='berd' is not one of"),
        ({"dropout": 1.5}, r"dropout=1\.5 is not a rate"),
        ({"activation": "relu"}, "activation='relu' is not one of"),
        ({"remat": "some"}, "remat='some' is not one of"),
    ):
        with pytest.raises(UserError, match=message):
            holder(dataclasses.replace(SMALL, **change))


def windowed(blocks, **more):
    module = WindowTransformer(blocks=blocks, window=(2, 2), shift=(1, 1))
    return shapes(module, np.ones((1, 4, 8), np.float32), (2, 2), **more)


def divided(blocks, **more):
    return shapes(DividedTransformer(blocks), np.ones((1, 4, 8), np.float32), 2, **more)


def multiway(blocks, **more):
    trunk = MultiwayTrunk(blocks=blocks, ways=("image", "text"), joint=1)
    return shapes(trunk, np.ones((1, 4, 8), np.float32), REAL, ways=(("image", 2), ("text", 2)), **more)


def crossed(blocks, **more):
    context = np.ones((1, 2, 8), np.float32)
    return shapes(Transformer(blocks, cross=True), np.ones((1, 4, 8), np.float32), context=context, **more)


def coattending(blocks, **more):
    module = CoAttention(streams={"image": blocks, "text": blocks}, heads=2, shared=False, pooled="text")
    tokens = np.ones((1, 4, 8), np.float32), REAL
    return shapes(module, {"image": tokens, "text": tokens}, **more)


@pytest.mark.parametrize(
    "holder", [decoded, decoded_together, read, shared, windowed, divided, multiway, crossed, coattending]
)
def test_whoever_holds_blocks_leaves_out_the_biases_of_what_is_added(holder):
    """And no other parameter."""
    usual, without = (flatten_dict(holder(dataclasses.replace(SMALL, out_bias=bias))) for bias in (True, False))
    gone = {"/".join(path) for path in usual.keys() - without.keys()}
    assert gone
    assert without.keys() < usual.keys()
    last = {"/".join(path) for path in usual if re.search(r"(^|/)out(_\w+)?/bias$", "/".join(path))}
    blocks = {path for path in last if not path.startswith("attention_pool/")}
    assert gone == blocks
    assert all(without[path] == usual[path] for path in without)


def test_biases_of_zero_are_as_none_to_the_bit():
    given = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    with_biases = Transformer(SMALL)
    variables = nn.unbox(with_biases.init(jax.random.key(0), given))
    flat: Any = flatten_dict(variables)
    zero = {path: leaf for path, leaf in flat.items() if path[-2:] == ("out", "bias")}
    assert len(zero) == 2
    assert not any(leaf.any() for leaf in zero.values())
    rest = unflatten_dict({path: leaf for path, leaf in flat.items() if path not in zero})
    without = Transformer(dataclasses.replace(SMALL, out_bias=False))
    np.testing.assert_array_equal(with_biases.apply(variables, given), without.apply(rest, given))


@pytest.mark.parametrize("kind", [Decoder, JointDecoder])
def test_a_decoder_drops_out_in_training_by_each_examples_own_key(kind):
    decoder = kind(blocks=dataclasses.replace(SMALL, dropout=0.5))
    two: Any = [np.repeat(x, 2, axis=0) for x in (TOKENS, MASK, KEEP, REAL)]
    tokens, mask, keep, real = two

    def inputs(rows):
        if kind is Decoder:
            return tokens[rows], mask[rows], keep[rows], (2, 2)
        return tokens[rows], mask[rows], [Kept(keep[rows, :2], (2, 2), real[rows])], 1

    def run(rows=slice(None), **more):
        found = jax.jit(lambda more: decoder.apply(variables, *inputs(rows), train="keys" in more, **more))(more)
        return np.asarray(found if kind is Decoder else found[0])

    variables = oracle.params_of(decoder, *inputs(slice(None)))
    keys = jax.random.split(jax.random.key(1), 2)
    dropped, plain = run(keys=keys), run()
    assert not np.allclose(dropped, plain)
    assert not np.allclose(dropped[0], dropped[1])  # alike but for their keys
    np.testing.assert_allclose(dropped[1:], run(slice(1, None), keys=keys[1:]), atol=1e-6)
    np.testing.assert_allclose(plain[0], plain[1], atol=1e-6)


def test_a_tower_has_blocks_or_a_trunk():
    with pytest.raises(UserError, match=r"a ViT with blocks=None has no transformer: set blocks=Blocks\(width"):
        ViT(patch=4, size=8, pooling="mean").init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.uint8))


def test_a_tower_takes_sizes_and_dtype_of_its_trunk():
    trunk = Trunk(blocks=dataclasses.replace(SMALL, dtype="bfloat16"))
    tower = TextTransformer(vocab=5, length=3, trunk=trunk, pooling="map")
    assert tower.embedding_size == 8
    variables = nn.unbox(jax.eval_shape(tower.init, jax.random.key(0), IDS))
    assert variables["params"]["attention_pool"]["mlp"]["in"]["kernel"].shape == (8, 32)
    front = jax.eval_shape(lambda variables: tower.apply(variables, IDS, method="front"), variables)
    assert front[0].dtype == jnp.bfloat16
