"""A beam search that keeps all beginnings finds the best of all texts; one of width 1 is greedy writing."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.inference.writing.beams import NEVER, Beams, search
from mmjax.inference.writing.writer import Writer
from tests.inference.writing.dense import dense_logits, small_decoder

VOCAB, EOS, MOST, PROMPT = 4, 2, 3, [1, 3]


@pytest.fixture(scope="module")
def model():
    return small_decoder(vocab=VOCAB, length=8)


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
    return [(tuple(np.asarray(found.ids)[row, i, :n].tolist()), float(found.total[row, i])) for i, n in enumerate(lengths)]


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
