"""Hidden words of pairs and of texts alone: two rates, drawn of each example; and heads that are a matrix alone."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.objectives import Context, Corrupt, CorruptPatches, MaskedCodes, MaskedText, View
from mmjax.objectives.encoded import EncodedCorrupted, EncodedCorruptedPatches
from tests.objectives.test_through_trunk import batch as rows
from tests.objectives.test_through_trunk import build

B, L, VOCAB, D = 6, 20, 40, 8
KEY = jax.random.key(3)
BOTH: Any = Corrupt(vocab=VOCAB, rate=0.15, paired=("image",), paired_rate=0.5)


def texts() -> tuple[Any, Any]:
    mask = np.arange(L) < np.array([[20], [20], [13], [13], [1], [1]])
    return np.random.default_rng(0).integers(5, VOCAB, (B, L)).astype(np.int32), mask


def test_a_pair_has_its_own_rate_and_a_text_alone_is_drawn_as_ever() -> None:
    ids, mask = texts()
    paired = np.array([True, False] * 3)
    index: Any = np.arange(B, dtype=np.uint32)
    _, chosen = jax.jit(BOTH.draw)(KEY, index, ids, mask, paired)
    assert np.asarray(chosen).sum(axis=1).tolist() == [10, 3, 6, 2, 1, 1]  # round(n / 2), round(0.15 n), at least 1
    plain = Corrupt(vocab=VOCAB, rate=0.15).draw(KEY, index, ids, mask)
    for found, expected in zip(BOTH.draw(KEY, index, ids, mask), plain, strict=True):
        np.testing.assert_array_equal(found, expected)
    every = Corrupt(vocab=VOCAB, rate=0.5).draw(KEY, index, ids, mask)
    for found, expected in zip(BOTH.draw(KEY, index, ids, mask, np.ones(B, bool)), every, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert BOTH.count(20) == 10
    assert Corrupt(vocab=VOCAB, rate=0.5, paired=("image",), paired_rate=0.1).count(20) == 10


def test_keys_of_runs_of_before_stay() -> None:
    """They are made from the text of a view."""
    said = "Corrupt(vocab=40, rate=0.15, mask_id=4, first_id=5, masked=0.8, random=0.1"
    assert repr(Corrupt(vocab=VOCAB)) == f"{said})"
    assert repr(BOTH) == f"{said}, paired=('image',), paired_rate=0.5)"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"paired": ("image",)}, r"paired=\('image',\), paired_rate=None\): set both"),
        ({"paired_rate": 0.5}, "set both"),
        ({"paired": ("image",), "paired_rate": 1.5}, r"paired_rate=1.5\): the part of tokens"),
    ],
)
def test_half_of_it_is_an_error(fields: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Corrupt(vocab=VOCAB, **fields)


class Counting(MaskedText):
    """Tells the number of hidden words of each example."""

    def batch_loss(self, outputs: Any, batch: Any) -> Any:
        loss, metrics = super().batch_loss(outputs, batch)
        return loss, metrics | {"count": outputs.count}


def test_a_row_with_its_picture_is_a_pair() -> None:
    words = Counting(vocab=24, rate=0.2, paired_rate=0.6, fusion="both", beside=("image", "text"), transform=False)
    assert words.corrupt.paired == ("image",)
    pretrainer = build("beit3", objectives={"words": words}, dropout=0.0)
    given = rows() | {"image_valid": np.arange(16) % 2 == 0}
    variables = jax.jit(pretrainer.init)(KEY, given)
    assert set(variables["params"]["objectives_words"]) == {"words"}
    _, metrics = pretrainer.apply(variables, given, train=False, rngs={"mask": KEY})
    maskable = ((given["text"] >= 5) & given["text_mask"]).sum(axis=1)
    rate = np.where(given["image_valid"], 0.6, 0.2)
    expected = np.where(maskable > 0, np.maximum([round(r * n) for r, n in zip(rate, maskable, strict=True)], 1), 0)
    there = given["text_valid"]
    np.testing.assert_array_equal(np.asarray(metrics["words/count"])[there], expected[there])


def cross_entropy(x: np.ndarray, head: Any, targets: np.ndarray, hidden: np.ndarray) -> float:
    logits = x @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"], np.float64)
    surprise = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    return surprise[hidden].mean()


@pytest.mark.parametrize("kind", ["words", "codes"])
def test_a_head_that_is_a_matrix_alone_equals_numpy(kind: str) -> None:
    random = np.random.default_rng(1)
    ids, mask = texts()
    x = random.normal(size=(B, 1 + L, D)).astype(np.float32)
    parts: Any = (jnp.asarray(x), np.ones((B, 1 + L), bool), x[:, 0], 1)
    index: Any = np.arange(B, dtype=np.uint32)
    objective: Any
    corrupted: Any = EncodedCorrupted
    patches: Any = EncodedCorruptedPatches
    if kind == "words":
        objective = MaskedText(vocab=VOCAB, rate=0.4, transform=False)
        _, hidden = objective.corrupt.draw(KEY, index, ids, mask)
        view, given = corrupted(*parts, ids, hidden), {}
    else:
        objective = MaskedCodes(VOCAB, keep=0.5, transform=False)
        assert isinstance(objective.corrupt, CorruptPatches)
        hidden = objective.corrupt.draw(KEY, index, mask, (L,))
        view, given = patches(*parts, hidden), {"codes": ids}
    name = {"words": "words", "codes": "predict"}[kind]
    params = {name: {"kernel": random.normal(size=(D, VOCAB)), "bias": random.normal(size=VOCAB)}}
    params = jax.tree.map(jnp.float32, params)
    encoded = {objective.views()[0]: view}
    assert isinstance(objective.views()[0], View)
    outputs = objective.apply({"params": params}, encoded, given, Context(), method="per_example")
    found = outputs.total.sum() / outputs.count.sum()
    expected = cross_entropy(np.asarray(x[:, 1:], np.float64), params[name], ids, np.asarray(hidden))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert math.isfinite(found)
