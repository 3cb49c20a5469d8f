"""N-grams by hand, and texts that don't fit their references."""

import pytest

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.bleu import bleu
from mmjax.evaluate.metrics.written.cider_d import cider_d
from mmjax.evaluate.metrics.written.ngrams import check_references, ngram_counts
from mmjax.evaluate.metrics.written.rouge_l import rouge_l


def test_ngrams_by_hand():
    assert ngram_counts(["a", "b", "a", "b"], 2) == {("a", "b"): 2, ("b", "a"): 1}
    assert ngram_counts([7, 7, 7], 1) == {(7,): 3}
    assert ngram_counts([7, 7, 7], 4) == {}
    assert ngram_counts([], 1) == {}


@pytest.mark.parametrize("score", [check_references, bleu, rouge_l, cider_d])
@pytest.mark.parametrize(
    ("texts", "references", "message"),
    [
        ([["a"]], [], "1 texts were written, and there are references of 0"),
        ([], [], "no texts to score"),
        ([["a"], ["b"]], [[["a"]], []], "text 1 has no references"),
        (["a dog"], [[["a", "dog"]]], "text 0: 'a dog' isn't cut into tokens"),
        ([["a", "dog"]], [["a dog"]], "text 0: 'a dog' isn't cut into tokens"),
        ([["a", "dog"]], ["a dog"], "text 0: 'a dog' isn't cut into tokens"),
    ],
)
def test_texts_that_do_not_fit(score, texts, references, message):
    with pytest.raises(UserError, match=message):
        score(texts, references)
