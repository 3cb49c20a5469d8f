"""BLEU against the definition, counted n-gram by n-gram, and pycocoevalcap's figures."""

import math

import numpy as np
import pytest
from hypothesis import given

from mmjax.evaluate.metrics.written.bleu import bleu
from tests.evaluate.metrics.written.corpora import KNOWN, WORDS, as_pycocoevalcap, corpora, random_corpus

# Bleu(4).compute_score of pycocoevalcap 1.2 of the four captions in corpora.py.
CORPUS = [0.725067866561362, 0.6069952858481173, 0.4418051297336421, 5.1216879863387165e-05]
EXAMPLES = [
    [0.9999999996666668, 0.6441233938804958, 0.5134171186903144, 0.5714285713469389],
    [0.9999999996500001, 0.4919573682190146, 0.36304072617292654, 0.43643578040444125],
    [0.793700525688667, 0.33133470859910874, 4.0749943704054955e-06, 0.33647817309084715],
    [0.00011362193660082777, 5.112863129953035e-05, 2.427799659296287e-06, 5.555238066968751e-05],
]


def slow(texts, references, order=4):
    """The definition, with the two small numbers of the original."""
    found, possible, length, wanted = [0] * order, [0] * order, 0, 0
    for text, given_ in zip(texts, references, strict=True):
        length += len(text)
        away = min(abs(len(each) - len(text)) for each in given_)
        wanted += min(len(each) for each in given_ if abs(len(each) - len(text)) == away)
        for n in range(1, order + 1):
            grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
            known = [[tuple(each[i : i + n]) for i in range(len(each) - n + 1)] for each in given_]
            found[n - 1] += sum(min(grams.count(gram), max(k.count(gram) for k in known)) for gram in set(grams))
            possible[n - 1] += len(grams)
    product, scores = 1.0, []
    for n in range(order):
        product *= (found[n] + 1e-15) / (possible[n] + 1e-9)
        ratio = (length + 1e-15) / (wanted + 1e-9)
        scores.append(product ** (1 / (n + 1)) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1))
    return scores


def test_figures_of_pycocoevalcap():
    scores = bleu(WORDS, KNOWN)
    np.testing.assert_allclose(scores.corpus, CORPUS, rtol=1e-12)
    np.testing.assert_allclose(scores.examples.T, EXAMPLES, rtol=1e-12)


@given(corpora)
def test_bleu_equals_the_definition(corpus):
    texts, references = zip(*corpus, strict=True)
    scores = bleu(texts, references)
    np.testing.assert_allclose(scores.corpus, slow(texts, references), rtol=1e-9, atol=1e-300)
    for row, (text, given_) in enumerate(corpus):
        np.testing.assert_allclose(scores.examples[row], slow([text], [given_]), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("seed", range(10))
def test_bleu_equals_pycocoevalcap(seed):
    library = pytest.importorskip("pycocoevalcap.bleu.bleu")
    texts, references = random_corpus(seed)
    corpus, examples = library.Bleu(4).compute_score(*as_pycocoevalcap(texts, references), verbose=0)
    scores = bleu(texts, references)
    np.testing.assert_allclose(scores.corpus, corpus, atol=1e-12)
    np.testing.assert_allclose(scores.examples.T, examples, atol=1e-12)


def test_a_text_that_is_a_reference_has_one_and_an_empty_one_zero():
    text = ["a", "dog", "runs", "on", "the", "beach"]
    np.testing.assert_allclose(bleu([text], [[["a"], text]]).corpus, 1, atol=1e-8)
    assert bleu([[]], [[text]]).corpus.tolist() == [0] * 4
    assert bleu([[], text], [[text], [text]]).examples[0].tolist() == [0] * 4


def test_words_count_as_often_as_one_reference_has_them():
    """The example of the paper: two of seven, although the references together have three."""
    text = ["the"] * 7
    references = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    assert bleu([text], [references]).corpus[0] == pytest.approx(2 / 7, abs=1e-8)


def test_of_lengths_as_close_the_shorter_counts():
    text = list("abcde")
    assert bleu([text], [[list("abcd"), list("abcdef")]]).corpus[0] == pytest.approx(1, abs=1e-8)
    assert bleu([text], [[list("abcdef"), list("abcdefghij")]]).corpus[0] == pytest.approx(math.exp(-1 / 5), abs=1e-8)


def test_a_corpus_is_not_the_mean_of_its_texts():
    scores = bleu(WORDS, KNOWN)
    assert abs(scores.corpus[1] - scores.examples[:, 1].mean()) > 0.01
