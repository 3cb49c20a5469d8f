"""Texts that are written with a memory are those of the dense decoder, word by word, alone or in a batch."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.inference.writing.sampling import Sampling
from mmjax.inference.writing.writer import Writer
from tests.inference.writing.dense import dense_greedy, small_decoder

PROMPTS = [[3, 4, 5], [7], [2, 9, 11, 4, 5, 6, 7]]


def written(writer, prompts, most, sampling=Sampling(), seed=0, every=None, rows=(), **more):
    texts, _, given = writer.begin(writer.read(prompts, most=most, **more), sampling, seed, rows)
    for until in range(1, most + 1) if every else [most]:
        texts, _ = writer.advance(writer.params, texts, given, until)
    counts = np.asarray(texts.counts)[: len(prompts)]
    return [(np.asarray(texts.ids)[i, :n].tolist(), np.asarray(texts.scores)[i, :n]) for i, n in enumerate(counts)]


@pytest.fixture(scope="module")
def model():
    return small_decoder()


def test_words_and_log_probabilities_are_the_dense_decoder_s(model):
    for prompt, (ids, scores) in zip(PROMPTS, written(Writer(*model), PROMPTS, 12), strict=True):
        wanted, wanted_scores = dense_greedy(*model, prompt, 12)
        assert ids == wanted
        np.testing.assert_allclose(scores, wanted_scores, atol=1e-4)
