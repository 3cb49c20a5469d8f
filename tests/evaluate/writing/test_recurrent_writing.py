"""What an LSTM writes with its memory is what it would write by a pass over the whole text for each word."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mmjax.evaluate.writing.beams import Beams, search
from mmjax.evaluate.writing.likelihood import log_likelihoods
from mmjax.evaluate.writing.writer import Writer
from mmjax.models.decoders.projectors import LinearProjector
from mmjax.models.decoders.recurrent import RecurrentDecoder
from tests.evaluate.writing.dense import all_logits, dense_greedy, log_softmax, whole
from tests.evaluate.writing.test_beams import EOS, MOST, PROMPT, all_texts, texts_of
from tests.evaluate.writing.test_writer import PROMPTS, views_of, written

SHOWN: dict[str, Any] = {"prefix": {"image": LinearProjector()}}
ATTENDING: dict[str, Any] = {"context": {"image": None}}


def small(vocab: int = 23, length: int = 21, **fields: Any) -> tuple[RecurrentDecoder, Any]:
    """A decoder of two layers, and parameters by which its words differ."""
    decoder = RecurrentDecoder(
        vocab=vocab, length=length, width=8, embed_width=6, attention_width=5, layers=2, initial_range=1.0, **fields
    )
    views = {name: (jnp.zeros((1, 3, 16)), jnp.ones((1, 3), bool)) for name in {**decoder.prefix, **decoder.context}}
    made = decoder.init(jax.random.key(2), jnp.zeros((1, 4), jnp.int32), None, views, method=whole)
    return decoder, {**meta.unbox(made)["params"], "head": 5 * meta.unbox(made)["params"]["head"]}


def own(views: Any, row: int) -> Any:
    return {name: (tokens[row : row + 1], real[row : row + 1]) for name, (tokens, real) in views.items()}


@pytest.mark.parametrize("fields", [SHOWN, ATTENDING, {}])
def test_words_of_greedy_writing_and_of_beams(fields: Any) -> None:
    model = small(**fields)
    views: Any = views_of(3) if fields else {}
    writer = Writer(*model)
    greedy = written(writer, PROMPTS, 9, views=views)
    beams = search(writer, writer.read(PROMPTS, views, most=9), Beams(1, 0.0))
    wide = search(writer, writer.read(PROMPTS, views, most=9), Beams(4, 0.0))
    assert len({tuple(ids) for ids, _ in greedy}) == 3
    for row, prompt in enumerate(PROMPTS):
        ids, scores = dense_greedy(*model, prompt, 9, views=own(views, row))
        assert greedy[row][0] == ids
        np.testing.assert_allclose(greedy[row][1], scores, atol=1e-4)
        assert list(texts_of(beams, row)[0][0]) == ids
        for words, total in texts_of(wide, row):  # each by its own words: the memory went with its beginning
            shares = log_softmax(all_logits(*model, [*prompt, *words], own(views, row)))[len(prompt) - 1 : -1]
            np.testing.assert_allclose(total, shares[np.arange(len(words)), list(words)].sum(), atol=1e-3)


def test_a_beam_of_all_beginnings_finds_the_best_of_all_texts() -> None:
    model = small(vocab=4, length=8)
    writer = Writer(*model, eos=[EOS])
    found = texts_of(search(writer, writer.read([PROMPT], most=MOST), Beams(16, 1.0)))
    scores = {words: total / len(words) for words, total in all_texts(*model).items()}
    wanted = sorted(scores.items(), key=lambda item: -item[1])[:16]
    assert [words for words, _ in found] == [words for words, _ in wanted]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in wanted], atol=1e-4)


def test_candidates_are_scored_by_their_own_words() -> None:
    views: Any = views_of(3)
    model, texts = small(**ATTENDING), [[5, 6, 7], [9], [4, 4, 4, 4, 4]]
    writer = Writer(*model)
    found = log_likelihoods(writer, writer.read(PROMPTS, views, most=5), texts)
    for row, prompt in enumerate(PROMPTS):
        for column, text in enumerate(texts):
            shares = log_softmax(all_logits(*model, [*prompt, *text], own(views, row)))[len(prompt) - 1 : -1]
            np.testing.assert_allclose(found[row, column], shares[np.arange(len(text)), text].sum(), atol=1e-3)


def test_texts_end_at_the_decoder_s_length() -> None:
    model = small(length=12)
    (long, _), (short, _) = written(Writer(*model), [[3] * 10, [4]], 20)
    assert (len(long), len(short)) == (3, 12)
    assert short == dense_greedy(*model, [4], 12)[0]
