"""What every fusion of embeddings owes to its inputs, to those that are missing, and to an experiment's record."""

import dataclasses
from typing import Any

import fiddle as fdl
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data.pipeline import Mixture
from mmjax.errors import UserError
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.experiment.record import dumps, loads
from mmjax.models.fusion.contract import reads_embeddings
from mmjax.models.fusion.exchange import Exchange
from mmjax.models.fusion.gated import Gated
from mmjax.optim.optimizers import AdamW
from tests.models.fusion.embedded import FUSIONS, KEYS, SIZES, THERE, embedding, given, params_of, without

AS_WITHOUT = ("concatenated", "linear", "gated", "mean", "product", "vote", "learned")
each = pytest.mark.parametrize("name", FUSIONS)


@each
def test_values_gradients_and_tokens_where_inputs_are_missing(name):
    """Of values that are not numbers: nothing reaches the result, and the gradient that comes back is zero."""
    fusion, params = FUSIONS[name].clone(drop_inputs=0.4), params_of(FUSIONS[name])
    cotangent = np.random.default_rng(1).normal(size=(len(THERE), 5)).astype(np.float32)

    def total(params: Any, vectors: Any, train: bool) -> Any:
        tokens = {one: (vectors[one], mask) for one, (_, mask) in given().items()}
        out, found = fusion.apply(params, tokens, train=train, keys=KEYS)
        return jnp.sum(found * cotangent), (out, found)

    assert reads_embeddings(fusion)
    vectors = {one: x for one, (x, _) in given().items()}
    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True), static_argnums=2)
    for train in (False, True):
        (_, (out, found)), (by_params, by_vectors) = run(params, vectors, train)
        for leaf in jax.tree.leaves((found, by_params)):
            assert np.isfinite(leaf).all()
        for place, one in enumerate(sorted(SIZES)):
            np.testing.assert_array_equal(out[one][0], vectors[one])
            np.testing.assert_array_equal(by_vectors[one][~THERE[:, place]], 0)
        for gradients in (by_params, by_vectors):
            assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients)) > 1e-4


@each
def test_no_parameter_of_a_missing_input_matters(name):
    fusion, params = FUSIONS[name], params_of(FUSIONS[name])
    there = THERE & np.array([False, True, True])  # nobody has sound
    gradients = jax.jit(jax.grad(lambda params: fusion.apply(params, given(there))[1][:, 0].sum()))(params)
    of_audio = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
        if any(part.key.endswith("_audio") for part in path)
    }
    assert of_audio or name == "tensor"
    for path, leaf in of_audio.items():
        constant = "factor" in path  # whose first row stands for what is missing
        np.testing.assert_array_equal(leaf[:, 1:] if constant else leaf, 0, err_msg=path)


@pytest.mark.parametrize("name", AS_WITHOUT)
def test_an_example_that_lacks_an_input_is_fused_as_if_there_were_no_such_input(name):
    fusion = FUSIONS[name]
    if name == "gated":
        fusion = Gated(embed_dim=5, gates="independent")
    params = params_of(fusion)
    rows = ~THERE[:, 0]
    got = embedding(fusion, params, given())[rows]
    want = embedding(fusion, without(params, "audio"), given(names=("image", "text")))[rows]
    np.testing.assert_allclose(got, want, atol=1e-6)


@each
def test_the_order_of_the_mapping_changes_nothing(name):
    fusion, params = FUSIONS[name].clone(drop_inputs=0.4), params_of(FUSIONS[name])
    orders = [("text", "audio", "image"), ("image", "text", "audio")]

    def ordered(params: Any) -> Any:
        found = [fusion.apply(params, given(names=names), train=True, keys=KEYS) for names in orders]
        assert [tuple(tokens) for tokens, _ in found] == orders  # jit would sort them
        return [embedding for _, embedding in found]

    one, other = jax.jit(ordered)(params)
    np.testing.assert_array_equal(one, other)


@each
def test_an_example_is_fused_alike_however_the_batch_is_cut_up(name):
    fusion, params = FUSIONS[name].clone(drop_inputs=0.4), params_of(FUSIONS[name])
    whole, tokens = embedding(fusion, params, given(), train=True, keys=KEYS), given()
    part = {name: (x[5:], mask[5:]) for name, (x, mask) in tokens.items()}
    got = embedding(fusion, params, part, train=True, keys=KEYS[5:])
    np.testing.assert_allclose(got, whole[5:], atol=1e-6)


@each
def test_16_bits_are_computed_in_and_float32_comes_out(name):
    fusion, params = FUSIONS[name], params_of(FUSIONS[name])
    want = embedding(fusion, params, given())
    got = embedding(fusion.clone(dtype="bfloat16"), params, given())
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=0.1)
    assert (got != want).any()


def test_keys_are_made_where_none_are_given():
    fusion, params = Gated(embed_dim=5, drop_inputs=0.5), params_of(Gated(embed_dim=5))
    there = np.ones((64, 3), bool)
    run = jax.jit(lambda key: fusion.apply(params, given(there), train=True, rngs={"dropout": key})[1])
    found = [run(jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


@pytest.mark.parametrize("fusion", [*FUSIONS.values(), Exchange(hidden=7)], ids=[*FUSIONS, "exchange"])
def test_a_fusion_may_stand_in_an_experiments_record(fusion):
    fields = {f.name: getattr(fusion, f.name) for f in dataclasses.fields(fusion) if f.name not in ("parent", "name")}
    part = fdl.Config(type(fusion), **fields)
    whole = fdl.Config(
        Experiment,
        towers={},
        objectives={},
        data=fdl.Config(Mixture, {}, {}),
        optimizer=fdl.Config(AdamW, peak_lr=1e-3),
        batch_size=8,
        steps=20,
        fusions={"both": part},
    )
    text = dumps(whole)
    assert f'"@call": "models:{type(fusion).__name__}"' in text
    assert '"reads"' not in text
    assert build(loads(text).fusions["both"]) == fusion


@pytest.mark.parametrize(
    ("fusion", "tokens", "message"),
    [
        (
            "gated",
            given(names=("text",)),
            "a Gated fuses the embeddings of at least two inputs, and was given text: add",
        ),
        ("mean", {}, "a Late fuses .* was given none: add"),
        (
            "linear",
            {name: (np.zeros((2, 3, 4)), np.ones((2, 3), bool)) for name in ("a", "b")},
            "a Concatenated fuses embeddings, one token .* was given 3 tokens of 'a': pool them",
        ),
    ],
)
def test_other_inputs_are_refused(fusion, tokens, message):
    with pytest.raises(UserError, match=message):
        FUSIONS[fusion].init(jax.random.key(0), tokens)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("linear", {"embed_dim": 0}, "embed_dim=0 of a Concatenated must be a whole number, at least 1"),
        ("linear", {"hidden": (4, 0)}, "hidden=0 of a Concatenated must"),
        ("linear", {"hidden": (4,), "activation": "relu6"}, "activation='relu6' is not one of gelu"),
        ("linear", {"drop_inputs": 1.5}, "drop_inputs=1.5 is not a rate"),
        ("gated", {"gates": "complement"}, "gates='complement' is not one of .* did you mean complementary"),
        ("gated", {"gates": "complementary"}, "here are 3, audio, image, text: set gates='independent'"),
        (
            "tensor",
            {"width": 200},
            r"201 \(audio\) x 201 \(image\) x .* = 8,120,601 .*: set width=100 or less",
        ),
        ("low_rank", {"rank": 0}, "rank=0 of a LowRank must"),
        ("mean", {"rule": "votes"}, "rule='votes' is not one of mean, product, vote, learned; did you mean vote"),
        ("mean", {"classes": 1}, "classes=1 of a Late must be at least 2"),
    ],
)
def test_values_that_a_field_cannot_have_are_named(name, changes, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(FUSIONS[name].clone(**changes).init, jax.random.key(0), given())


def test_parameters_bear_logical_names():
    """Of each parameter one for each dimension, and no kernel the same name twice, which no mesh could shard."""
    for fusion in FUSIONS.values():
        shapes = jax.eval_shape(fusion.init, jax.random.key(0), given())
        leaves = jax.tree.leaves(shapes, is_leaf=lambda leaf: hasattr(leaf, "names"))
        for leaf in leaves:
            names = [name for name in leaf.names if name is not None]
            assert len(leaf.names) == len(leaf.value.shape)
            assert len(set(names)) == len(names)
