"""Texts drawn within another computation: the likeliest words are those of whole passes, and a row is as alone."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import DecoderBlocks, LinearProjector, RecurrentDecoder, TextDecoder
from mmjax.models.decoders.drawn import draw_texts

VOCAB, B, MOST, END, BEGIN = 9, 4, 5, 2, 1
BLOCKS = DecoderBlocks(width=8, depth=1, heads=2)
DECODERS: dict[str, Any] = {
    "text": TextDecoder(vocab=VOCAB, length=8, blocks=BLOCKS, prefix={"a": LinearProjector()}, positions="learned"),
    "recurrent": RecurrentDecoder(vocab=VOCAB, length=5, width=8, embed_width=8, context={"a": LinearProjector()}),
}


def setting(name: str) -> Any:
    random, decoder = np.random.default_rng(1), DECODERS[name]
    views = {
        "a": (jnp.asarray(random.normal(size=(B, 3, 8)), jnp.float32), jnp.arange(3) < jnp.array([3, 1, 2, 0])[:, None])
    }
    ids = jnp.ones((B, 2), jnp.int32)
    shapes = jax.eval_shape(lambda: decoder.init(jax.random.key(0), ids, None, views))
    shapes = nn.unbox(shapes)
    variables = jax.tree.map(lambda x: jnp.float32(random.normal(size=x.shape)), shapes)
    return decoder, variables, views, jax.random.split(jax.random.key(3), B)


def drawn(decoder: Any, variables: Any, views: Any, keys: Any, most: int = MOST) -> Any:
    likeliest = jnp.array([False, True, False])
    rows = len(keys)
    begin, end = jnp.full(rows, BEGIN), jnp.full(rows, END)
    draw = jax.jit(lambda views, keys: draw_texts(decoder, variables, begin, end, views, keys, likeliest, most))
    found = draw(views, keys)
    return np.asarray(found.ids).reshape(rows, 3, -1), np.asarray(found.lengths).reshape(rows, 3)


@pytest.mark.parametrize("name", DECODERS)
def test_the_likeliest_words_are_those_of_whole_passes_and_each_row_is_as_alone(name: str) -> None:
    decoder, variables, views, keys = setting(name)
    ids, lengths = drawn(decoder, variables, views, keys)

    @jax.jit
    def logits(words: Any) -> Any:
        states = decoder.apply(variables, words, None, views)
        return decoder.apply(variables, states, method="logits")

    words = np.full((B, 1 + MOST), BEGIN, np.int32)
    for place in range(MOST):
        words[:, place + 1] = np.asarray(logits(words[:, :MOST]))[:, place].argmax(axis=-1)
    for row in range(B):
        end = np.flatnonzero(words[row, 1:] == END)
        length = end[0] + 1 if len(end) else MOST
        assert lengths[row, 1] == length
        np.testing.assert_array_equal(ids[row, 1], [*words[row, 1 : 1 + length], *[0] * (MOST - length)])
    assert (ids[:, 0] != ids[:, 2]).any()
    assert (lengths < MOST).any()
    order = np.array([2, 0, 3, 1])
    mixed = drawn(decoder, variables, jax.tree.map(lambda x: x[order], views), keys[order])
    np.testing.assert_array_equal(mixed[0], ids[order])


def test_no_more_words_than_there_are_places() -> None:
    with pytest.raises(UserError, match="9 tokens are 1 more than the 8 places"):
        drawn(*setting("text"), most=6)
