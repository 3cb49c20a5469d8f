"""Captions by a recurrent decoder: the penalty on where it looks, and the mean of sums, whatever the cut and mesh."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models import DecoderBlocks, LinearProjector, RecurrentDecoder, TextDecoder
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Caption, Pretrainer
from mmjax.objectives.caption import doubly_stochastic
from mmjax.runtime.mesh import ACTIVATION_RULES, state_shardings
from tests.objectives.toys import SIZES, VOCAB, ToyTower, assert_same, toy_batch

B, LENGTH = 16, SIZES["text"] - 1
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}
ATTENDING: dict[str, Any] = {"context": {"image": None}}


def decoder_of(**fields: Any) -> RecurrentDecoder:
    sizes: dict[str, Any] = {"vocab": VOCAB, "length": LENGTH, "width": 8, "embed_width": 6, "attention_width": 4}
    return RecurrentDecoder(**(sizes | fields))


def batch() -> Any:
    """One text has a first word alone, and one is of a row without any."""
    found = {name: x for name, x in toy_batch(B).items() if "audio" not in name}
    found["text_mask"][4, 1:] = False
    return found


def build(microbatches: int = 1, dropout: float = 0.3, view: Any = ATTENDING, **fields: Any) -> Any:
    decoder = decoder_of(**view, dropout=dropout, input_dropout=dropout)
    fields = {"attention_penalty": 0.7, "mean": "sums", **fields}
    objectives = {"caption": Caption(decoder, reads=("image",), **fields)}
    return Pretrainer({"image": ToyTower("image")}, objectives, microbatches=microbatches)


def drawn(pretrainer: Any) -> Any:
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(pretrainer.init, jax.random.key(0), batch()))
    return jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(build())


def gradient(pretrainer: Any) -> Any:
    return jax.jit(
        jax.value_and_grad(lambda variables, batch: pretrainer.apply(variables, batch, rngs=KEYS), has_aux=True)
    )


@pytest.fixture(scope="module")
def whole(variables: Any) -> Any:
    return gradient(build())(variables, batch())


@pytest.mark.parametrize("microbatches", [2, 4])
def test_the_cut_changes_nothing(microbatches: int, variables: Any, whole: Any) -> None:
    assert_same(gradient(build(microbatches))(variables, batch()), whole, 1e-5)


@pytest.mark.parametrize("shape", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_a_mesh_changes_nothing(shape: tuple[int, ...], variables: Any, whole: Any) -> None:
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    held = jax.device_put(variables, state_shardings(jax.eval_shape(build().init, jax.random.key(0), batch()), mesh))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build())(held, rows), whole, 1e-5)


@pytest.mark.parametrize("alone", [False, True])
def test_the_loss_is_that_of_one_caption_after_the_other(alone: bool, variables: Any) -> None:
    """Each row by itself, cut to its words; the penalty by loops, in float64."""
    given, pretrainer = batch(), build(dropout=0.0, alone=alone)
    loss, metrics = jax.jit(lambda: pretrainer.apply(variables, given, train=False, rngs=KEYS))()
    params, decoder = variables["params"], decoder_of(**ATTENDING)
    encode: Any = ToyTower("image").apply
    tokens, _ = encode({"params": params["towers_image"]}, given["image"], method="tokens")
    own = {"params": params["objectives_caption"]["decoder"]}
    sums, penalties = [], []
    for row in range(B):
        pictured = given["image_valid"][row]
        words = given["text"][row][given["text_mask"][row]]
        if not given["text_valid"][row] or not (alone or pictured) or len(words) < 2:
            continue
        real = np.full((1, SIZES["image"]), pictured)

        def written(decoder: Any, ids: Any, tokens: Any, real: Any) -> Any:
            seen = decoder.attending(ids, None, {"image": (tokens, real)})
            return decoder.logits(seen.states), seen.weights

        apply: Any = decoder.apply
        logits, weights = apply(own, words[None, :-1], tokens[row : row + 1], real, method=written)
        logits, weights = np.asarray(logits[0], np.float64), np.asarray(weights[0], np.float64)
        top = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(words) - 1), words[1:]]
        sums.append(sum(top))
        penalty = 0.0
        for i in range(SIZES["image"] if pictured else 0):
            penalty += (1 - sum(weights[t, i] for t in range(len(words) - 1))) ** 2
        penalties.append(penalty)
    assert min(penalties) == 0 if alone else min(penalties) > 0.5
    assert len(sums) == (B - 2 if alone else B - 3)
    np.testing.assert_allclose(metrics["caption/attention_penalty"], np.mean(penalties), rtol=1e-5)
    np.testing.assert_allclose(loss, np.mean(sums) + 0.7 * np.mean(penalties), rtol=1e-5)


def test_the_weights_gradient_goes_through_the_penalty(variables: Any) -> None:
    """By differences, along the gradient."""
    pretrainer = build(dropout=0.0)

    def penalty(variables: Any) -> Any:
        return pretrainer.apply(variables, batch(), train=False, rngs=KEYS)[1]["caption/attention_penalty"]

    value, slope = jax.jit(jax.value_and_grad(penalty))(variables)
    own = slope["params"]["objectives_caption"]["decoder"]
    assert np.any(own["attention"]["score"])
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(slope)))
    step = 1e-2 / norm
    moved = [jax.jit(penalty)(jax.tree.map(lambda x, g, s=s: x + s * step * g, variables, slope)) for s in (-1, 1)]
    np.testing.assert_allclose((moved[1] - moved[0]) / 2, step * norm**2, rtol=0.02)
    assert moved[0] < value


def test_an_even_look_is_penalised_as_the_formula_says() -> None:
    """T words that look at L tokens evenly: L (1 - T / L)^2; none where each token is looked at once."""
    weights = jnp.full((2, 4, 5), 1 / 5)
    words, tokens = jnp.arange(4) < jnp.array([[4], [3]]), jnp.ones((2, 5), bool)
    np.testing.assert_allclose(
        doubly_stochastic(weights, words, tokens), [5 * (1 / 5) ** 2, 5 * (2 / 5) ** 2], rtol=1e-6
    )
    once = jnp.eye(5)[None, :4]
    np.testing.assert_allclose(doubly_stochastic(once, words[:1], jnp.arange(5)[None] < 4), 0)
    np.testing.assert_allclose(doubly_stochastic(once, words[:1], tokens[:1]), 1)


@pytest.mark.parametrize("view", [ATTENDING, {"prefix": {"image": LinearProjector()}}])
def test_it_starts_near_the_logarithm_of_the_vocabulary(view: Any) -> None:
    pretrainer = build(view=view, mean="tokens", attention_penalty=0.0)
    variables = nn.unbox(pretrainer.init(KEYS | {"params": jax.random.key(0)}, batch()))
    loss, metrics = pretrainer.apply(variables, batch(), train=False)
    np.testing.assert_allclose(loss, np.log(VOCAB), atol=0.02)
    assert "caption/attention_penalty" not in metrics


@pytest.mark.parametrize(
    ("fields", "decoder", "message"),
    [
        ({"mean": "words"}, decoder_of(**ATTENDING), "o.mean='words' is not one of tokens, texts, sums"),
        ({"attention_penalty": -1.0}, decoder_of(**ATTENDING), "o.attention_penalty=-1.0 is 0, or above 0 with"),
        (
            {"attention_penalty": 1.0},
            decoder_of(prefix={"image": LinearProjector()}),
            r"o.decoder is a RecurrentDecoder with context=\[\]",
        ),
        (
            {"attention_penalty": 1.0},
            TextDecoder(
                vocab=VOCAB,
                length=LENGTH,
                blocks=DecoderBlocks(width=8, depth=1, heads=2),
                cross="after",
                context={"image": None},
            ),
            "o.decoder is a TextDecoder with context=.'image'.",
        ),
        ({"reads": ()}, decoder_of(**ATTENDING), r"o.reads=\(\) and o.decoder reads image"),
    ],
)
def test_what_does_not_fit_is_refused(fields: Any, decoder: Any, message: str) -> None:
    inputs = {"text": Incoming((LENGTH + 1,), "int32", pieces=VOCAB)}
    Caption(decoder_of(**ATTENDING), reads=("image",), attention_penalty=1.0).check_parts("o", {}, inputs)
    with pytest.raises(UserError, match=message):
        Caption(decoder, **({"reads": ("image",)} | fields)).check_parts("o", {}, inputs)
