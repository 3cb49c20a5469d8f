"""CIDEr-D against the definition in dense vectors, pycocoevalcap's figures, and as a reward."""

import math

import numpy as np
import pytest
from hypothesis import given

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.cider_d import NgramFrequencies, cider_d
from tests.evaluate.metrics.written.corpora import KNOWN, WORDS, as_pycocoevalcap, corpora, random_corpus

# Cider().compute_score of pycocoevalcap 1.2 of the four captions in corpora.py.
EXAMPLES, CORPUS = [2.8900193136, 2.7517256258, 1.3533520358, 1.1918043619], 2.046725334289105


def grams(text, n):
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def slow(texts, references, counted=None):
    """The formula over vectors of all n-grams there are; the frequencies are those of `counted`."""
    counted = references if counted is None else counted
    scores = np.zeros(len(texts))
    for n in range(1, 5):
        every = sorted(
            {g for text in [*texts, *(each for given_ in references for each in given_)] for g in grams(text, n)}
        )
        images = [{g for each in given_ for g in grams(each, n)} for given_ in counted]
        rarity = np.array([math.log(len(counted) / max(1, sum(g in image for image in images))) for g in every])

        def vector(text):
            return np.array([grams(text, n).count(g) for g in every]) * rarity  # noqa: B023 (used at once)

        for row, (text, given_) in enumerate(zip(texts, references, strict=True)):
            for each in given_:
                mine, theirs = vector(text), vector(each)
                norms = np.sqrt((mine**2).sum()) * np.sqrt((theirs**2).sum())
                cosine = (np.minimum(mine, theirs) * theirs).sum() / norms if norms else 0
                apart = len(grams(text, 2)) - len(grams(each, 2))
                scores[row] += 10 * cosine * math.exp(-(apart**2) / 72) / (4 * len(given_))
    return scores


def test_figures_of_pycocoevalcap():
    scores = cider_d(WORDS, KNOWN)
    np.testing.assert_allclose(scores, EXAMPLES, atol=1e-9)
    assert scores.mean() == pytest.approx(CORPUS, abs=1e-12)


@given(corpora)
def test_cider_equals_the_definition(corpus):
    texts, references = zip(*corpus, strict=True)
    np.testing.assert_allclose(cider_d(texts, references), slow(texts, references), atol=1e-9)


@given(corpora, corpora)
def test_frequencies_of_a_training_set(corpus, training):
    texts, references = zip(*corpus, strict=True)
    counted = [given_ for _, given_ in training]
    scores = cider_d(texts, references, NgramFrequencies.of(counted))
    np.testing.assert_allclose(scores, slow(texts, references, counted), atol=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_cider_equals_pycocoevalcap(seed):
    library = pytest.importorskip("pycocoevalcap.cider.cider")
    texts, references = random_corpus(seed)
    corpus, examples = library.Cider().compute_score(*as_pycocoevalcap(texts, references))
    np.testing.assert_allclose(cider_d(texts, references), examples, atol=1e-9)
    assert cider_d(texts, references).mean() == pytest.approx(corpus, abs=1e-9)


def test_captions_that_are_their_only_references_have_ten():
    texts = [["a", "dog", "runs", "on", "sand"], ["two", "men", "play", "chess"]]
    np.testing.assert_allclose(cider_d(texts, [[text] for text in texts]), 10, atol=1e-12)
    assert cider_d(texts[::-1], [[text] for text in texts]).tolist() == [0, 0]
    assert cider_d(texts[:1], [texts[:1]]).tolist() == [0]  # one image alone: nothing in it is rare
    assert cider_d([[]], [texts[:1]]).tolist() == [0]
    assert cider_d([[], texts[1]], [[text] for text in texts]).tolist() == pytest.approx([0, 10])


def test_repeated_words_win_nothing():
    references = [[["a", "dog", "runs"]], [["two", "men", "play", "chess"]]]
    once, often = (cider_d([text.split(), ["men"]], references)[0] for text in ("a dog runs", "a dog runs dog dog dog"))
    assert often < once


def test_references_that_are_shared_are_scored_as_if_each_had_its_own():
    frequencies = NgramFrequencies.of(KNOWN)
    samples = [text for text in WORDS for _ in range(3)]
    for row in range(len(samples)):
        samples[row] = samples[row][row % 3 :]
    shared = cider_d(samples, [KNOWN[row // 3] for row in range(len(samples))], frequencies)
    own = [cider_d([text], [list(KNOWN[row // 3])], frequencies)[0] for row, text in enumerate(samples)]
    assert shared.tolist() == own


def test_numbers_of_tokens_score_as_their_words():
    numbers: dict[str, int] = {}

    def encoded(text):
        return [numbers.setdefault(word, len(numbers)) for word in text]

    scores = cider_d([encoded(text) for text in WORDS], [[encoded(text) for text in given_] for given_ in KNOWN])
    np.testing.assert_array_equal(scores, cider_d(WORDS, KNOWN))  # to the bit: sums don't go by hashes


def test_frequencies_by_hand():
    frequencies = NgramFrequencies.of([[["a", "a"], ["a"]], [["a", "b"]]])
    assert frequencies.images == 2
    assert frequencies.counts == {("a",): 2, ("b",): 1, ("a", "a"): 1, ("a", "b"): 1}
    assert frequencies.weights == [math.log(2), math.log(2), 0]
    for counts, images in (({("a",): 3}, 2), ({}, 0)):
        with pytest.raises(UserError, match=f"images={images}"):
            NgramFrequencies(counts, images)
