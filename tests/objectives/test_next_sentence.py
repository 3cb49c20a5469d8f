"""Next-sentence prediction against numpy, beside masked words in one encoding."""

import math
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.towers.text import TextTransformer
from mmjax.objectives.contract import Context, View
from mmjax.objectives.encoded import Encoded
from mmjax.objectives.masked import MaskedText
from mmjax.objectives.masking import Corrupt
from mmjax.objectives.next_sentence import NextSentence
from mmjax.objectives.pretrainer import Pretrainer
from tests.flat import flat

B, VOCAB, SEP, MASK = 6, 120, 102, 103
CORRUPT = Corrupt(vocab=VOCAB, mask_id=MASK, first_id=MASK + 1)


def test_it_equals_numpy_over_the_valid_rows_alone() -> None:
    random = np.random.default_rng(0)
    embedding = random.normal(size=(B, 5)).astype(np.float32)
    embedding[1] = np.nan
    encoded = {View("text"): Encoded(None, None, embedding, 0)}  # pyright: ignore
    batch: Any = {"text_next": np.array([1, 1, 0, 0, 1, 0], bool), "text_valid": np.array([1, 0, 1, 1, 1, 1], bool)}
    kernel, bias = random.normal(size=(5, 2)).astype(np.float32), np.array([0.3, -0.2], np.float32)
    params = {"params": {"classify": {"kernel": kernel, "bias": bias}}}

    def loss_of(params: Any) -> Any:
        outputs: Any = NextSentence().apply(params, encoded, batch, Context(), method="per_example")
        return NextSentence().batch_loss(outputs, batch)

    (loss, metrics), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(params)
    rows = batch["text_valid"]
    logits = np.asarray(embedding[rows], np.float64) @ kernel + bias
    right = np.where(batch["text_next"][rows], 0, 1)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(right)), right]
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], (logits.argmax(1) == right).mean(), rtol=1e-6)
    of_kernel = gradient["params"]["classify"]["kernel"]
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(2)[right]
    np.testing.assert_allclose(of_kernel, np.asarray(embedding[rows]).T @ share / len(right), rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="the batch has no 'text_next'"):
        NextSentence().apply(params, encoded, {}, Context(), method="per_example")


def bert(**changes: Any) -> Pretrainer:
    """BERT, small: post-LN, two types of tokens, tanh of a projection of [CLS], a tied head."""
    size: dict[str, Any] = {"width": 16, "depth": 1, "heads": 2, "embed_dim": 16, "inits": "bert", "norm": "post"}
    tower = flat(
        TextTransformer,
        vocab=VOCAB,
        length=9,
        types=2,
        pre_norm=True,
        pooling="cls",
        projection_tanh=True,
        projection_bias=True,
        **size,
    )
    masked = MaskedText(vocab=VOCAB, mask_id=MASK, first_id=MASK + 1, tied=True)
    return Pretrainer({"text": tower}, {"masked": masked, "next": NextSentence(CORRUPT)}, **changes)


def pairs(size: int = 8) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    ids = random.integers(MASK + 1, VOCAB, (size, 9)).astype(np.int32)
    ids[:, 0], ids[:, 4], ids[:, 8] = 101, SEP, SEP
    mask = np.ones((size, 9), bool)
    ids[0, 7], ids[0, 8], mask[0, 8] = SEP, 0, False
    types = (np.arange(9) > 4)[None] & mask
    labels = {"text_next": random.random(size) < 0.5, "text_valid": np.arange(size) != 2}
    labels["text_types"] = types.astype(np.int8)
    return {"text": ids, "text_mask": mask, "index": np.arange(size, dtype=np.uint32), **labels}


def test_both_read_one_encoding_and_start_at_their_logarithms_and_microbatches_change_nothing() -> None:
    batch, keys = pairs(), {"mask": jax.random.key(0)}
    assert {view for objective in bert().objectives.values() for view in objective.views()} == {View("text", CORRUPT)}
    variables: Any = nn.unbox(jax.jit(bert().init)({"params": jax.random.key(0), **keys}, batch))

    def gradient(pretrainer: Pretrainer) -> Any:
        def loss(variables: Any, batch: Any) -> Any:
            return pretrainer.apply(variables, batch, rngs=keys, train=False)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    in_one = gradient(bert())
    (loss, metrics), whole = in_one(variables, batch)
    np.testing.assert_allclose(metrics["masked/loss"], math.log(VOCAB), atol=0.1)  # over 8 tokens
    np.testing.assert_allclose(metrics["next/loss"], math.log(2), atol=0.1)
    np.testing.assert_allclose(loss, metrics["masked/loss"] + metrics["next/loss"], rtol=1e-6)
    assert 0 <= metrics["next/accuracy"] <= 1
    (alone, _), _ = in_one(variables, batch | {"text_types": 0 * batch["text_types"]})
    assert abs(alone - loss) > 1e-4  # a pair's tokens are of two types, which the batch tells
    (again, _), parts = gradient(bert(microbatches=4))(variables, batch)
    np.testing.assert_allclose(again, loss, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_special_tokens_of_berts_vocabulary_and_padding_are_never_chosen_nor_drawn() -> None:
    ids = np.tile(np.array([101, 105, 100, 106, SEP, 107, 108, SEP, 0], np.int32), (4_000, 1))
    mask = np.tile(np.arange(9) < 8, (4_000, 1))
    draw = jax.jit(Corrupt.draw, static_argnums=0)
    seen, chosen = draw(CORRUPT, jax.random.key(0), np.arange(4_000), ids, mask)
    assert set(np.flatnonzero(np.asarray(chosen).any(axis=0))) == {1, 3, 5, 6}
    drawn = np.asarray(seen)[np.asarray(seen) != ids]
    assert set(drawn) == set(range(MASK, VOCAB))
    behind = Corrupt(vocab=107, mask_id=MASK, first_id=MASK + 1)  # special ones may stand behind the words, as CLIP's
    _, chosen = draw(behind, jax.random.key(0), np.arange(4_000), ids, mask)
    assert set(np.flatnonzero(np.asarray(chosen).any(axis=0))) == {1, 3}
    assert (np.asarray(chosen).sum(axis=1) == 1).all()  # 15 % of four, and one at least
