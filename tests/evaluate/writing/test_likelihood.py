"""The log-probability of a text behind a prompt is the sum over its words in a pass over the whole."""

# Fixtures that are unpacked have no known length.
# pyright: reportCallIssue=false

import numpy as np
import pytest

from mmjax.evaluate.writing.likelihood import log_likelihoods
from mmjax.evaluate.writing.writer import Writer
from tests.evaluate.writing.dense import all_logits, log_softmax, small_decoder

PROMPTS = [[3, 4, 5], [7]]
TEXTS = [[6], [2, 9, 4, 1, 1], [5, 5], [8, 3, 2], [9]]


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]])
@pytest.mark.parametrize("at_once", [1, 4, 64])
def test_scores_are_those_of_the_whole_pass(texts, at_once):
    model = small_decoder(tied=False)
    writer = Writer(*model)
    read = writer.read(PROMPTS, most=5)
    found = log_likelihoods(writer, read, texts, at_once)
    for row, prompt in enumerate(PROMPTS):
        for place, text in enumerate(texts):
            shares = log_softmax(all_logits(*model, [*prompt, *text]))[len(prompt) - 1 : -1]
            np.testing.assert_allclose(found[row, place], shares[np.arange(len(text)), text].sum(), atol=1e-4)
