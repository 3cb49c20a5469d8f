"""ROUGE-L against the table of common subsequences, and pycocoevalcap's figures."""

import numpy as np
import pytest
from hypothesis import given

from mmjax.evaluate.metrics.written.rouge_l import common_length, rouge_l
from tests.evaluate.metrics.written.corpora import KNOWN, WORDS, as_pycocoevalcap, corpora, random_corpus, tokens

# Rouge().compute_score of pycocoevalcap 1.2 of the four captions in corpora.py.
EXAMPLES, CORPUS = [0.8333333333, 0.8591549296, 0.5304347826, 0.5736677116], 0.69914768927956


def table(a, b):
    """The longest common subsequence by the definition: of the last tokens both are in it, or one is left out."""
    lengths = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            if one == other:
                lengths[i + 1, j + 1] = lengths[i, j] + 1
            else:
                lengths[i + 1, j + 1] = max(lengths[i, j + 1], lengths[i + 1, j])
    return int(lengths[-1, -1])


def slow(text, references):
    precision = max(table(text, each) / max(1, len(text)) for each in references)
    recall = max(table(text, each) / max(1, len(each)) for each in references)
    return 2.44 * precision * recall / (recall + 1.44 * precision) if precision else 0.0


def test_figures_of_pycocoevalcap():
    scores = rouge_l(WORDS, KNOWN)
    np.testing.assert_allclose(scores, EXAMPLES, atol=1e-10)
    assert scores.mean() == pytest.approx(CORPUS, abs=1e-12)


@given(tokens, tokens)
def test_common_length_equals_the_table(a, b):
    assert common_length(a, b) == table(a, b)


def test_long_texts():
    a, b = (np.random.default_rng(seed).integers(0, 20, 300).tolist() for seed in range(2))
    assert common_length(a, b) == table(a, b) > 64  # more than the bits of a word


@given(corpora)
def test_rouge_equals_the_definition(corpus):
    texts, references = zip(*corpus, strict=True)
    expected = [slow(text, given_) for text, given_ in corpus]
    np.testing.assert_allclose(rouge_l(texts, references), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_rouge_equals_pycocoevalcap(seed):
    library = pytest.importorskip("pycocoevalcap.rouge.rouge")
    texts, references = random_corpus(seed)
    corpus, examples = library.Rouge().compute_score(*as_pycocoevalcap(texts, references))
    np.testing.assert_allclose(rouge_l(texts, references), examples, atol=1e-12)
    assert rouge_l(texts, references).mean() == pytest.approx(corpus, abs=1e-12)


def test_precision_and_recall_may_be_of_different_references():
    """P is 1 by the long reference, R by the short one: no single one gives both."""
    text = ["a", "b"]
    assert rouge_l([text], [[["a", "b", "c", "d"], ["a"]]]).tolist() == [1]
    assert rouge_l([text], [[["a", "b", "c", "d"]]])[0] < 0.8
    assert rouge_l([text], [[["a"]]])[0] < 0.8


def test_empty_texts_have_zero():
    assert rouge_l([[], ["a"], []], [[["a"]], [[]], [[]]]).tolist() == [0, 0, 0]
