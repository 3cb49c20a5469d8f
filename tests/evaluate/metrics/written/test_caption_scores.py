"""All scores of plain texts: those of their words, by name."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.bleu import bleu
from mmjax.evaluate.metrics.written.caption_scores import caption_scores
from mmjax.evaluate.metrics.written.cider_d import cider_d
from mmjax.evaluate.metrics.written.rouge_l import rouge_l
from tests.evaluate.metrics.written.corpora import KNOWN, REFERENCES, TEXTS, WORDS


def test_texts_score_as_their_words():
    written = [f"{text.capitalize()}." for text in TEXTS]
    scores = caption_scores(written, REFERENCES)
    expected = bleu(WORDS, KNOWN)
    for n in range(4):
        assert scores.corpus[f"bleu{n + 1}"] == expected.corpus[n]
        np.testing.assert_array_equal(scores.examples[f"bleu{n + 1}"], expected.examples[:, n])
    for name, each in (("rouge_l", rouge_l(WORDS, KNOWN)), ("cider_d", cider_d(WORDS, KNOWN))):
        np.testing.assert_array_equal(scores.examples[name], each)
        assert scores.corpus[name] == each.mean()
    assert set(scores.corpus) == set(scores.examples) == {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d"}


def test_a_text_in_the_place_of_a_list():
    with pytest.raises(UserError, match="a list of texts for each image"):
        caption_scores(["a dog"], ["a dog runs"])
