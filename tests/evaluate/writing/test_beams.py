"""A beam search that keeps all beginnings finds the best of all texts; one of width 1 is greedy writing."""

# Fixtures that are unpacked have no known length.
# pyright: reportCallIssue=false

import itertools

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.writing.beams import Beams, search
from mmjax.evaluate.writing.writer import Writer
from tests.evaluate.writing.dense import all_logits, dense_greedy, dense_logits, log_softmax, small_decoder

VOCAB, EOS, MOST, PROMPT = 4, 2, 3, [1, 3]
PROMPTS = [[3, 4, 5], [7], [2, 9, 11, 4, 5, 6, 7]]  # of the larger one


@pytest.fixture(scope="module")
def model():
    return small_decoder(vocab=VOCAB, length=8)


@pytest.fixture(scope="module")
def larger():
    return small_decoder(tied=False)


def all_texts(decoder, params):
    """Every text of up to MOST words that ends, by EOS or its length, with the sum of its words' log-probabilities."""
    rows = {}
    for length in range(MOST):
        for words in itertools.product([i for i in range(VOCAB) if i != EOS], repeat=length):
            logits = dense_logits(decoder, params, [*PROMPT, *words])
            rows[words] = logits - np.log(np.exp(logits).sum())
    found = {}
    for words, shares in rows.items():
        before = sum(rows[words[:i]][words[i]] for i in range(len(words)))
        for id in range(VOCAB):
            if id == EOS or len(words) == MOST - 1:
                found[(*words, id)] = before + shares[id]
    return found


def texts_of(found, row=0):
    lengths = np.asarray(found.lengths)[row]
    return [
        (tuple(np.asarray(found.ids)[row, i, :n].tolist()), float(found.total[row, i])) for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize(("alpha", "rule"), [(0.0, "power"), (1.0, "power"), (2.0, "power"), (0.6, "gnmt")])
def test_a_beam_of_all_beginnings_finds_the_best_of_all_texts(model, alpha, rule):
    beams = Beams(VOCAB**2, alpha, rule)
    writer = Writer(*model, eos=[EOS])
    found = search(writer, writer.read([PROMPT], most=MOST), beams)
    divisor = (lambda n: n**alpha) if rule == "power" else (lambda n: ((5 + n) / 6) ** alpha)
    scores = {words: total / divisor(len(words)) for words, total in all_texts(*model).items()}
    wanted = sorted(scores.items(), key=lambda item: -item[1])[: beams.width]
    got = texts_of(found)
    assert [words for words, _ in got] == [words for words, _ in wanted]
    np.testing.assert_allclose([score for _, score in got], [score for _, score in wanted], atol=1e-5)
    sums = [float(np.asarray(found.words)[0, i, : len(words)].sum()) for i, (words, _) in enumerate(got)]
    np.testing.assert_allclose(sums, [scores[words] * divisor(len(words)) for words, _ in got], atol=1e-5)


def test_a_beam_of_one_is_greedy_writing(larger):
    writer = Writer(*larger, eos=[1])
    for alpha in (0.0, 1.0):
        found = search(writer, writer.read(PROMPTS, most=9), Beams(1, alpha))
        for row, prompt in enumerate(PROMPTS):
            ids, scores = dense_greedy(*larger, prompt, 9, [1])
            ((words, score),) = texts_of(found, row)
            assert list(words) == ids
            np.testing.assert_allclose(score, sum(scores) / len(ids) ** alpha, atol=1e-4)


def test_the_best_come_first_each_by_its_own_words_and_alone_as_in_a_batch(larger):
    writer = Writer(*larger, eos=[1])
    found = search(writer, writer.read(PROMPTS, most=9), Beams(4, 0.7))
    for row, prompt in enumerate(PROMPTS):
        texts = texts_of(found, row)
        assert len({words for words, _ in texts}) == 4
        assert [score for _, score in texts] == sorted((score for _, score in texts), reverse=True)
        alone = texts_of(search(writer, writer.read([prompt], most=9), Beams(4, 0.7)))
        assert [words for words, _ in alone] == [words for words, _ in texts]
        for beam, (words, score) in enumerate(texts):
            shares = log_softmax(all_logits(*larger, [*prompt, *words]))[len(prompt) - 1 : -1]
            own = shares[np.arange(len(words)), words]
            np.testing.assert_allclose(np.asarray(found.words)[row, beam, : len(words)], own, atol=1e-4)
            np.testing.assert_allclose(score, own.sum() / len(words) ** 0.7, atol=1e-4)
            assert words[-1] == 1 or len(words) == 9
        assert texts[0][1] >= texts_of(search(writer, writer.read([prompt], most=9), Beams(1, 0.7)))[0][1] - 1e-5


def test_only_words_are_found(larger):
    writer = Writer(*larger, eos=[1], vocab=5)
    found = search(writer, writer.read(PROMPTS, most=6), Beams(5))
    assert max(max(words) for words, _ in texts_of(found)) < 5


@pytest.mark.parametrize(
    ("beams", "message"),
    [
        (Beams(0), "beams=0 must be a whole number of at least 1"),
        (Beams(24), "beams=24 are more than the 23 words that the model knows"),
        (Beams(2, -1.0), "length_penalty=-1.0 must be at least 0"),
        (Beams(2, 1.0, "gmnt"), "length_rule='gmnt' is not one of power, gnmt; did you mean gnmt"),  # type: ignore
    ],
)
def test_settings_out_of_range_are_named(beams, message):
    with pytest.raises(UserError, match=message):
        beams.check(23)


def test_an_end_that_is_worse_than_all_that_is_kept_ends_nothing(larger):
    """The second best word is an end: a beam of one goes on with the best, as greedy writing does."""
    prompt = PROMPTS[0]
    second = int(np.argsort(dense_logits(*larger, prompt))[-2])
    writer = Writer(*larger, eos=[second])
    ((words, _),) = texts_of(search(writer, writer.read([prompt], most=9), Beams(1, 0.0)))
    assert len(words) > 1
    assert list(words) == dense_greedy(*larger, prompt, 9, [second])[0]
