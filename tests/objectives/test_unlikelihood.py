"""The unlikelihood of words that were there: the sum over a set, word by word."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import DecoderBlocks, TextDecoder
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Caption, Pretrainer
from mmjax.objectives.unlikelihood import LEAST, repeated_word_losses

VOCAB, B, L = 7, 5, 9


def words(packed: bool) -> tuple[Any, Any, Any, Any]:
    random = np.random.default_rng(0)
    logits = 3 * random.normal(size=(B, L, VOCAB))
    real = np.arange(L) < random.integers(2, L + 1, (B, 1))
    segments = np.sort(random.integers(0, 2, (B, L)), axis=1) if packed else np.zeros((B, L), int)
    return logits, random.integers(0, VOCAB, (B, L)), real, segments


@pytest.mark.parametrize("packed", [False, True])
def test_it_is_the_sum_over_the_set_of_words_before(packed: bool) -> None:
    logits, targets, real, segments = words(packed)
    given = jnp.asarray(logits, jnp.float32), jnp.asarray(targets), jnp.asarray(real)
    found = repeated_word_losses(*given, jnp.asarray(segments) if packed else None)
    chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for row in range(B):
        for place in range(L):
            before = [i for i in range(place) if real[row, i] and segments[row, i] == segments[row, place]]
            candidates = {targets[row, i] for i in before} - {targets[row, place]}
            wanted = -sum(np.log(1 - chances[row, place, c]) for c in candidates)
            np.testing.assert_allclose(found[row, place], wanted, rtol=2e-4)


def test_a_word_that_is_certain_to_come_again_has_a_finite_loss_and_gradient() -> None:
    logits = jnp.zeros((1, 3, VOCAB)).at[:, :, 2].set(200.0)
    targets, real = jnp.array([[2, 3, 4]]), jnp.ones((1, 3), bool)
    loss, gradient = jax.value_and_grad(lambda x: repeated_word_losses(x, targets, real).sum())(logits)
    np.testing.assert_allclose(loss, -2 * np.log(LEAST), rtol=2e-3)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("mean", ["tokens", "texts"])
def test_it_is_added_to_the_loss_by_its_weight_and_to_no_measure(mean: Any) -> None:
    decoder = TextDecoder(vocab=VOCAB, length=L, blocks=DecoderBlocks(width=8, depth=1, heads=2))
    _, ids, real, _ = words(False)
    batch = {"text": np.int32(ids), "text_mask": real, "text_valid": np.arange(B) != 1}
    plain, more = (Pretrainer({}, {"words": Caption(decoder, mean=mean, unlikelihood=weight)}) for weight in (0.0, 0.5))
    variables = plain.init({"params": jax.random.key(0), "mask": jax.random.key(1)}, batch)
    (loss, metrics), (whole, others) = (jax.jit(one.apply)(variables, batch) for one in (plain, more))
    assert "words/unlikelihood" not in metrics
    assert whole > loss
    assert others["words/accuracy"] == metrics["words/accuracy"]
    if mean == "tokens":
        np.testing.assert_allclose(whole, loss + 0.5 * others["words/unlikelihood"], rtol=1e-6)
    errors: Any = [each.apply(variables, batch, "words", method="word_errors") for each in (plain, more)]
    one, other = errors
    np.testing.assert_array_equal(one.total, other.total)
    assert other.unlikely[1] == 0


def test_a_weight_below_0_is_told() -> None:
    decoder = TextDecoder(vocab=VOCAB, length=L, blocks=DecoderBlocks(width=8, depth=1, heads=2))
    with pytest.raises(UserError, match=r"o.unlikelihood=-1.0 must be at least 0"):
        Caption(decoder, unlikelihood=-1.0).check_parts("o", {}, {"text": Incoming((L,), "int32")})
