"""BLEU of written texts against references (Papineni et al. 2002, ACL P02-1040)."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.evaluate.metrics.written.ngrams import Tokens, check_references, ngram_counts

TINY, SMALL = 1e-15, 1e-9  # pycocoevalcap adds these above and below each fraction, and so do we, to compare


class BleuScores(NamedTuple):
    """BLEU-1 to BLEU-n, as fractions.

    corpus: of all texts together, `[order]`, which is not the mean of: examples: each text alone, `[n, order]`.
    """

    corpus: Float[np.ndarray, " order"]
    examples: Float[np.ndarray, "n order"]


def bleu(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], order: int = 4) -> BleuScores:
    """BLEU-1 to BLEU-`order`: the geometric mean of n-gram precisions, times exp(1 - r / c) where the texts are shorter
    (c tokens) than their references (r).

    An n-gram counts at most as often as the reference has it that has it most; of the references' lengths the one
    closest to the text's counts, the shorter of two as close. Counts and lengths are summed over the texts first. The
    numbers are those of pycocoevalcap's `Bleu`, also for a single text: the mean length that its scorer takes for one
    is not what `Bleu` asks it for. A text without words has 0.

    Raises UserError where a text lacks references, or is a string.
    """
    check_references(hypotheses, references)
    found, possible = (np.zeros((len(hypotheses), order)) for _ in range(2))
    lengths = np.array([[len(text), _closest(text, given)] for text, given in zip(hypotheses, references, strict=True)])
    for row, (text, given) in enumerate(zip(hypotheses, references, strict=True)):
        for n in range(1, order + 1):
            most: Counter = Counter()
            for reference in given:
                most |= ngram_counts(reference, n)
            found[row, n - 1] = (ngram_counts(text, n) & most).total()
            possible[row, n - 1] = max(0, len(text) - n + 1)
    corpus = _scores(found.sum(axis=0, keepdims=True), possible.sum(axis=0, keepdims=True), lengths.sum(axis=0)[None])
    return BleuScores(corpus[0], _scores(found, possible, lengths))


def _closest(text: Tokens, references: Sequence[Tokens]) -> int:
    return min((len(each) for each in references), key=lambda length: (abs(length - len(text)), length))


def _scores(
    found: Float[np.ndarray, "n order"], possible: Float[np.ndarray, "n order"], lengths: np.ndarray
) -> Float[np.ndarray, "n order"]:
    precisions = np.cumprod((found + TINY) / (possible + SMALL), axis=1)
    means = precisions ** (1 / np.arange(1, found.shape[1] + 1))
    ratio = (lengths[:, :1] + TINY) / (lengths[:, 1:] + SMALL)
    return means * np.exp(np.minimum(0, 1 - 1 / ratio))
