"""Masked words with the picture: the loss by hand, for any cut, with the picture lacking, and what doesn't fit."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, Cross
from mmjax.objectives import MaskedText, Pretrainer, View
from mmjax.objectives.contract import present
from tests.objectives.toys import VOCAB, WIDTH, ToyTower, assert_same, stems, toy_batch

B = 12
READER = Cross(reader="text", blocks=Blocks(width=WIDTH, depth=1, heads=2))
WORDS = MaskedText(vocab=VOCAB, rate=0.5, fusion="reader", beside=("image",))
KEYS = {"mask": jax.random.key(5)}


def batch() -> Any:
    return {name: x for name, x in toy_batch(B).items() if "audio" not in name}


def build(microbatches: int = 1, **others: Any) -> Any:
    towers = {name: ToyTower(name) for name in ("image", "text")}
    return Pretrainer(towers, {"words": WORDS, **others}, microbatches=microbatches, fusions={"reader": READER})


@pytest.fixture(scope="module")
def variables() -> Any:
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(build().init, jax.random.key(0), batch()))
    return jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)


def gradient(pretrainer: Any, variables: Any) -> Any:
    run = jax.value_and_grad(lambda v: pretrainer.apply(v, batch(), rngs=KEYS), has_aux=True)
    return jax.jit(run)(variables)


def test_the_cut_changes_nothing_and_each_view_is_encoded_once(variables: Any) -> None:
    assert_same(gradient(build(3), variables), gradient(build(), variables), 1e-5)
    assert stems(build(), batch()) == 2
    # Words that are masked alike for the text alone are the same view.
    assert stems(build(alone=MaskedText(vocab=VOCAB, rate=0.5)), batch()) == 2


def test_it_is_the_cross_entropy_of_the_hidden_words_after_the_fusion(variables: Any) -> None:
    """Tower, fusion and head by hand, row by row; a row without its picture reads the words alone."""
    params, given = variables["params"], present(batch())
    loss, metrics = build().apply(variables, batch(), train=False, rngs=KEYS)
    key = build().apply({}, method=lambda self: self.make_rng("mask"), rngs=KEYS)
    ids, mask = jnp.asarray(given["text"]), jnp.asarray(given["text_mask"])
    view = View("text", WORDS.corrupt)
    corrupted, chosen = WORDS.corrupt.draw(view.key(key), jnp.asarray(given["index"]), ids, mask)
    total, hits, count = 0.0, 0, 0
    held = params["objectives_words"]
    for row in np.flatnonzero(given["text_valid"]):
        own = slice(row, row + 1)
        tokens = {}
        for name, x, there in (("text", corrupted[own], mask[own]), ("image", given["image"][own], None)):
            tower = ToyTower(name)
            tokens[name] = tower.apply({"params": params[f"towers_{name}"]}, x, there, method="tokens")
        x, real = tokens["image"]
        tokens["image"] = (x, real & bool(given["image_valid"][row]))
        fused, _ = READER.apply({"params": params["fusions_reader"]}, tokens)  # pyright: ignore
        for place in np.flatnonzero(np.asarray(chosen[row])):
            x = fused["text"][0][0, place]
            x = nn.gelu(x @ held["dense"]["kernel"] + held["dense"]["bias"], approximate=False)
            x = (x - x.mean()) / jnp.sqrt(x.var() + 1e-6) * held["norm"]["scale"] + held["norm"]["bias"]
            logits = x @ held["words"]["kernel"] + held["words"]["bias"]
            total += optax.softmax_cross_entropy_with_integer_labels(logits, ids[row, place])
            hits, count = hits + int(jnp.argmax(logits) == ids[row, place]), count + 1
    assert count > B
    np.testing.assert_allclose(loss, total / count, rtol=1e-4)
    np.testing.assert_allclose(metrics["words/accuracy"], hits / count, rtol=1e-5)


def test_a_fusion_without_anything_beside_is_refused() -> None:
    for objective in (MaskedText(vocab=9, fusion="reader"), MaskedText(vocab=9, beside=("image",))):
        with pytest.raises(UserError, match=r"o has fusion=.* and beside=.*: set both"):
            objective.check_parts("o", {"text": ToyTower("text")}, {})
