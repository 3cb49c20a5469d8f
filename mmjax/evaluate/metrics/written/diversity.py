"""Diversity of written texts: a reward can grow while all texts become one, or one phrase repeats."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.ngrams import Tokens, ngram_counts

PHRASE = 4  # tokens that make a phrase which shouldn't come back


def distinct_ngrams(texts: Sequence[Tokens], n: int) -> float:
    """The share of different n-grams among all n-grams of the texts together, distinct-n (Li et al. 2016,
    arXiv:1510.03055). It falls with the number of texts: compare as many. 0 where no text has n tokens.
    """
    counts = [ngram_counts(text, n) for text in texts]
    total = sum(each.total() for each in counts)
    return len(set().union(*counts)) / total if total else 0.0


def repetition_rates(texts: Sequence[Tokens], n: int = PHRASE) -> Float[np.ndarray, " texts"]:
    """The share of each text's n-grams that it had before, seq-rep-n (Welleck et al. 2019, arXiv:1908.04319); 0 where
    it has fewer than n tokens."""
    counts = [ngram_counts(text, n) for text in texts]
    return np.array([1 - len(each) / each.total() if each else 0.0 for each in counts])


def diversity_scores(texts: Sequence[Tokens]) -> dict[str, float]:
    """`distinct_1` and `distinct_2`, the mean `repetition` of four tokens, the share of texts that are `different`, and
    the mean `length` in tokens.

    Raises UserError where there are no texts, or one is a string.
    """
    if not len(texts):
        raise UserError("no texts to score: at least one must be written")
    if whole := next((text for text in texts if isinstance(text, str)), None):
        raise UserError(f"{whole!r:.60} isn't cut into tokens: give caption_words(text)")
    different: set[tuple[Hashable, ...]] = {tuple(text) for text in texts}
    return {
        "distinct_1": distinct_ngrams(texts, 1),
        "distinct_2": distinct_ngrams(texts, 2),
        "repetition": float(repetition_rates(texts).mean()),
        "different": len(different) / len(texts),
        "length": float(np.mean([len(text) for text in texts])),
    }
