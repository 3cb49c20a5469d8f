"""Texts that are written with a memory are those of the dense decoder, word by word, alone or in a batch."""

# Fixtures that are unpacked have no known length.
# pyright: reportCallIssue=false

from typing import Any

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.writing.sampling import GREEDY, Sampling
from mmjax.evaluate.writing.writer import Writer
from mmjax.models.decoders.projectors import LinearProjector
from tests.evaluate.writing.dense import dense_greedy, dense_logits, log_softmax, small_decoder

PROMPTS = [[3, 4, 5], [7], [2, 9, 11, 4, 5, 6, 7]]
DRAWN = Sampling(1.0, top_k=9)


def written(writer, prompts, most, sampling=GREEDY, seed=0, steps=False, rows=(), views=None):
    texts, news, given = writer.begin(writer.read(prompts, views or {}, most=most), sampling, seed, rows)
    ids = [np.asarray(news.ids)]
    for until in range(2, most + 1) if steps else [most]:
        texts, news = writer.advance(writer.params, texts, given, until)
        ids.append(np.asarray(news.ids))
    counts = np.asarray(texts.counts)[: len(prompts)]
    if steps:
        for row, n in enumerate(counts):
            assert [one[row] for one in ids[:n]] == np.asarray(texts.ids)[row, :n].tolist()
    return [(np.asarray(texts.ids)[i, :n].tolist(), np.asarray(texts.scores)[i, :n]) for i, n in enumerate(counts)]


@pytest.fixture(scope="module")
def model():
    return small_decoder(tied=False)


@pytest.fixture(scope="module")
def writer(model):
    return Writer(*model, eos=[1])


def views_of(rows) -> Any:
    tokens = np.random.default_rng(5).normal(size=(rows, 3, 16)).astype(np.float32)
    return {"image": (tokens, np.array([[True, True, row != 1] for row in range(rows)]))}


@pytest.mark.parametrize(
    "read", [{}, {"cross": "within", "context": {"image": None}}, {"prefix": {"image": LinearProjector()}}]
)
def test_words_and_log_probabilities_are_the_dense_decoder_s(read):
    model = small_decoder(tied=False, **read)
    views = views_of(3) if read else {}
    found = written(Writer(*model), PROMPTS, 9, views=views)
    assert len({tuple(ids) for ids, _ in found}) == 3
    for row, (prompt, (ids, scores)) in enumerate(zip(PROMPTS, found, strict=True)):
        own = {name: (tokens[row : row + 1], real[row : row + 1]) for name, (tokens, real) in views.items()}
        wanted, wanted_scores = dense_greedy(*model, prompt, 9, views=own)
        assert ids == wanted
        np.testing.assert_allclose(scores, wanted_scores, atol=1e-4)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN])
def test_a_prompt_s_text_is_the_same_alone_in_a_batch_over_devices_and_step_by_step(writer, sampling):
    together = written(writer, PROMPTS, 10, sampling)
    for row, prompt in enumerate(PROMPTS):
        assert written(writer, [prompt], 10, sampling, rows=[row])[0][0] == together[row][0]
    eight = [*PROMPTS, [8, 8], [9], [10, 11], [12], [13]]
    assert len(jax.devices()) == 8  # a row each
    assert [ids for ids, _ in written(writer, eight, 10, sampling)[:3]] == [ids for ids, _ in together]
    again = written(writer, PROMPTS, 10, sampling, steps=True)
    assert [ids for ids, _ in again] == [ids for ids, _ in together]
    if sampling is DRAWN:
        assert written(writer, PROMPTS, 10, sampling, seed=1)[0][0] != together[0][0]


def test_a_text_ends_behind_its_end(model):
    (whole, _), *_ = written(Writer(*model), PROMPTS, 12)
    end = whole[5]
    (ids, scores), *_ = written(Writer(*model, eos=[end]), PROMPTS, 12)
    assert ids == whole[: whole.index(end) + 1]
    assert len(scores) == len(ids)


def test_a_penalty_is_for_words_of_the_prompt_and_the_text(model):
    prompt, wanted = PROMPTS[2], []
    for _ in range(8):
        logits = dense_logits(*model, [*prompt, *wanted])
        seen = sorted({*prompt, *wanted})
        logits[seen] = np.where(logits[seen] > 0, logits[seen] / 3, logits[seen] * 3)
        wanted.append(int(logits.argmax()))
    found = written(Writer(*model), PROMPTS, 8, Sampling(repetition_penalty=3.0))[2][0]
    assert found == wanted
    assert found != dense_greedy(*model, prompt, 8)[0]


def test_words_beyond_the_vocabulary_are_not_written(model):
    (ids, scores), *_ = written(Writer(*model, vocab=5), PROMPTS, 12)
    wanted = []
    for _ in range(12):
        wanted.append(int(dense_logits(*model, [*PROMPTS[0], *wanted])[:5].argmax()))
    assert ids == wanted
    np.testing.assert_allclose(scores[0], log_softmax(dense_logits(*model, PROMPTS[0]))[ids[0]], atol=1e-4)


def test_texts_end_where_the_positions_do(model):
    """The last word needs no position: nothing is read behind it."""
    decoder, params = small_decoder(tied=False, length=12)
    (long, _), (short, _) = written(Writer(decoder, params), [[3] * 10, [4]], 20)
    assert (len(long), len(short)) == (3, 12)
    assert long == dense_greedy(decoder, params, [3] * 10, 3)[0]


def test_a_size_is_compiled_once(model):
    writer = Writer(*model)
    programs: Any = (writer.prefill, writer.advance)
    sizes = []
    for prompts in ([[1] * 3], [[2]], [[5] * 16], [[3] * 17], [[4] * 20], [[1], [2, 3]], [[1] * 4, [2] * 16]):
        written(writer, prompts, 4, DRAWN)
        sizes.append(tuple(program._cache_size() for program in programs))
    # One prompt of up to 16 tokens in two sizes of memory, of up to 32; then two prompts, in two sizes again.
    assert sizes == [(1, 1), (1, 1), (2, 2), (3, 2), (3, 2), (4, 3), (5, 4)]
    written(writer, [[1] * 4], 4, Sampling(0.5, top_k=3))
    written(writer, [[1] * 4], 4, DRAWN, steps=True)
    assert programs[1]._cache_size() == 4


@pytest.mark.parametrize("most", [0, -1, 1.5, True])
def test_no_words_are_refused(writer, most):
    with pytest.raises(UserError, match=f"max_new_tokens={most} must be a whole number of at least 1"):
        writer.read(PROMPTS, most=most)


def test_a_prompt_that_is_too_long_says_by_how_much(writer):
    with pytest.raises(UserError, match="a prompt of 43 tokens is 3 more than the 40 that the decoder reads"):
        writer.read([[1], [2] * 43], most=1)
    model = small_decoder(prefix={"image": LinearProjector()})
    with pytest.raises(UserError, match="38 tokens is 1 more than the 37 that the decoder reads behind 3 tokens"):
        Writer(*model).read([[2] * 38], views_of(1), most=1)
