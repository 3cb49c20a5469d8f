from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.fusion.contract import reads_embeddings
from mmjax.models.fusion.exchange import Exchange
from tests.models import oracle
from tests.models.fusion.embedded import KEYS, THERE, remaining

NAMES = ("depth", "picture", "sound")
WIDTH, HIDDEN, PLACES = 4, 6, 3
FUSION: Any = Exchange(depth=2, hidden=HIDDEN, threshold=0.5)
MASKS: np.ndarray = THERE[:, :, None] & np.random.default_rng(2).random((len(THERE), 3, PLACES)).round().astype(bool)


def given(masks=MASKS, names=NAMES[::-1], lacking=np.nan) -> dict[str, Any]:
    found = {}
    for place, name in enumerate(NAMES):
        x = np.random.default_rng(place).normal(size=(len(masks), PLACES, WIDTH)).astype(np.float32)
        found[name] = (np.where(masks[:, place, :, None], x, np.float32(lacking)), masks[:, place])
    return {name: found[name] for name in names}


@pytest.fixture(scope="module")
def params():
    """Some gains are below the threshold in one input, some in two, some in all."""
    drawn = oracle.params_of(FUSION, given())
    gains = np.random.default_rng(5)
    for name in NAMES:
        drawn["params"][f"norm_{name}"]["scale"] = gains.uniform(-1, 1, (2, HIDDEN)).astype(np.float32)
    small = np.sum([np.abs(drawn["params"][f"norm_{name}"]["scale"]) < 0.5 for name in NAMES], axis=0)
    assert {0, 1, 2} <= set(small.ravel())
    return drawn


def twin(p, tokens):
    """tokens: of one example, {(input, place): vector} of the real ones."""
    x = dict(tokens)
    for block in range(2):
        normed = {}
        for (name, place), token in x.items():
            h = oracle.dense(p[f"in_{block}"], token)
            own = {what: p[f"norm_{name}"][what][block] for what in ("scale", "bias")}
            normed[name, place] = oracle.layer_norm(own, h)
        for (name, place), token in x.items():
            h = normed[name, place].copy()
            others = [normed[other, place] for other in NAMES if other != name and (other, place) in x]
            for channel in range(HIDDEN):
                if abs(p[f"norm_{name}"]["scale"][block][channel]) < 0.5 and others:
                    h[channel] = np.mean([other[channel] for other in others])
            x[name, place] = token + oracle.dense(p[f"out_{block}"], oracle.ACTIVATIONS["gelu"](h))
    here = sorted({name for name, _ in x})
    if not here:
        return x, np.zeros(WIDTH)
    weights = oracle.softmax(np.array([p[f"weight_{name}"] for name in here]))
    means = [np.mean([token for (name, _), token in x.items() if name == one], axis=0) for one in here]
    return x, weights @ means


def test_equals_plain_numpy(params):
    p, tokens = oracle.as64(params)["params"], given()
    there = np.asarray(MASKS.any(axis=2))
    left = remaining(there, 0.6, KEYS)
    assert (left != there).any()
    dropping = FUSION.clone(drop_inputs=0.6)
    for got, here in (
        (oracle.apply(FUSION, params, tokens), there),
        (oracle.apply(dropping, params, tokens, train=True, keys=KEYS), left),
    ):
        assert got[1].dtype == np.float32
        for row in range(len(there)):
            real = {
                (name, place): np.float64(tokens[name][0][row, place])
                for number, name in enumerate(NAMES)
                for place in range(PLACES)
                if MASKS[row, number, place] and here[row, number]
            }
            want, embedding = twin(p, real)
            np.testing.assert_allclose(got[1][row], embedding, atol=1e-5)
            assert {(name, k) for name in NAMES for k in range(PLACES) if got[0][name][1][row, k]} == set(want)
            for (name, place), token in want.items():
                np.testing.assert_allclose(got[0][name][0][row, place], token, atol=1e-5)


def test_what_is_missing_gets_no_gradient_and_makes_no_nan(params):
    masks = {name: mask for name, (_, mask) in given().items()}

    def total(params: Any, vectors: Any) -> Any:
        out, embedding = FUSION.apply(params, {name: (x, masks[name]) for name, x in vectors.items()})
        some = sum(jnp.sum(jnp.where(mask[..., None], x, 0) ** 2) for x, mask in out.values())
        return some + jnp.sum(embedding**2)

    vectors = {name: x for name, (x, _) in given().items()}
    value, (by_params, by_vectors) = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(params, vectors)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, by_params)))
    for name, mask in masks.items():
        np.testing.assert_array_equal(by_vectors[name][~mask], 0)
        assert np.abs(by_vectors[name][mask]).max() > 1e-3


def test_what_a_channel_replaces_has_no_gradient_and_what_it_takes_has_one():
    """One block, one channel of the first input's gains below the threshold."""
    fusion: Any = Exchange(threshold=0.5)
    tokens = given(np.ones((2, 3, PLACES), bool), NAMES[:2])
    drawn = oracle.params_of(fusion, tokens)
    scale = np.ones((1, WIDTH), np.float32)
    drawn["params"]["norm_depth"]["scale"] = np.where(np.arange(WIDTH) == 1, 0.4, scale).astype(np.float32)
    drawn["params"]["norm_picture"]["scale"] = scale

    def total(params: Any) -> Any:
        return fusion.apply(params, tokens)[0]["depth"][0].sum()

    found = jax.jit(jax.grad(total))(drawn)["params"]
    assert np.flatnonzero(found["norm_depth"]["bias"][0] == 0).tolist() == [1]
    assert np.flatnonzero(found["norm_picture"]["bias"][0]).tolist() == [1]


def test_gains_above_the_threshold_exchange_nothing(params):
    apart = FUSION.clone(threshold=0.0)
    both, changed = given(np.ones_like(MASKS)), given(np.ones_like(MASKS))
    changed["sound"] = (changed["sound"][0] + 1, changed["sound"][1])
    one, other = (oracle.apply(apart, params, tokens)[0] for tokens in (both, changed))
    np.testing.assert_array_equal(one["depth"][0], other["depth"][0])
    one, other = (oracle.apply(FUSION, params, tokens)[0] for tokens in (both, changed))
    assert (one["depth"][0] != other["depth"][0]).any()


def test_the_penalty_is_on_parts_that_are_each_inputs_own(params):
    class Trained(nn.Module):
        fusion: Any

        def __call__(self, tokens: Any) -> Any:
            self.fusion(tokens)
            return self.fusion.penalty()

    held = {"params": {"fusion": params["params"]}}
    value, gradient = jax.jit(jax.value_and_grad(lambda p: Trained(FUSION).apply(p, given())))(held)
    want = 0.0
    for place, name in enumerate(NAMES):  # six channels, three inputs: two each
        own = slice(2 * place, 2 * place + 2)
        scale, by = (tree["params"]["fusion"][f"norm_{name}"]["scale"] for tree in (held, gradient))
        want += np.abs(scale[:, own]).sum()
        assert np.flatnonzero(np.any(by != 0, axis=0)).tolist() == [2 * place, 2 * place + 1]
        np.testing.assert_array_equal(by[:, own], np.sign(scale[:, own]))
    assert value == pytest.approx(want, rel=1e-6)
    started = jax.jit(Trained(FUSION).init_with_output)(jax.random.key(0), given())[0]
    assert started == 2 * HIDDEN  # each channel's gain of 1, of one input, in both blocks
    with pytest.raises(UserError, match="has no gains before it was first called"):
        FUSION.apply({}, method="penalty")


def test_the_order_of_the_mapping_changes_nothing(params):
    found = []
    for names in (NAMES, NAMES[::-1]):
        out, embedding = jax.jit(lambda p, names=names: FUSION.apply(p, given(names=names)))(params)
        found.append((embedding, [out[name][0] for name in NAMES]))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not reads_embeddings(FUSION)


@pytest.mark.parametrize(
    ("changes", "tokens", "message"),
    [
        ({}, given(names=("depth",)), "an Exchange fuses .* at least two inputs, and was given depth: add"),
        (
            {},
            {"a": (np.zeros((1, 2, 3)), np.ones((1, 2), bool)), "b": (np.zeros((1, 2, 4)), np.ones((1, 2), bool))},
            r"tokens \[N, D\] of {'a': \(2, 3\), 'b': \(2, 4\)}: .* must be equal",
        ),
        ({"depth": 0}, given(), "depth=0 and hidden=6 of an Exchange must be at least 1"),
        ({"activation": "tanh"}, given(), "activation='tanh' is not one of"),
        ({"drop_inputs": -1.0}, given(), "drop_inputs=-1.0 is not a rate"),
    ],
)
def test_what_it_cannot_fuse_is_refused(changes, tokens, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(FUSION.clone(**changes).init, jax.random.key(0), tokens)
